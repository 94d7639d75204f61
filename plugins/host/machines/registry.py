# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of machines that there are, and one function that opens them.

A kind's libraries (libvirt, jeepney) are imported when it is opened, so that a host pays for, and needs, only its own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

if TYPE_CHECKING:
    from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge

KINDS = ("kvm", "process", "simulated")

ExitParser = Callable[[bytes], Optional[int]]


@dataclass(frozen=True)
class MachinesSettings:
    """What a host's configuration says about its machines.

    run_directory: small state that ends with the boot. state_directory: state that survives it. pods: how many pods the node takes.
    accelerator: auto, kvm or tcg (kvm only). probe_kernel: the guest that auto boots to find out. libvirt_uri: see there.
    exit_parsers: unikernel family -> what reads an exit code off the end of its console.
    """

    run_directory: Path = Path("/run/unifleet")
    state_directory: Path = Path("/var/lib/unifleet")
    pods: int = 110
    accelerator: str = "auto"
    probe_kernel: Optional[Path] = Path("/usr/local/lib/unifleet/probe/sensor-kvm-amd64")
    libvirt_uri: str = "qemu:///system"
    exit_parsers: Mapping[str, ExitParser] = field(default_factory=dict)


def open_machines(kind: str, settings: Optional[MachinesSettings] = None) -> Machines:
    """The machines of this kind on this host. Raises UnifleetError for an unknown kind or a host that lacks what the kind needs."""
    settings = settings or MachinesSettings()
    if kind == "simulated":
        from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import SimulatedMachines

        return SimulatedMachines()
    if kind == "process":
        from ansible_collections.unifleet.hybrid.plugins.host.machines.process import ProcessMachines

        return ProcessMachines(settings.run_directory, pods=settings.pods)
    if kind == "kvm":
        from ansible_collections.unifleet.hybrid.plugins.host.machines.kvm import KvmMachines

        return KvmMachines(settings)
    raise UnifleetError(f"there are no machines of kind {kind!r}", f"use one of {', '.join(KINDS)}")


def open_bridge(kind: str, name: str, libvirt_uri: str) -> Optional[PodBridge]:
    """The bridge for machines of this kind, not made yet; None for a kind whose machines share the host's network."""
    if kind != "kvm" or not name:
        return None
    from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge

    return PodBridge(name, libvirt_uri)
