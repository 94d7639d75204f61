# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/unikernel.json, the file in an image's root that makes it a unikernel: its one shape, read strictly and written canonically.

    {"version": 1, "family": "plain",
     "kernels": {"kvm/amd64": "/boot/sensor-kvm-amd64", "process/arm64": "/bin/sensor-process-arm64"},
     "initrd": "/boot/initrd", "initrds": {"kvm/arm64": "/boot/initrd-arm64"},
     "memory": "8Mi", "stop": "request", "network": false,
     "hardware": {"kvm/amd64": {"machine": "q35", "nic": "e1000", "console": "serial"}},
     "exit": {"prefix": "exit code: ", "codes": {"42": 134}, "silent": 0},
     "family_version": "0.16.1", "parameters": ["loglevel=3"], "tender": "/bin/solo5-hvt"}

version, family and kernels are required. kernels: HYPERVISOR/ARCHITECTURE -> absolute path in the image. initrd: for every kernel that
initrds does not name. memory: the least that the guest boots with. stop: "request" (it ends when asked) or "kill" (it cannot be
asked); without it the family decides. network: whether the guest drives a network interface. hardware: what a kernel needs of its
machine, from short lists; what is left out is the host's choice. exit: see ExitRule. family_version: of the unikernel system, for
families whose command line has changed. parameters: words for the kernel itself. tender: the program in the image that runs the
kernels of a process target, for Solo5's hvt and spt.

The image may come from anywhere, so that anything else is refused: no key passes libvirt XML or hypervisor flags through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROFILE_PATH = "unikernel.json"
"""Where in an image the profile is, below its root."""
HYPERVISORS = ("kvm", "xen", "process", "simulated")
ARCHITECTURES = ("amd64", "arm64", "arm", "386", "riscv64")
"""As OCI names them; arm is arm/v7."""
ALSO_RUNS: Mapping[str, tuple[str, ...]] = MappingProxyType({"amd64": ("386",), "arm64": ("arm",)})
"""Architecture -> those whose programs its processors run too."""
BYTES_MOST = 65536
PATH_MOST = 1024
PREFIX_MOST = 64
PARAMETERS_MOST = 32
MEMORY_LEAST = 1 << 20
MEMORY_MOST = 1 << 40

_PC = ("pc", "q35", "microvm")
MACHINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kvm/amd64": _PC,
        "kvm/386": _PC,
        "kvm/arm64": ("virt",),
        "kvm/arm": ("virt",),
        "kvm/riscv64": ("virt",),
        "xen/amd64": ("pvh", "pv", "hvm"),
        "xen/386": ("pvh", "pv", "hvm"),
        "xen/arm64": ("pvh",),
    }
)
"""Target -> the machine types that an image may ask for. A target that is not here takes no hardware."""
NICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pc": ("virtio", "e1000", "rtl8139"),
        "q35": ("virtio", "e1000", "e1000e", "rtl8139"),
        "microvm": ("virtio",),
        "virt": ("virtio", "e1000"),
        "pvh": ("netfront",),
        "pv": ("netfront",),
        "hvm": ("netfront", "e1000", "rtl8139"),
    }
)
"""Machine type -> the models of its network card; the first is the default."""
CONSOLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pc": ("serial", "virtio"),
        "q35": ("serial", "virtio"),
        "microvm": ("serial", "virtio"),
        "virt": ("serial", "virtio"),
        "pvh": ("xen",),
        "pv": ("xen",),
        "hvm": ("serial", "xen"),
    }
)
"""Machine type -> the devices that its console may be; the first is the default."""

_FAMILY_KEYS = ("family_version", "parameters", "tender")
_KEYS = ("version", "family", "kernels", "initrd", "initrds", "memory", "stop", "network", "hardware", "exit", *_FAMILY_KEYS)
_HARDWARE_KEYS = ("machine", "nic", "console")
_EXIT_KEYS = ("prefix", "codes", "silent")
_FAMILY = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MEMORY = re.compile(r"([1-9][0-9]{0,12})(Ki|Mi|Gi)?")
_VERSION = re.compile(r"v?[0-9]{1,6}(?:\.[0-9]{1,6}){1,2}(?:[-+~.][A-Za-z0-9.+~-]{1,40})?")
_PARAMETER = re.compile(r"[!#-&(-\[\]-~]{1,200}")
_CODE = re.compile(rb"(0|[1-9][0-9]{0,2})[ \t]*")
_UNITS = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Hardware:
    """What a kernel needs of its machine: machine type, model of network card, device of the console; "" is the host's choice."""

    machine: str = ""
    nic: str = ""
    console: str = ""


