# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes: the files that a pod mounts, on their way into a guest that has no mount namespace.

They travel as a further segment of the initrd (cpio, "newc"), as they are when the machine is built. That is the truth for what nobody
changes (configMap, secret, projected, read-only hostPath) and for an emptyDir that is the unikernel's alone; a volume that must be written
through to the host cannot be carried so and is refused by name, as is every volume of a family that reads no initrd. What Kubernetes mounts
into each Linux container without being asked (proc, hosts, resolv.conf, termination log) has no meaning for a guest and is left out; so is
the service account's token where it cannot be carried.

Another container of the pod may write to an emptyDir meanwhile, so every name is opened below the volume's own directory by the kernel
(openat2, RESOLVE_IN_ROOT) and no symbolic link leads out of it.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.unifleet.hybrid.plugins.host.runu import syscalls
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Optional

    from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle

BEHIND = frozenset({"linux"})
"""Families that unpack one archive after the other, so that what comes later wins (Linux: initramfs buffer format)."""
BEFORE = frozenset({"plain"})
"""Families that read one archive after the other and take the first file of a name (guest/os/files.c)."""
ALONE = frozenset({"unikraft"})
"""Families that unpack one archive: volumes reach them where the image has no initrd of its own."""
BYTES_MOST = 64 << 20
ENTRIES_MOST = 4096
DEPTH_MOST = 16
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_OWN = ("/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv")
_NEVER_WRITTEN = ("kubernetes.io~configmap", "kubernetes.io~secret", "kubernetes.io~projected", "kubernetes.io~downward-api")
_SCRATCH = "kubernetes.io~empty-dir"


class Volume:
    """One mount that a pod's author asked for."""

    __slots__ = ("destination", "read_only", "source")

    def __init__(self, source: str, destination: str, read_only: bool) -> None:
        self.source = source
        self.destination = destination
        self.read_only = read_only


class Carried:
    """What the guest gets of the pod's volumes. segment: the archive, empty without volumes."""

    __slots__ = ("family", "segment")

    def __init__(self, family: str, segment: bytes = b"") -> None:
        self.family = family
        self.segment = segment

    def initrd(self, own: Optional[int]) -> Optional[int]:
        """The descriptor of the initrd that is booted: the image's own and the volumes. Raises UnifleetError for one of another kind."""
        if not self.segment:
            return own
        from ansible_collections.unifleet.hybrid.plugins.host.runu.unikernel import content_of, copy_of

        first = b"" if own is None else content_of(own)
        padding = b"\0" * (-len(first) % 4)
        if self.family not in BEFORE:
            return copy_of("initrd", [first, padding, self.segment])
        if first and not first.startswith(b"070701"):
            raise UnifleetError(
                "the image's initrd is no cpio archive, so volumes cannot be put beside it", "pack the initrd as cpio (newc)"
            )
        return copy_of("initrd", [self.segment, first])


def wanted(mounts: list[dict[str, Any]]) -> list[Volume]:
    """The volumes among a bundle's mounts: bind mounts other than those that every Linux container gets."""
    found = []
    for mount in mounts:
        options = mount.get("options") or []
        destination, source = os.path.normpath(mount["destination"]), mount.get("source", "")
        if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
            continue
        if any(destination == own or destination.startswith(own + "/") for own in _OWN) or "/containers/" in source.partition("/pods/")[2]:
            continue
        if not destination.startswith("/") or ".." in destination.split("/"):
            raise UnifleetError(f"a volume is mounted at {destination[:200]!r}", "an absolute path is wanted")
        found.append(Volume(source, destination, "ro" in options))
    return found


def carried(bundle: Bundle, family: str, has_initrd: bool, warn: Callable[[str], None]) -> Carried:
    """Read the volumes. Raises UnifleetError that names the volume which cannot be carried, and why."""
    volumes = []
    for volume in wanted(bundle.mounts):
        reason = refusal(volume, family, has_initrd)
        if not reason:
            volumes.append(volume)
        elif volume.destination == TOKEN:
            warn(f"the service account's token is left out: {reason}")
        else:
            raise UnifleetError(
                f"the volume at {volume.destination} cannot be carried into the guest: {reason}", "see the guide on volumes"
            )
    return Carried(family, archive(volumes) if volumes else b"")


