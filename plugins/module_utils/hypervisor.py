# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can run machines with, read from files alone: control groups, memory, architecture, board, device nodes.

The module hypervisor_facts and the host's agents look with the same eyes. root: where the host's file system is seen, for tests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture

_HOST = Path("/")


@dataclass(frozen=True)
class ControlGroups:
    """version: 2, 1 (v1 or hybrid) or 0 (none mounted). controllers: those that can be used to limit."""

    version: int
    controllers: frozenset[str]


def control_groups(root: Path = _HOST) -> ControlGroups:
    """The control groups that are mounted, and the controllers in them that this process may use."""
    mounted = root / "sys/fs/cgroup"
    unified = mounted / "cgroup.controllers"
    if unified.is_file():
        return ControlGroups(2, frozenset(unified.read_text().split()))
    try:
        entries = [entry.name for entry in mounted.iterdir() if entry.is_dir() and os.access(entry, os.W_OK)]
    except OSError:
        return ControlGroups(0, frozenset())
    controllers = frozenset(part for name in entries for part in name.split(",")) - {"systemd", "unified"}
    if "blkio" in controllers:
        controllers = controllers - {"blkio"} | {"io"}
    return ControlGroups(1 if entries else 0, controllers)


def memory_bytes(root: Path = _HOST) -> int:
    """The host's memory. 0 when /proc does not say."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def board_model(root: Path = _HOST) -> Optional[str]:
    """The board: the device tree's model ("Raspberry Pi 4 Model B Rev 1.4"), else what the firmware says (DMI), else None."""
    for path in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        text = _text(root / path)
        if text:
            return text
    parts = [_text(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part) or None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b"").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def xen_role(root: Path = _HOST) -> str:
    """The host's place under Xen: dom0 (it may make machines), domU, or "" without Xen."""
    if _text(root / "sys/hypervisor/type") != "xen":
        return ""
    return "dom0" if "control_d" in _text(root / "proc/xen/capabilities") else "domU"


def libvirt_uris(root: Path = _HOST) -> list[str]:
    """The libvirt URIs whose daemon or socket is there: the one daemon for all, or the modular ones."""
    sockets = root / "run/libvirt"
    monolithic = (sockets / "libvirt-sock").exists()
    uris = []
    if (monolithic and _qemu(root)) or (sockets / "virtqemud-sock").exists():
        uris.append("qemu:///system")
    if (monolithic and xen_role(root) == "dom0") or (sockets / "virtxend-sock").exists():
        uris.append("xen:///system")
    return uris


def describe(machine: str, root: Path = _HOST) -> dict[str, object]:
    """All of it, as hypervisor_facts returns it. machine: what uname says."""
    architecture, variant = oci_architecture(machine)
    groups = control_groups(root)
    return {
        "architecture": architecture,
        "variant": variant,
        "board": board_model(root) or "",
        "kvm": _opens(root / "dev/kvm"),
        "xen": xen_role(root),
        "tcg": _qemu(root, machine),
        "libvirt_uris": libvirt_uris(root),
        "cgroup_version": groups.version,
        "cgroup_controllers": sorted(groups.controllers),
        "memory_bytes": memory_bytes(root),
    }


def _qemu(root: Path, machine: str = "") -> str:
    names = [f"qemu-system-{machine}"] if machine else ["qemu-system-x86_64", "qemu-system-aarch64"]
    for directory in ("usr/bin", "usr/local/bin"):
        for name in names:
            if os.access(root / directory / name, os.X_OK):
                return f"/{directory}/{name}"
    return ""


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
