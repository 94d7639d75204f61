# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine as a libvirt domain: the XML that says what a specification says, and what a domain's state says of the machine.

All of it is pure. libvirt forgets why a domain stopped when it is restarted, so what is once known of an end is kept in the domain's
own metadata, beside the machine's. Domain XML: https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import base64
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, Interface, Kernel, MachineSpec
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import CONSOLES, NICS, ExitRule, exit_rule_from
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Hardware as KernelHardware

NAMESPACE = "https://unifleet.io/xml/machine/1"
PREFIX = "unifleet"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
_LEAST_MEMORY = 8 << 20
CONSOLE_TAIL = 16384
"""Bytes of a console's end that an exit code is looked for in; Linux writes a call trace after it."""


@dataclass(frozen=True)
class Record:
    """What the domain carries of its machine: the spec's metadata, whether it can be asked to stop, its console, how far it got, and
    what its end means."""

    metadata: Mapping[str, str]
    can_shut_down: bool
    console: str
    started_at: Optional[float] = None
    exit: Optional[Exit] = None
    exit_rule: Optional[ExitRule] = None
    abrupt: bool = False
    """It ends by taking QEMU down with it (isa-debug-exit), which libvirt takes for a crash."""

    def element(self) -> str:
        """The metadata element's content. Base64, for XML cannot carry every character."""
        body = {
            "metadata": dict(self.metadata),
            "can_shut_down": self.can_shut_down,
            "console": self.console,
            "started_at": self.started_at,
            "exit": [self.exit.code, self.exit.reason, self.exit.finished_at, self.exit.message] if self.exit else None,
        }
        if self.exit_rule:
            body["exit_rule"] = self.exit_rule.document()
        if self.abrupt:
            body["abrupt"] = True
        element = ET.Element("machine", {"version": "1"})
        element.text = base64.b64encode(json.dumps(body, sort_keys=True).encode()).decode()
        return ET.tostring(element, encoding="unicode")

    def ended(self, end: Exit) -> Record:
        """The same machine, stopped."""
        return replace(self, exit=end)


def record_from(element: str) -> Record:
    """The record that a domain's metadata element holds. Raises UnifleetError when it was tampered with."""
    try:
        body = json.loads(base64.b64decode(ET.fromstring(element).text or ""))  # noqa: S314 - libvirt parsed it before
        end = Exit(*body["exit"]) if body["exit"] else None
        rule = exit_rule_from(body["exit_rule"]) if body.get("exit_rule") else None
        return Record(body["metadata"], body["can_shut_down"], body["console"], body["started_at"], end, rule, bool(body.get("abrupt")))
    except (ET.ParseError, ValueError, KeyError, TypeError, UnifleetError) as error:
        raise UnifleetError(f"a domain's {NAMESPACE} metadata cannot be read: {error}", "undefine the domain with virsh") from error


@dataclass(frozen=True)
class Hardware:
    """What domains of this host are made of. domain_type: kvm or qemu. cpu: QEMU model name. limit_cpu: a CPU controller is there.

    machine: the type of those whose kernel asks for none. machines: the types that a kernel may ask for here.
    """

    domain_type: str
    cpu: str
    machine: str = "pc"
    architecture: str = "x86_64"
    loader: Optional[Path] = None
    limit_cpu: bool = False
    machines: tuple[str, ...] = ("pc", "q35", "microvm")


def host_hardware(machine: str, domain_type: str, cpu: str, loader: Optional[Path], limit_cpu: bool) -> Hardware:
    """Of a host that uname calls machine: pc with the quick ROM on x86, virt on everything else."""
    if machine in ("x86_64", "i686"):
        return Hardware(domain_type, cpu, architecture=machine, loader=loader, limit_cpu=limit_cpu)
    return Hardware(domain_type, cpu, machine="virt", architecture=machine, limit_cpu=limit_cpu, machines=("virt",))