@dataclass(frozen=True)
class ExitRule:
    """What the end of a guest that powered itself off means.

    prefix: the console's last line, when it begins with this and a decimal number is all that follows, says the exit code ("": the
    family knows how the guest says it). codes: what the guest says -> what is reported. silent: the code of one that said nothing.
    """

    prefix: str = ""
    codes: Mapping[int, int] = field(default_factory=dict)
    silent: int | None = None

    def code(self, console_tail: bytes, said: int | None) -> int | None:
        """The exit code, 0 to 255, or None. said: what the family read from the same console."""
        if self.prefix:
            line = console_tail.rstrip(b"\r\n").rpartition(b"\n")[2]
            start = self.prefix.encode()
            found = _CODE.fullmatch(line[len(start) :]) if line.startswith(start) else None
            said = int(found.group(1)) & 0xFF if found else said
        return self.silent if said is None else self.codes.get(said, said)

    def document(self) -> dict[str, Any]:
        """As in /unikernel.json."""
        document: dict[str, Any] = {}
        if self.prefix:
            document["prefix"] = self.prefix
        if self.codes:
            document["codes"] = {str(said): code for said, code in sorted(self.codes.items())}
        if self.silent is not None:
            document["silent"] = self.silent
        return document


@dataclass(frozen=True)
class Profile:
    """An image's /unikernel.json, validated.

    kernels: "HYPERVISOR/ARCH" (kvm/amd64, xen/amd64, process/arm64, ...) -> path inside the image.
    initrd: path of the initial RAM disk of every kernel that initrds (target -> path) does not name.
    memory_bytes: the least that the guest boots with. can_shut_down: overrides the family's answer.
    network: whether the guest drives a network interface. hardware: target -> what it needs. family_version, parameters, tender: as in
    the file.
    """

    family: str
    kernels: Mapping[str, str]
    initrd: str | None = None
    memory_bytes: int = 0
    can_shut_down: bool | None = None
    network: bool = False
    initrds: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    exit_rule: ExitRule | None = None
    family_version: str = ""
    parameters: tuple[str, ...] = ()
    tender: str | None = None

    def initrd_of(self, target: str) -> str | None:
        """The path of the initial RAM disk that this target's kernel gets; a process gets none."""
        return None if target.startswith("process/") else self.initrds.get(target, self.initrd)

    def only(self, targets: Sequence[str]) -> Profile:
        """The same profile with these targets alone."""
        kept = [target for target in self.kernels if target in targets]
        shared = self.initrd if any(target not in self.initrds and self.initrd_of(target) for target in kept) else None
        return Profile(
            family=self.family,
            kernels={target: self.kernels[target] for target in kept},
            initrd=shared,
            memory_bytes=self.memory_bytes,
            can_shut_down=self.can_shut_down,
            network=self.network,
            initrds={target: self.initrds[target] for target in kept if target in self.initrds},
            hardware={target: self.hardware[target] for target in kept if target in self.hardware},
            exit_rule=self.exit_rule,
            family_version=self.family_version,
            parameters=self.parameters,
            tender=self.tender,
        )


def parse_profile(content: bytes) -> Profile:
    """Read the file's bytes. Raises UnifleetError naming the key that is wrong."""
    if len(content) > BYTES_MOST:
        raise _wrong(f"has {len(content)} bytes", f"at most {BYTES_MOST} are allowed")
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {error}", "write one JSON object in UTF-8") from error
    return profile_from(document)


