# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this node runs machines with: found out once after each boot and kept in /run, for it takes seconds and no pod waits for it."""

from __future__ import annotations

import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.host.runu.machine import Hardware
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.unifleet.hybrid.plugins.host.runu.config import Config

KEPT = "/run/unifleet-runu/node.json"


def hardware(config: Config, fresh: bool = False) -> Hardware:
    """The node's hardware. fresh: look again. Raises UnifleetError when no machine can run here."""
    architecture = os.uname().machine
    program = config.qemu or f"/usr/bin/qemu-system-{architecture}"
    if not os.access(program, os.X_OK):
        raise UnifleetError(
            f"{program} cannot be run", "install QEMU (Debian's qemu-system-x86 or qemu-system-arm), or name it in runu.json"
        )
    kind = config.machine if architecture == "x86_64" else "virt"
    if config.accelerator == "tcg":
        return Hardware(program, "tcg", "max", kind, architecture)
    key = f"{config.accelerator} {_stamp(program)} {_stamp(config.probe_kernel)} {_stamp('/dev/kvm')}"
    kept = None if fresh else _kept(key)
    if kept is None:
        kept = _probe(config)
        _keep(key, *kept)
    return Hardware(program, kept[0], kept[1], kind, architecture)


def _probe(config: Config) -> tuple[str, str]:
    """Boot the probe guest. The libraries for it are heavy, so they are imported only here."""
    from pathlib import Path

    from ansible_collections.unifleet.hybrid.plugins.host.machines.accelerator import choose

    os.makedirs(os.path.dirname(KEPT), mode=0o755, exist_ok=True)
    chosen = choose(config.accelerator, Path(config.probe_kernel), Path(os.path.dirname(KEPT)) / "probe.json")
    if chosen.kind == "kvm" and not _open_to_a_group():
        if config.accelerator == "kvm":
            raise UnifleetError("/dev/kvm is root's alone, and QEMU does not run as root", "give it to a group: chgrp kvm, chmod g+rw")
        return "tcg", "max"
    return chosen.kind, chosen.cpu


def _open_to_a_group() -> bool:
    """Whether QEMU's user can be given /dev/kvm: it is everybody's, or that of a group that is not root's."""
    found = os.stat("/dev/kvm")
    return found.st_mode & 0o006 == 0o006 or (found.st_mode & 0o060 == 0o060 and found.st_gid != 0)


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "-"
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _kept(key: str) -> tuple[str, str] | None:
    try:
        with open(KEPT, "rb") as file:
            values = document.loads(file.read(), KEPT)
        return (str(values["accelerator"]), str(values["cpu"])) if values["key"] == key else None
    except (OSError, UnifleetError, KeyError, TypeError):
        return None


def _keep(key: str, accelerator: str, cpu: str) -> None:
    temporary = f"{KEPT}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(document.dumps({"key": key, "accelerator": accelerator, "cpu": cpu}))
        os.rename(temporary, KEPT)
    except OSError:
        return  # then it is found out again the next time