def domain_xml(spec: MachineSpec, kernel: Kernel, console: Path, hardware: Hardware) -> str:
    """The domain of a machine: a kernel booted directly, a serial console with a log file, and no device that was not asked for.

    Raises UnifleetError for a command line that XML cannot carry, and for hardware that is not to be had here.
    """
    wanted = hardware_of(spec.title, kernel.hardware, hardware)
    for what, text in (("command line", kernel.command_line), ("title", spec.title), ("kernel path", str(kernel.image))):
        if any((ord(letter) < 32 and letter not in "\t") or ord(letter) in (0xFFFE, 0xFFFF) for letter in text):
            raise UnifleetError(f"{spec.title!r}: the {what} has a control character, which libvirt cannot carry", "encode or remove it")
    domain = ET.Element("domain", {"type": hardware.domain_type})
    _add(domain, "name", f"unifleet-{spec.key}")
    _add(domain, "uuid", spec.key)
    _add(domain, "title", spec.title)
    metadata = ET.SubElement(domain, "metadata")
    record = Record(spec.metadata, kernel.can_shut_down, str(console), exit_rule=kernel.exit_rule, abrupt=bool(kernel.debug_exit))
    machine = ET.fromstring(record.element())  # noqa: S314 - made a line above
    machine.tag = f"{{{NAMESPACE}}}machine"
    metadata.append(machine)
    _add(domain, "memory", str(max(spec.memory_bytes, _LEAST_MEMORY)), unit="b")
    _add(domain, "vcpu", str(max(1, math.ceil(spec.cpu_millis / 1000))))
    if spec.cpu_millis and hardware.limit_cpu:
        tune = ET.SubElement(domain, "cputune")
        _add(tune, "global_period", "100000")
        _add(tune, "global_quota", str(max(1000, spec.cpu_millis * 100)))
    system = ET.SubElement(domain, "os")
    _add(system, "type", "hvm", arch=hardware.architecture, machine=wanted.machine)
    if hardware.loader and wanted.machine != "microvm":  # which brings it
        _add(system, "loader", str(hardware.loader), readonly="yes", type="rom")
    _add(system, "kernel", str(kernel.image))
    if kernel.initrd:
        _add(system, "initrd", str(kernel.initrd))
    _add(system, "cmdline", kernel.command_line)
    if wanted.machine != "virt":  # where libvirt has ACPI with UEFI only; the button is a line of the virt's GPIO controller then
        ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    if hardware.cpu == "host":
        ET.SubElement(domain, "cpu", {"mode": "host-passthrough"})
    elif hardware.cpu == "max":
        ET.SubElement(domain, "cpu", {"mode": "maximum"})
    else:
        _add(ET.SubElement(domain, "cpu", {"mode": "custom", "match": "exact"}), "model", hardware.cpu)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(domain, event, "destroy")
    devices = ET.SubElement(domain, "devices")
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    ET.SubElement(devices, "memballoon", {"model": "none"})
    mmio = wanted.machine == "microvm"  # it has no PCI, and libvirt is to be told so of each device
    if spec.interface:
        _add_card(devices, spec.interface, wanted.nic, mmio)
    _add_console(devices, console, wanted.console, mmio)
    if kernel.debug_exit and wanted.machine in ("pc", "q35"):
        _add_debug_exit(domain, kernel.debug_exit)
    ET.register_namespace(PREFIX, NAMESPACE)
    return ET.tostring(domain, encoding="unicode")


def hardware_of(title: str, wanted: KernelHardware, host: Hardware) -> KernelHardware:
    """What a kernel gets of what it asks for. Raises UnifleetError for what this host has not, naming the machine and the key."""
    machine = wanted.machine or host.machine
    if machine != host.machine and machine not in host.machines:
        raise _unfit(title, "machine type", machine, sorted({host.machine, *host.machines}))
    nics, consoles = NICS.get(machine, ("virtio",)), CONSOLES.get(machine, ("serial",))
    nic, console = wanted.nic or nics[0], wanted.console or consoles[0]
    if nic not in nics:
        raise _unfit(title, f"network card of a {machine}", nic, nics)
    if console not in consoles:
        raise _unfit(title, f"console of a {machine}", console, consoles)
    return KernelHardware(machine, nic, console)


