# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a bundle is a unikernel, and what of it is booted.

An image says so itself (/unikernel.json and the layouts that the images room knows); a bundle made by hand or by `runu spec` says so with
the runtime-spec's vm object (config-vm.md), whose paths are the host's. Everything else is an ordinary container, runc's business. The root
file system is whatever an image's author made of it: paths are resolved inside of it and what is found must be a regular file.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
    from ansible_collections.unifleet.hybrid.plugins.host.runu.config import Config

MARKS = ("unikernel.json", "urunc.json", "unikraft/bin/kernel")
"""Files that an image with a kernel in it has one of."""
PROFILE_MOST = 65536
MEMORY = "io.unifleet.memory"
FAMILY = "io.unifleet.family"
STOP = "io.unifleet.stop"
_FORMATS = frozenset({"raw", "qcow2", "vdi", "vmdk", "vhd"})


class Unikernel:
    """What is booted. kernel, initrd, disk: open descriptors. memory_floor: bytes. command_line: fixed, when the bundle says it itself."""

    __slots__ = (
        "can_shut_down",
        "command",
        "command_line",
        "console",
        "disk",
        "exit_rule",
        "extra",
        "family",
        "initrd",
        "kernel",
        "machine",
        "memory",
        "memory_floor",
        "network",
        "nic",
        "parameters",
        "program",
        "vcpus",
        "version",
    )

    def __init__(self, family: str, kernel: int, initrd: Optional[int] = None) -> None:
        self.family = family
        self.kernel = kernel
        self.initrd = initrd
        self.memory_floor = 0
        self.memory = 0
        self.vcpus = 0
        self.can_shut_down: Optional[bool] = None
        self.network = True
        self.command_line: Optional[str] = None
        self.disk: Optional[tuple[int, str]] = None
        self.extra: tuple[str, ...] = ()
        self.program = ""
        self.machine = ""
        self.nic = ""
        self.console = ""
        self.version = ""
        self.parameters: tuple[str, ...] = ()
        self.command: tuple[str, ...] = ()
        self.exit_rule: Optional[dict[str, Any]] = None


def is_unikernel(bundle: Bundle, architecture: str) -> bool:
    """Whether runu runs this itself. An image that has a program for this architecture and no kernel is a container's."""
    if bundle.is_sandbox():
        return False
    if bundle.config.get("vm") is not None:
        return True
    rootfs = bundle.rootfs
    if not any(os.path.lexists(f"{rootfs}/{mark}") for mark in MARKS):
        return False
    kernels = _kernels(f"{rootfs}/unikernel.json")
    return f"kvm/{architecture}" in kernels or f"process/{architecture}" not in kernels


def _kernels(path: str) -> Any:
    """The kernel table, at a glance; empty when there is none to be seen: whoever boots the image looks closer and says what is wrong."""
    from ansible_collections.unifleet.hybrid.plugins.host.runu import document

    try:
        descriptor = open_file(path, "the profile")
    except UnifleetError:
        return {}
    try:
        found = document.loads(os.read(descriptor, PROFILE_MOST), path)
    except UnifleetError:
        return {}
    finally:
        os.close(descriptor)
    kernels = found.get("kernels") if isinstance(found, dict) else None
    return kernels if isinstance(kernels, dict) else {}


def find(bundle: Bundle, config: Config, architecture: str) -> Unikernel:
    """Open what is booted. Raises UnifleetError that names what is wrong with the image or the vm object."""
    found = _from_vm(bundle, config) if bundle.config.get("vm") is not None else _from_image(bundle, architecture)
    for key, value in heeded(bundle.annotations, config.annotations).items():
        if key == MEMORY:
            found.memory = quantity(key, value)
        elif key == STOP:
            if value not in ("request", "kill"):
                raise UnifleetError(f"annotation {key} is {value[:80]!r}", "write request or kill")
            found.can_shut_down = value == "request"
        elif key == FAMILY and bundle.config.get("vm") is not None:
            found.family = value
    return found


