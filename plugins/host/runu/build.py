# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor's youth: in the child that `runu create` forks, from a bundle to a paused QEMU.

It decides what is booted and how while create makes the control group, waits for its go, joins the pod's network namespace, makes the tap,
starts QEMU as its child and becomes monitor.py by exec. While QEMU builds its machine the monitor is already on its way to being small.
"""

from __future__ import annotations

import _socket
import os
import sys
from dataclasses import replace

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.families import family
from ansible_collections.unifleet.hybrid.plugins.host.runu import (
    cgroups,
    document,
    hooks,
    machine,
    network,
    node,
    syscalls,
    unikernel,
    volumes,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from ansible_collections.unifleet.hybrid.plugins.host.runu.create import Ends, Frame
    from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record

_HERE = os.path.abspath(__file__)
for _level in range(7):
    _HERE = os.path.dirname(_HERE)
LIBRARY = _HERE
"""The directory that ansible_collections is in: the monitor imports from this version, whatever `current` names later."""
_MONITOR = "ansible_collections.unifleet.hybrid.plugins.host.runu.monitor"
CPUS_MOST = 64


class Plan:
    """All that is decided before the machine is made."""

    def __init__(self, frame: Frame, ends: Ends) -> None:
        bundle, config = frame.bundle, frame.config
        self.frame = frame
        self.hardware = node.hardware(config)
        architecture = oci_architecture(self.hardware.architecture)[0]
        self.unikernel = unikernel.find(bundle, config, architecture)
        self.family = family(self.unikernel.family)
        booted = self.unikernel
        self.platform = Platform("kvm", architecture, booted.version, parameters=booted.parameters)
        self.usual = self.family.hardware(self.platform)
        booted.memory_floor = booted.memory_floor or self.usual.memory_least
        above = min((limit for limit in map(cgroups.least_limit, frame.cgroups) if limit is not None), default=None)
        default = self.usual.memory_bytes or config.memory_default
        self.memory = unikernel.memory_of(booted, bundle.memory_limit(), above, config.memory_overhead, default)
        self.cpus = min(booted.vcpus or bundle.cpus(), os.cpu_count() or 1, CPUS_MOST)
        said = unikernel.heeded(bundle.annotations, config.annotations)
        self.ports = network.container_ports(said.get(network.CONTAINER_PORTS, ""))
        self.carried = volumes.carried(bundle, booted.family, booted.initrd is not None, lambda text: ends.tell("warning", text))
        if booted.command_line is None:  # what the dialect cannot carry is said before anything is made
            command_line_of(self, None, bool(self.carried.segment) or booted.initrd is not None)


def build(frame: Frame, record: Record, ends: Ends) -> None:
    """Build the machine and become its monitor; return only by an exception: UnifleetError or OSError."""
    plan = Plan(frame, ends)
    bundle, booted = frame.bundle, plan.unikernel
    ends.tell("memory", str(plan.memory))
    ends.tell("family", document.dumps(booted.family))
    ends.wait()
    score = bundle.get("process.oomScoreAdj", int, None)
    if score is not None:
        _oom_score(int(score), ends)
    namespace = bundle.network_namespace()
    if namespace:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    elif namespace == "":
        syscalls.unshare(syscalls.CLONE_NEWNET)
    hooks.run("createContainer", frame.hooks["createContainer"], {**record.state("creating"), "pid": os.getpid()})
    link: Optional[network.Link] = None
    if booted.network and namespace is not None:
        link = network.attach(frame.name, plan.ports)
    if link is not None:
        ends.tell("link", document.dumps(link.name))
        ends.tell("tap", document.dumps(link.tap_name))
        if link.lacks:
            ends.tell("warning", link.lacks)
    initrd = plan.carried.initrd(booted.initrd)
    line = booted.command_line
    if line is None:
        told = None if link is None else Network(link.address, link.gateway, bundle.nameservers())
        line = command_line_of(plan, told, initrd is not None)
    console, console_end = _socket.socketpair()
    qmp, qmp_end = _socket.socketpair()
    said, said_end = os.pipe()
    made = machine.Machine(
        title=frame.name,
        kernel=unikernel.readable_by_all(booted.kernel, "kernel"),
        command_line=line,
        memory_bytes=plan.memory,
        cpus=plan.cpus,
        console=console_end.fileno(),
        control=qmp_end.fileno(),
        initrd=None if initrd is None else unikernel.readable_by_all(initrd, "initrd"),
        card=None if link is None else machine.Card(link.tap, link.mac, link.mtu),
        disk=booted.disk,
        extra=booted.extra,
    )
    user = machine.user_of(frame.name, frame.config.first_uid, frame.config.uids)
    hardware = replace(
        plan.hardware,
        program=booted.program or plan.hardware.program,
        machine=booted.machine or plan.usual.machine or plan.hardware.machine,
        nic=booted.nic or plan.usual.nic,
        virtio_console=booted.console == "virtio",
        debug_exit=plan.usual.debug_exit,
    )
    pid = machine.launch(made, hardware, user, said_end)
    ends.tell("vmm", str(pid))
    can_shut_down = plan.family.can_shut_down if booted.can_shut_down is None else booted.can_shut_down
    passed = (ends.report, ends.directory, console.fileno(), qmp.fileno(), said, ends.control.fileno())
    for number in passed:
        os.set_inheritable(number, True)
    report, directory, *rest = map(str, passed)
    code = f"import sys;sys.path.insert(0,{LIBRARY!r});from {_MONITOR} import main;main()"
    argv = [sys.executable, "-ISE", "-c", code, frame.name, report, directory, str(pid), *rest]
    argv += [booted.family, "1" if can_shut_down else "0", document.dumps(booted.exit_rule)]
    os.chdir("/")
    os.execve(sys.executable, argv, {"LC_ALL": "C"})


def command_line_of(plan: Plan, told: Optional[Network], has_initrd: bool) -> str:
    """The kernel command line in the family's dialect. Raises UnifleetError for what it cannot carry."""
    words = plan.frame.bundle.args[1:] or plan.unikernel.command
    return plan.family.command_line(words, unikernel.environment(plan.frame.bundle), told, replace(plan.platform, initrd=has_initrd))


def _oom_score(score: int, ends: Ends) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write(str(max(-1000, min(1000, score))))
    except OSError as error:
        ends.tell("warning", f"oomScoreAdj {score} cannot be set: {error.strerror}")