def _unfit(title: str, what: str, wanted: str, there_are: Iterable[str]) -> UnifleetError:
    return UnifleetError(f"{title}: its image asks for {wanted} as {what}; here are {', '.join(there_are)}", "mend hardware in the image")


def _add_card(devices: ET.Element, interface: Interface, model: str, mmio: bool) -> None:
    card = ET.SubElement(devices, "interface", {"type": "bridge"})
    ET.SubElement(card, "mac", {"address": interface.mac})
    ET.SubElement(card, "source", {"bridge": interface.bridge})
    if interface.tap:
        ET.SubElement(card, "target", {"dev": interface.tap})
    ET.SubElement(card, "model", {"type": model})
    ET.SubElement(card, "link", {"state": "up"})
    if mmio:
        ET.SubElement(card, "address", {"type": "virtio-mmio"})
    else:
        ET.SubElement(card, "rom", {"enabled": "no"})


def _add_console(devices: ET.Element, log: Path, device: str, mmio: bool) -> None:
    if device == "virtio":
        controller = ET.SubElement(devices, "controller", {"type": "virtio-serial", "index": "0"})
        if mmio:
            ET.SubElement(controller, "address", {"type": "virtio-mmio"})
        line = ET.SubElement(devices, "console", {"type": "pty"})
        target = {"type": "virtio", "port": "0"}
    else:
        line = ET.SubElement(devices, "serial", {"type": "pty"})
        target = {"port": "0"}
    ET.SubElement(line, "log", {"file": str(log), "append": "on"})
    ET.SubElement(line, "target", target)


def _add_debug_exit(domain: ET.Element, port: int) -> None:
    """QEMU's test device, by which guests end that know no ACPI; libvirt has no element for it."""
    ET.register_namespace("qemu", QEMU_NAMESPACE)
    extra = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for argument in ("-device", f"isa-debug-exit,iobase={port:#x},iosize=0x2"):
        ET.SubElement(extra, f"{{{QEMU_NAMESPACE}}}arg", {"value": argument})


class Shutoff:
    """Why libvirt says that a domain is off (virDomainShutoffReason)."""

    UNKNOWN, SHUTDOWN, DESTROYED, CRASHED, MIGRATED, SAVED, FAILED, FROM_SNAPSHOT, DAEMON = range(9)


def exit_of(
    reason: int,
    console_tail: bytes,
    parse: Optional[Callable[[bytes], Optional[int]]],
    finished_at: float,
    rule: Optional[ExitRule] = None,
    *,
    abrupt: bool = False,
) -> Exit:
    """How a domain that is off ended: what its guest wrote last goes before what the hypervisor can tell.

    rule: what the image says of its guest's end. A guest that said nothing has its silent code only if it powered itself off.
    abrupt: a crash is how this guest ends too, when it has said its code.
    """
    code = None
    if reason in (Shutoff.SHUTDOWN, Shutoff.UNKNOWN, Shutoff.DAEMON) or (abrupt and reason == Shutoff.CRASHED):
        code = parse(console_tail) if parse else None
        if rule is not None:
            code = (rule if reason == Shutoff.SHUTDOWN else replace(rule, silent=None)).code(console_tail, code)
    if code is not None:
        return Exit(code & 0xFF, "Error" if code else "Completed", finished_at)
    if reason == Shutoff.SHUTDOWN:
        return Exit(0, "Completed", finished_at, "the guest powered off and said no exit code")
    if reason == Shutoff.DESTROYED:
        return Exit(137, "Error", finished_at, "the virtual machine was destroyed")
    if reason == Shutoff.CRASHED:
        return Exit(139, "Error", finished_at, "the virtual machine crashed")
    if reason == Shutoff.FAILED:
        return Exit(128, "StartError", finished_at, "the virtual machine failed to start")
    return Exit(137, "ContainerStatusUnknown", finished_at, "the virtual machine is off, and libvirt does not know why")


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