def refusal(volume: Volume, family: str, has_initrd: bool) -> str:
    """Why a volume cannot be carried; empty when it can."""
    if family not in BEHIND | BEFORE | ALONE:
        return f"unikernels of family {family} read no files from outside"
    if family in ALONE and has_initrd:
        return f"the image has an initrd of its own, and family {family} unpacks one only"
    if not volume.read_only and not any(kind in volume.source for kind in (*_NEVER_WRITTEN, _SCRATCH)):
        return "it is writable, and what the guest writes would not reach the host; mount it with readOnly: true"
    return ""


def archive(volumes: list[Volume]) -> bytes:
    """The volumes' files as one cpio archive. Raises UnifleetError."""
    writer = _Archive()
    for volume in volumes:
        try:
            _add(writer, volume)
        except OSError as error:
            said = error.strerror or str(error)
            raise UnifleetError(
                f"the volume at {volume.destination} ({volume.source}) cannot be read: {said}", "see what is mounted"
            ) from error
    return writer.finish()


def _add(writer: _Archive, volume: Volume) -> None:
    kind = os.stat(volume.source).st_mode
    writer.directories(os.path.dirname(volume.destination))
    if stat.S_ISREG(kind):
        root = os.open(os.path.dirname(volume.source), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        names = [(os.path.basename(volume.source), "")]
    elif stat.S_ISDIR(kind):
        root = os.open(volume.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        writer.directories(volume.destination)
        names = list(_names(root))
    else:
        raise UnifleetError(f"the volume at {volume.destination} is neither a file nor a directory", "a guest can be given files")
    try:
        for name, inside in names:
            descriptor = syscalls.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                target = f"{volume.destination}/{inside}" if inside else volume.destination
                mode = found.st_mode & (0o555 if volume.read_only else 0o777)
                if stat.S_ISDIR(found.st_mode):
                    writer.directories(target)
                elif stat.S_ISREG(found.st_mode):
                    writer.file(target, mode, descriptor, found.st_size)
                else:
                    raise UnifleetError(f"the volume at {volume.destination} holds {inside or name}, which is no file", "remove it")
            finally:
                os.close(descriptor)
    finally:
        os.close(root)


def _names(root: int, below: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(name to open, name in the guest) of all that is below a directory; the ..data of Kubernetes' atomic writer is seen through."""
    if depth > DEPTH_MOST:
        raise UnifleetError(f"a volume is deeper than {DEPTH_MOST} directories", "flatten it")
    descriptor = syscalls.open_in_root(root, below or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        entries = sorted(entry for entry in os.listdir(descriptor) if not entry.startswith(".."))
    finally:
        os.close(descriptor)
    for entry in entries:
        name = f"{below}/{entry}" if below else entry
        yield name, name
        probe = syscalls.open_in_root(root, name, os.O_PATH | os.O_CLOEXEC)
        try:
            is_directory = stat.S_ISDIR(os.fstat(probe).st_mode)
        finally:
            os.close(probe)
        if is_directory:
            yield from _names(root, name, depth + 1)


class _Archive:
    """A cpio archive in the making (newc, as in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._made: set[str] = set()
        self._bytes = 0
        self._number = 0

    def directories(self, path: str) -> None:
        """A directory, and those above it."""
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            if name not in self._made:
                self._made.add(name)
                self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, mode: int, descriptor: int, size: int) -> None:
        """A regular file with what it holds now."""
        content = b""
        while len(content) < size:
            if self._bytes + size > BYTES_MOST:
                raise UnifleetError(
                    f"the pod's volumes hold more than {BYTES_MOST >> 20} MiB", "a guest keeps them in its memory; carry less"
                )
            part = os.read(descriptor, size - len(content))
            if not part:
                break
            content += part
        self._entry(path.lstrip("/"), stat.S_IFREG | mode, content)

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._number += 1
        if self._number > ENTRIES_MOST:
            raise UnifleetError(f"the pod's volumes hold more than {ENTRIES_MOST} files", "carry less")
        encoded = os.fsencode(name) + b"\0"
        numbers = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        self._parts += [head + b"\0" * (-len(head) % 4), content + b"\0" * (-len(content) % 4)]
        self._bytes += len(content)

    def finish(self) -> bytes:
        """The whole archive."""
        self._entry("TRAILER!!!", 0, b"")
        return b"".join(self._parts)
