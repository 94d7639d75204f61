# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's administrator says: /etc/unifleet/runu.json. JSON, for it is read at each create and a TOML reader is slow to import.

    {"runc": "runc", "qemu": "", "accelerator": "auto", "probe_kernel": "", "machine": "pc", "memory_overhead": 33554432,
     "memory_default": 67108864, "annotations": ["io.unifleet."], "allow_vm_parameters": false, "hypervisor_paths": [],
     "first_uid": 1900000000, "uids": 16777216, "systemd_timeout": 10}

Every key may be left out. UNIFLEET_RUNU_CONFIG in the environment of containerd names another file.
"""

from __future__ import annotations

import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/etc/unifleet/runu.json"


class Config:
    """The configuration; the defaults are these.

    runc: what runs ordinary containers. qemu: the program, "" for this machine's qemu-system-*. accelerator: auto, kvm or tcg; auto boots
    probe_kernel once after each boot of the node. machine: QEMU's machine type. memory_overhead: bytes that QEMU and the monitor may use
    beside the guest's memory; also what the RuntimeClass declares. memory_default: bytes for a guest without a limit. annotations: prefixes
    of those that runu heeds; others are only told in the state. first_uid, uids: each QEMU runs as a user of its own out of these.
    """

    __slots__ = (
        "accelerator",
        "allow_vm_parameters",
        "annotations",
        "first_uid",
        "hypervisor_paths",
        "machine",
        "memory_default",
        "memory_overhead",
        "probe_kernel",
        "qemu",
        "runc",
        "uids",
    )

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.runc: str = "runc"
        self.qemu: str = ""
        self.accelerator: str = "auto"
        self.probe_kernel: str = "/usr/local/lib/unifleet/probe/sensor-kvm-amd64"
        self.machine: str = "pc"
        self.memory_overhead: int = 32 << 20
        self.memory_default: int = 64 << 20
        self.annotations: list[str] = ["io.unifleet."]
        self.allow_vm_parameters: bool = False
        self.hypervisor_paths: list[str] = []
        self.first_uid: int = 1_900_000_000
        self.uids: int = 1 << 24
        for key, value in (values or {}).items():
            if key not in self.__slots__:
                raise UnifleetError(f"unknown key {key!r}", f"known: {', '.join(self.__slots__)}")
            known = getattr(self, key)
            if type(value) is not type(known) or (isinstance(value, list) and not all(isinstance(entry, str) for entry in value)):
                raise UnifleetError(f"{key} is {document.dumps(value)[:80]}", f"write a value like {document.dumps(known)}")
            if isinstance(value, int) and value < 0:
                raise UnifleetError(f"{key} is negative", "write a number from 0")
            setattr(self, key, value)
        if self.accelerator not in ("auto", "kvm", "tcg"):
            raise UnifleetError(f"accelerator is {self.accelerator!r}", "write auto, kvm or tcg")
        if self.machine not in ("pc", "q35", "microvm", "virt"):
            raise UnifleetError(f"machine is {self.machine!r}", "write pc, q35, microvm or virt")
        if self.first_uid < 1 or self.uids < 1 or self.first_uid + self.uids >= 1 << 32:
            raise UnifleetError("first_uid and uids are no range of users", "QEMU never runs as root")


def read() -> Config:
    """The configuration on disk; the defaults where there is none. Raises UnifleetError naming file and key."""
    path = os.environ.get("UNIFLEET_RUNU_CONFIG") or PATH
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise UnifleetError(f"{path} cannot be read: {error.strerror}", "see its mode") from error
    values = document.loads(text, path)
    if not isinstance(values, dict):
        raise UnifleetError(f"{path} is not a JSON object", "write {...}")
    try:
        return Config(values)
    except UnifleetError as error:
        raise UnifleetError(f"{path}: {error.message}", error.hint) from error
