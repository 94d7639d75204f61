# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines on QEMU through libvirt, under KVM where that works and is no slower, else under QEMU's own translation.

Machine type pc with the qboot ROM: of pc and q35, with SeaBIOS and with qboot, it was the quickest to a kernel's first byte.
"""

from __future__ import annotations

import platform
import threading
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.accelerator import QBOOT, Accelerator, choose
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Kernel, MachineSpec
from ansible_collections.unifleet.hybrid.plugins.host.machines.libvirt_domain import domain_xml, host_hardware
from ansible_collections.unifleet.hybrid.plugins.host.machines.libvirt_machines import LibvirtMachines
from ansible_collections.unifleet.hybrid.plugins.host.machines.registry import MachinesSettings
from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import control_groups


class KvmMachines(LibvirtMachines):
    """The Machines contract for QEMU domains. settings.accelerator says what they run under."""

    kind = "kvm"

    def __init__(self, settings: MachinesSettings) -> None:
        super().__init__(settings.libvirt_uri, settings.pods, settings.exit_parsers)
        self._settings = settings
        self._accelerator: Optional[Accelerator] = None
        self._accelerator_lock = threading.Lock()
        self._limit_cpu = "cpu" in control_groups().controllers

    @property
    def accelerator(self) -> Accelerator:
        """What domains run under, and why; found out at the first question (seconds), kept until the next boot."""
        with self._accelerator_lock:
            if self._accelerator is None:
                cache = self._settings.state_directory / "accelerator.json"
                self._accelerator = choose(self._settings.accelerator, self._settings.probe_kernel, cache)
            return self._accelerator

    def limitations(self) -> tuple[str, ...]:
        """See the contract."""
        slow = () if self.accelerator.kind == "kvm" else (f"virtual machines are emulated in software: {self.accelerator.why}",)
        return slow if self._limit_cpu else (*slow, "the kernel offers no cpu controller here: CPU limits are not enforced")

    def _domain_xml(self, spec: MachineSpec, kernel: Kernel, console: Path) -> str:
        chosen = self.accelerator
        kind = "kvm" if chosen.kind == "kvm" else "qemu"
        hardware = host_hardware(platform.machine(), kind, chosen.cpu, QBOOT if QBOOT.is_file() else None, self._limit_cpu)
        return domain_xml(spec, kernel, console, hardware)