def heeded(annotations: dict[str, str], allowed: list[str]) -> dict[str, str]:
    """The annotations that runu acts on: its own, as far as the node's administrator allows them (a prefix, or a whole name)."""
    return {
        key: value
        for key, value in annotations.items()
        if key.startswith("io.unifleet.") and any(key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in allowed)
    }


def environment(bundle: Bundle) -> tuple[tuple[str, str], ...]:
    """The pod's environment without what engines put there for Linux programs alone: PATH, and the TERM of a terminal."""
    return tuple((name, value) for name, value in bundle.env if name != "PATH" and not (name == "TERM" and bundle.terminal))


def _profile(rootfs: str) -> tuple[Any, tuple[str, ...]]:
    """The image's profile, None when it has none, and the words that it runs with when nobody says any."""
    from pathlib import Path

    from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
    from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import PROFILE_PATH, parse_profile

    path = resolve_in_root(Path(rootfs), PROFILE_PATH)
    if not os.path.lexists(path):
        from ansible_collections.unifleet.hybrid.plugins.host.images.foreign_layouts import read_foreign

        foreign = read_foreign(Path(rootfs))
        return (None, ()) if foreign is None else (foreign.profile, foreign.command)
    descriptor = open_file(str(path), f"the image's /{PROFILE_PATH}")
    try:
        return parse_profile(os.read(descriptor, PROFILE_MOST + 1)), ()
    finally:
        os.close(descriptor)


def _from_image(bundle: Bundle, architecture: str) -> Unikernel:
    from pathlib import Path

    from ansible_collections.unifleet.hybrid.plugins.host.images.choice import choose_bootable
    from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Image

    reference = bundle.annotations.get("io.kubernetes.cri.image-name") or f"in {bundle.rootfs}"
    profile, command = _profile(bundle.rootfs)
    if profile is None:
        raise UnifleetError(f"image {reference} has a kernel in a layout that is not known", "add a /unikernel.json")
    image = Image(reference=reference, digest="", root=Path(bundle.rootfs), profile=profile)
    chosen = choose_bootable(image, "kvm", architecture)
    kernel = open_file(str(chosen.kernel), "the kernel")
    found = Unikernel(chosen.family, kernel, None if chosen.initrd is None else open_file(str(chosen.initrd), "the initrd"))
    found.memory_floor = chosen.memory_bytes
    found.can_shut_down = chosen.can_shut_down
    found.network = chosen.network
    found.machine, found.nic, found.console = chosen.hardware.machine, chosen.hardware.nic, chosen.hardware.console
    found.version, found.parameters, found.command = chosen.family_version, chosen.parameters, command
    found.exit_rule = chosen.exit_rule.document() if chosen.exit_rule else None
    return found


def _from_vm(bundle: Bundle, config: Config) -> Unikernel:
    """config-vm.md of runtime-spec 1.3: hypervisor, kernel, image, hwConfig (Go writes hwconfig)."""
    bundle.get("vm", dict, {})
    if bundle.get("vm.hypervisor.parameters", list, []) and not config.allow_vm_parameters:
        raise UnifleetError(
            f"{bundle.path}: vm.hypervisor.parameters are options of QEMU, which reach everything on this host",
            "leave them out, or let the node's administrator set allow_vm_parameters in runu.json",
        )
    program = bundle.get("vm.hypervisor.path", str, "")
    if program and program not in config.hypervisor_paths:
        raise UnifleetError(
            f"{bundle.path}: vm.hypervisor.path {program!r} is not among those that this node allows",
            "leave it out, or let the node's administrator add it to hypervisor_paths in runu.json",
        )
    kernel = _host_file(bundle, "vm.kernel.path")
    if kernel is None:
        raise UnifleetError(f"{bundle.path}: vm.kernel.path is missing", "runu boots kernels; name one")
    found = Unikernel(bundle.annotations.get(FAMILY, "plain"), kernel, _host_file(bundle, "vm.kernel.initrd"))
    found.program = program
    found.extra = tuple(_words(bundle, "vm.hypervisor.parameters"))
    words = _words(bundle, "vm.kernel.parameters")
    if words:
        found.command_line = " ".join(words)
    disk = _host_file(bundle, "vm.image.path")
    if disk is not None:
        form = bundle.get("vm.image.format", str, "raw")
        if form not in _FORMATS:
            raise bundle.wrong("vm.image.format", form, f"one of {', '.join(sorted(_FORMATS))}")
        found.disk = (disk, "vpc" if form == "vhd" else form)
    for name in ("hwConfig", "hwconfig"):
        for key in ("deviceTree", "dtdevs", "iomems", "irqs"):
            if bundle.get(f"vm.{name}.{key}", object, None):
                raise UnifleetError(f"{bundle.path}: vm.{name}.{key} cannot be given to a QEMU machine", "leave it out")
        found.memory = found.memory or int(bundle.get(f"vm.{name}.memory", int, 0))
        found.vcpus = found.vcpus or int(bundle.get(f"vm.{name}.vcpus", int, 0))
    return found