def profile_from(document: Any) -> Profile:
    """Check a decoded document. Raises UnifleetError naming the key that is wrong."""
    if not isinstance(document, dict):
        raise _wrong("is not a JSON object", "write {...}")
    _known(document, _KEYS, "")
    if document.get("version") != 1 or isinstance(document["version"], bool):
        raise _wrong(f"has version {_shown(document.get('version'))}", "this Unifleet reads version 1")
    family = document.get("family")
    if not isinstance(family, str) or _FAMILY.fullmatch(family) is None:
        raise _wrong(f"has family {_shown(family)}", "a family is a lower-case word such as plain")
    network = document.get("network", False)
    if not isinstance(network, bool):
        raise _wrong(f"has network {_shown(network)}", "write true or false")
    stop = document.get("stop")
    if stop not in (None, "request", "kill") or isinstance(stop, bool):
        raise _wrong(f"has stop {_shown(stop)}", 'write "request" or "kill"')
    initrd = document.get("initrd")
    kernels = _kernels(document.get("kernels"))
    return Profile(
        family=family,
        kernels=kernels,
        initrd=None if initrd is None else _path(initrd, "initrd"),
        memory_bytes=_memory(document.get("memory")),
        can_shut_down=None if stop is None else stop == "request",
        network=network,
        initrds={
            target: _path(path, f"initrds[{target}]") for target, path in _by_target(document.get("initrds"), "initrds", kernels).items()
        },
        hardware={target: _hardware(entry, target) for target, entry in _by_target(document.get("hardware"), "hardware", kernels).items()},
        exit_rule=exit_rule_from(document["exit"]) if document.get("exit") is not None else None,
        family_version=_version(document.get("family_version")),
        parameters=_parameters(document.get("parameters")),
        tender=None if document.get("tender") is None else _path(document["tender"], "tender"),
    )


