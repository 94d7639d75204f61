# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/unikernel.json, the file in an image's root that makes it a unikernel: its one shape, read strictly and written canonically.

    {"version": 1, "family": "plain",
     "kernels": {"kvm/amd64": "/boot/sensor-kvm-amd64", "process/arm64": "/bin/sensor-process-arm64"},
     "initrd": "/boot/initrd", "memory": "8Mi", "stop": "request", "network": false}

version, family and kernels are required. kernels: HYPERVISOR/ARCHITECTURE -> absolute path in the image. memory: the least that the
guest boots with. stop: "request" (it ends when asked) or "kill" (it cannot be asked); without it the family decides. network:
whether the guest drives a network interface. The image may come from anywhere, so that anything else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

PROFILE_PATH = "unikernel.json"
"""Where in an image the profile is, below its root."""
HYPERVISORS = ("kvm", "xen", "process", "simulated")
ARCHITECTURES = ("amd64", "arm64", "arm", "386", "riscv64")
BYTES_MOST = 65536
PATH_MOST = 1024
MEMORY_LEAST = 1 << 20
MEMORY_MOST = 1 << 40

_KEYS = ("version", "family", "kernels", "initrd", "memory", "stop", "network")
_FAMILY = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MEMORY = re.compile(r"([1-9][0-9]{0,12})(Ki|Mi|Gi)?")
_UNITS = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Profile:
    """An image's /unikernel.json, validated.

    kernels: "HYPERVISOR/ARCH" (kvm/amd64, xen/amd64, process/arm64, ...) -> path inside the image.
    memory_bytes: the least that the guest boots with. can_shut_down: overrides the family's answer.
    network: whether the guest drives a network interface.
    """

    family: str
    kernels: Mapping[str, str]
    initrd: Optional[str] = None
    memory_bytes: int = 0
    can_shut_down: Optional[bool] = None
    network: bool = False


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
    unknown = sorted(set(document) - set(_KEYS))
    if unknown:
        raise _wrong(f"has the unknown key {_shown(unknown[0])}", f"known: {', '.join(_KEYS)}")
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
    return Profile(
        family=family,
        kernels=_kernels(document.get("kernels")),
        initrd=None if initrd is None else _path(initrd, "initrd"),
        memory_bytes=_memory(document.get("memory")),
        can_shut_down=None if stop is None else stop == "request",
        network=network,
    )


def profile_bytes(profile: Profile) -> bytes:
    """The canonical file of a profile: the same bytes for the same profile."""
    document: dict[str, Any] = {"version": 1, "family": profile.family, "kernels": dict(profile.kernels)}
    if profile.initrd is not None:
        document["initrd"] = profile.initrd
    if profile.memory_bytes:
        document["memory"] = _memory_text(profile.memory_bytes)
    if profile.can_shut_down is not None:
        document["stop"] = "request" if profile.can_shut_down else "kill"
    if profile.network:
        document["network"] = True
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


def _memory_text(count: int) -> str:
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