def _words(bundle: Bundle, key: str) -> list[str]:
    found = bundle.get(key, list, [])
    if not all(isinstance(word, str) and "\0" not in word for word in found):
        raise bundle.wrong(key, found, "a list of texts is wanted")
    return list(found)


def _host_file(bundle: Bundle, key: str) -> Optional[int]:
    path = bundle.get(key, str, "")
    if not path:
        return None
    if not path.startswith("/") or "\0" in path:
        raise bundle.wrong(key, path, "an absolute path on this host is wanted")
    return open_file(path, key, follow=True)


def open_file(path: str, what: str, follow: bool = False) -> int:
    """A descriptor of a regular file. Raises UnifleetError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise UnifleetError(f"{what} {path} cannot be opened: {error.strerror}", "rebuild the image, or mend the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnifleetError(f"{what} {path} is not a regular file", "rebuild the image, or mend the path")
    return descriptor


def readable_by_all(descriptor: int, name: str) -> int:
    """A descriptor that QEMU's user may open again through /proc: the file itself, or a copy in memory where its mode forbids that."""
    found = os.fstat(descriptor)
    if found.st_mode & 0o004:
        return descriptor
    return copy_of(name, [content_of(descriptor)])


def content_of(descriptor: int) -> bytes:
    """All bytes of an open file."""
    size = os.fstat(descriptor).st_size
    parts, offset = [], 0
    while offset < size:
        part = os.pread(descriptor, min(1 << 20, size - offset), offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def copy_of(name: str, parts: list[bytes]) -> int:
    """A file in memory with these bytes, which nobody changes any more."""
    import fcntl

    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, 1033, 0x000F)  # F_ADD_SEALS: seal, shrink, grow, write
    return descriptor


def quantity(key: str, value: str) -> int:
    digits = value.rstrip("KMGi")
    unit = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}.get(value[len(digits) :])
    if not digits.isdigit() or not digits.isascii() or len(digits) > 12 or unit is None:
        raise UnifleetError(f"annotation {key} is {value[:80]!r}", "write a quantity such as 64Mi")
    return int(digits) * unit


def memory_of(unikernel: Unikernel, limit: int, above: Optional[int], overhead: int, default: int) -> int:
    """The guest's bytes: what the limit says, as far as the groups above leave room for QEMU itself. Raises UnifleetError below the floor.

    limit: the container's, 0 for none. above: the smallest limit of the groups above, the RuntimeClass's overhead in it, or None.
    """
    wanted = unikernel.memory or limit or max(default, unikernel.memory_floor)
    if limit:
        wanted = min(wanted, limit)
    if above is not None:
        wanted = min(wanted, above - overhead)
    mebibytes = wanted >> 20
    floor = max(1, -(-unikernel.memory_floor >> 20))
    if mebibytes < floor:
        raise UnifleetError(
            f"the guest would have {max(0, wanted)} bytes of memory and needs {floor << 20}",
            f"raise the container's memory limit; QEMU itself takes {overhead} bytes, which the RuntimeClass should declare as overhead",
        )
    return mebibytes << 20