def profile_bytes(profile: Profile) -> bytes:
    """The canonical file of a profile: the same bytes for the same profile."""
    document: dict[str, Any] = {"version": 1, "family": profile.family, "kernels": dict(profile.kernels)}
    if profile.initrd is not None:
        document["initrd"] = profile.initrd
    if profile.memory_bytes:
        document["memory"] = memory_text(profile.memory_bytes)
    if profile.can_shut_down is not None:
        document["stop"] = "request" if profile.can_shut_down else "kill"
    if profile.network:
        document["network"] = True
    if profile.initrds:
        document["initrds"] = dict(profile.initrds)
    hardware = {
        target: {key: getattr(entry, key) for key in _HARDWARE_KEYS if getattr(entry, key)} for target, entry in profile.hardware.items()
    }
    if any(hardware.values()):
        document["hardware"] = {target: entry for target, entry in hardware.items() if entry}
    if profile.exit_rule is not None and profile.exit_rule.document():
        document["exit"] = profile.exit_rule.document()
    if profile.family_version:
        document["family_version"] = profile.family_version
    if profile.parameters:
        document["parameters"] = list(profile.parameters)
    if profile.tender is not None:
        document["tender"] = profile.tender
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _kernels(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not value:
        raise _wrong(f"has kernels {_shown(value)}", 'write at least one, as {"kvm/amd64": "/boot/kernel"}')
    kernels = {}
    for target, path in value.items():
        hypervisor, _slash, architecture = target.partition("/")
        if hypervisor not in HYPERVISORS or architecture not in ARCHITECTURES:
            raise _wrong(
                f"has a kernel for {_shown(target)}",
                f"write HYPERVISOR/ARCHITECTURE with one of {', '.join(HYPERVISORS)} and one of {', '.join(ARCHITECTURES)}",
            )
        kernels[target] = _path(path, f"kernels[{target}]")
    return kernels


def _known(document: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(document) - set(known))
    if unknown:
        hint = f"known: {', '.join(known)}"
        if "xml" in unknown[0].lower() or "domain" in unknown[0].lower():
            hint = f"an image cannot bring libvirt XML; {hint}"
        raise _wrong(f"has the unknown key {_shown(where + unknown[0])}", hint)


def _by_target(value: Any, key: str, kernels: Mapping[str, str]) -> Mapping[str, Any]:
    """An object from target to anything, for targets that have a kernel."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(f"has {key} {_shown(value)}", f'write an object such as {{"{next(iter(kernels))}": ...}}')
    for target in value:
        if target not in kernels:
            raise _wrong(f"has {key} for {_shown(target)}, which has no kernel", f"kernels: {', '.join(sorted(kernels))}")
    return value


def _hardware(value: Any, target: str) -> Hardware:
    where = f"hardware[{target}]"
    machines = MACHINES.get(target, ())
    if not machines:
        raise _wrong(f"has {where}", f"only {', '.join(MACHINES)} are machines with hardware")
    if not isinstance(value, dict):
        raise _wrong(f"has {where} {_shown(value)}", f"write an object with {', '.join(_HARDWARE_KEYS)}")
    _known(value, _HARDWARE_KEYS, f"{where}.")
    machine = _one_of(value.get("machine"), machines, f"{where}.machine")
    types = (machine,) if machine else machines
    nic = _one_of(value.get("nic"), _in_all(NICS, types), f"{where}.nic")
    console = _one_of(value.get("console"), _in_all(CONSOLES, types), f"{where}.console")
    return Hardware(machine, nic, console)


def _in_all(table: Mapping[str, tuple[str, ...]], machines: Sequence[str]) -> list[str]:
    """What every one of these machine types has: without a machine type the host takes the one that it likes."""
    return [entry for entry in table[machines[0]] if all(entry in table[machine] for machine in machines)]


def _one_of(value: Any, allowed: Sequence[str], where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or value not in allowed:
        raise _wrong(f"has {where} {_shown(value)}", f"allowed: {', '.join(allowed) or 'nothing before machine is named'}")
    return value


def exit_rule_from(value: Any) -> ExitRule:
    """Check a decoded "exit" object. Raises UnifleetError naming the key that is wrong."""
    if not isinstance(value, dict):
        raise _wrong(f"has exit {_shown(value)}", f"write an object with {', '.join(_EXIT_KEYS)}")
    _known(value, _EXIT_KEYS, "exit.")
    prefix = value.get("prefix", "")
    if not isinstance(prefix, str) or len(prefix) > PREFIX_MOST or not prefix.isprintable() or not _encodes(prefix):
        raise _wrong(f"has exit.prefix {_shown(prefix)}", f"write up to {PREFIX_MOST} printable characters")
    codes = value.get("codes", {})
    if not isinstance(codes, dict):
        raise _wrong(f"has exit.codes {_shown(codes)}", 'write an object such as {"42": 134}')
    mapped = {}
    for said, code in codes.items():
        if _CODE.fullmatch(said.encode("utf-8", "replace")) is None or not said.isdigit() or int(said) > 255:
            raise _wrong(f"has exit.codes for {_shown(said)}", "write a code from 0 to 255")
        mapped[int(said)] = _exit_code(code, f"exit.codes[{said}]")
    silent = value.get("silent")
    return ExitRule(prefix, mapped, None if silent is None else _exit_code(silent, "exit.silent"))


def _exit_code(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
        raise _wrong(f"has {where} {_shown(value)}", "write a code from 0 to 255")
    return value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _version(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or _VERSION.fullmatch(value) is None:
        raise _wrong(f"has family_version {_shown(value)}", "write a version such as 0.16.1")
    return value


def _parameters(value: Any) -> tuple[str, ...]:
    hint = f"write a list of at most {PARAMETERS_MOST} words without spaces and quotes, such as loglevel=3"
    words = [] if value is None else value
    if not isinstance(words, list) or len(words) > PARAMETERS_MOST:
        raise _wrong(f"has parameters {_shown(value)}", hint)
    for word in words:
        if not isinstance(word, str) or _PARAMETER.fullmatch(word) is None or word == "--":
            raise _wrong(f"has the parameter {_shown(word)}", hint)
    return tuple(words)


def _path(value: Any, key: str) -> str:
    hint = "write an absolute path inside the image, without . or .. or empty parts"
    if not isinstance(value, str) or not value.startswith("/") or len(value) > PATH_MOST:
        raise _wrong(f"has {key} {_shown(value)}", hint)
    if any(part in ("", ".", "..") for part in value[1:].split("/")) or not value.isprintable():
        raise _wrong(f"has {key} {_shown(value)}", hint)
    return value


def _memory(value: Any) -> int:
    if value is None:
        return 0
    hint = "write a quantity from 1Mi to 1024Gi, such as 8Mi"
    found = _MEMORY.fullmatch(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if found is None:
        raise _wrong(f"has memory {_shown(value)}", hint)
    count = int(found.group(1)) * _UNITS[found.group(2)]
    if not MEMORY_LEAST <= count <= MEMORY_MOST:
        raise _wrong(f"has memory {_shown(value)}", hint)
    return count


def memory_text(count: int) -> str:
    """Bytes as a quantity: 8Mi."""
    for unit in ("Gi", "Mi", "Ki"):
        if count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]}{unit}"
    return str(count)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return document


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _wrong(what: str, hint: str) -> UnifleetError:
    return UnifleetError(f"the image's /{PROFILE_PATH} {what}", hint)
