# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`runu create`: build the machine, paused, and leave its monitor behind as the container's process.

    runu create (dies)
     └─ monitor: waits for the go, joins network namespace, makes the tap, starts QEMU, becomes monitor.py by exec
         └─ QEMU, paused

The monitor is forked by create and orphaned when create ends, so that it becomes the shim's child: the shim learns its exit status from
wait(2) and from nothing else. All that can fail fails here, with a sentence, and what was made by then is taken back. While QEMU builds its
machine the monitor is already on its way to being small.
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
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record, birth, now
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import oci_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Optional

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command
    from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
    from ansible_collections.unifleet.hybrid.plugins.host.runu.config import Config
    from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log
    from ansible_collections.unifleet.hybrid.plugins.host.runu.unikernel import Unikernel

_HERE = os.path.abspath(__file__)
for _level in range(7):
    _HERE = os.path.dirname(_HERE)
LIBRARY = _HERE
"""The directory that ansible_collections is in: the monitor imports from this version, whatever `current` names later."""
_MONITOR = "ansible_collections.unifleet.hybrid.plugins.host.runu.monitor"
CPUS_MOST = 64


class Plan:
    """All that was decided before anything is made."""

    __slots__ = (
        "bundle",
        "carried",
        "cgroups",
        "config",
        "cpus",
        "family",
        "hardware",
        "hooks",
        "memory",
        "name",
        "platform",
        "ports",
        "unikernel",
        "unit",
        "usual",
    )

    def __init__(self, command: Command, bundle: Bundle, config: Config, log: Log) -> None:
        self.name = command.container
        self.bundle = bundle
        self.config = config
        self.hardware = node.hardware(config)
        self.unikernel: Unikernel = unikernel.find(bundle, config, oci_architecture(self.hardware.architecture)[0])
        self.family = family(self.unikernel.family)
        self.platform = Platform(
            hypervisor="kvm",
            architecture=oci_architecture(self.hardware.architecture)[0],
            version=self.unikernel.version,
            parameters=self.unikernel.parameters,
        )
        self.usual = self.family.hardware(self.platform)
        self.unikernel.memory_floor = self.unikernel.memory_floor or self.usual.memory_least
        self.hooks = {
            kind: bundle.hooks(kind) for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        }
        self.unit = ""
        self.cgroups: list[str] = []
        if command.globals.get("systemd-cgroup") == "true":
            from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

            self.unit, self.cgroups = scopes.leaf(bundle.cgroups_path, self.name)
        else:
            self.cgroups = cgroups.Tree.found().directories(bundle.cgroups_path, self.name)
        above = min((limit for limit in map(cgroups.least_limit, self.cgroups) if limit is not None), default=None)
        self.memory = unikernel.memory_of(
            self.unikernel, bundle.memory_limit(), above, config.memory_overhead, self.usual.memory_bytes or config.memory_default
        )
        self.cpus = min(self.unikernel.vcpus or bundle.cpus(), os.cpu_count() or 1, CPUS_MOST)
        said = unikernel.heeded(bundle.annotations, config.annotations)
        self.ports = network.container_ports(said.get(network.CONTAINER_PORTS, ""))
        self.carried = volumes.carried(bundle, self.unikernel.family, self.unikernel.initrd is not None, log)
        if bundle.get("process", dict, None) is None and self.unikernel.command_line is None:
            log.write("warning", f"{bundle.path} has no process: the container can be created and not started")


def create(command: Command, bundle: Bundle, config: Config, log: Log) -> None:
    """Create the container. Raises UnifleetError and leaves nothing behind."""
    terminal, console_socket = bundle.terminal, command.options.get("console-socket", "")
    if terminal and not console_socket:
        raise UnifleetError("process.terminal is true, and there is no --console-socket to hand the terminal to", "name one")
    if console_socket and not terminal:
        raise UnifleetError("--console-socket is given, and process.terminal is not true", "leave one out")
    plan = Plan(command, bundle, config, log)
    os.makedirs(command.root, mode=0o711, exist_ok=True)
    directory = f"{command.root}/{plan.name}"
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise UnifleetError(f"container with id {plan.name} exists", "an id is free again after delete") from None
    except OSError as error:
        raise UnifleetError(f"{directory} cannot be made: {error.strerror}", "see --root") from error
    record = Record(
        directory,
        {
            "id": plan.name,
            "bundle": bundle.directory,
            "rootfs": bundle.rootfs,
            "created": now(),
            "annotations": bundle.annotations,
            "creator_pid": os.getpid(),
            "creator": birth(os.getpid()),
            "hooks": {kind: plan.hooks[kind] for kind in ("startContainer", "poststart", "poststop")},
            "cgroups": plan.cgroups,
            "unit": plan.unit,
            "netns": bundle.network_namespace(),
            "memory": plan.memory,
            "overhead": config.memory_overhead,
            "family": plan.unikernel.family,
            "startable": bundle.get("process", dict, None) is not None or plan.unikernel.command_line is not None,
        },
    )
    try:
        _build(plan, record, console_socket, command.options.get("pid-file", ""), log)
    except BaseException as error:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import lifecycle

        lifecycle.destroy(record)
        if isinstance(error, OSError):
            raise UnifleetError(
                f"the container cannot be created: {error.strerror} {error.filename or ''}".rstrip(), "see the disk"
            ) from error
        raise


def _build(plan: Plan, record: Record, console_socket: str, pid_file: str, log: Log) -> None:
    record.write()
    tree = cgroups.Tree.found()
    if not plan.unit:
        cgroups.make(tree, plan.cgroups)
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    directory = os.open(record.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    control.bind(f"/proc/self/fd/{directory}/control")
    control.listen(16)
    go_read, go_write = os.pipe()
    report_read, report_write = os.pipe()
    slave = -1
    if console_socket:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import console

        slave = console.open_terminal(console_socket)
    pid = os.fork()
    if not pid:
        os.close(go_write)
        os.close(report_read)
        _monitor(plan, record, _Ends(go_read, report_write, directory, control, slave))
    os.close(go_read)
    os.close(report_write)
    if slave >= 0:
        os.close(slave)
    record.values.update(pid=pid, birth=birth(pid))
    record.write()
    if plan.unit:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

        scopes.start(plan.unit, plan.bundle.cgroups_path, pid, plan.bundle.resources, plan.config.memory_overhead)
    else:
        cgroups.enter(plan.cgroups, pid)
    values = cgroups.settings(plan.bundle.resources, tree.unified, plan.config.memory_overhead)
    for name in cgroups.apply(plan.cgroups, values):
        log.write("warning", f"{name} is not enforced: no controller for it is mounted")
    for kind in ("prestart", "createRuntime"):
        hooks.run(kind, plan.hooks[kind], record.state("creating"))
    os.write(go_write, b"g")
    record.values.update(_reports(report_read, log))
    record.values["ready"] = True
    record.write()
    if pid_file:
        with open(f"{pid_file}.new", "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(f"{pid_file}.new", pid_file)


def _reports(descriptor: int, log: Log) -> dict[str, Any]:
    """What the monitor says until the machine is built: lines "key value". Raises UnifleetError with its reason when it is not."""
    found: dict[str, Any] = {}
    text = b""
    while True:
        part = os.read(descriptor, 65536)
        text += part
        *lines, text = text.split(b"\n")
        for line in lines:
            key, _space, value = line.decode("utf-8", "replace").partition(" ")
            if key == "ready":
                return found
            if key == "error":
                raise UnifleetError(value)
            if key == "warning":
                log.write("warning", value)
            else:
                found[key] = document.loads(value.encode(), "the monitor's report")
        if not part:
            raise UnifleetError("the monitor ended before the machine was built", "it was killed; see the kernel's log for lack of memory")


class _Ends:
    """The monitor's ends of what it shares with create."""

    __slots__ = ("control", "directory", "go", "report", "slave")

    def __init__(self, go: int, report: int, directory: int, control: _socket.socket, slave: int) -> None:
        self.go = go
        self.report = report
        self.directory = directory
        self.control = control
        self.slave = slave

    def tell(self, key: str, value: str) -> None:
        os.write(self.report, f"{key} {' '.join(value.splitlines())}\n".encode("utf-8", "surrogateescape"))


def _monitor(plan: Plan, record: Record, ends: _Ends) -> NoReturn:
    """In the forked child: everything between the go and becoming the slim monitor."""
    try:
        os.setsid()
        if ends.slave >= 0:
            for number in (0, 1, 2):
                os.dup2(ends.slave, number)
        if not os.read(ends.go, 1):
            os._exit(1)  # create failed, and cleans up
        _become(plan, record, ends)
    except UnifleetError as error:
        ends.tell("error", str(error))
    except OSError as error:
        ends.tell("error", f"the machine cannot be built: {error.strerror or error} {error.filename or ''}".rstrip())
    except BaseException as error:
        ends.tell("error", f"the machine cannot be built: {type(error).__name__}: {error}")
    os._exit(1)


def _become(plan: Plan, record: Record, ends: _Ends) -> None:
    bundle, booted = plan.bundle, plan.unikernel
    score = bundle.get("process.oomScoreAdj", int, None)
    if score is not None:
        _oom_score(int(score), ends)
    namespace = bundle.network_namespace()
    if namespace:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    elif namespace == "":
        syscalls.unshare(syscalls.CLONE_NEWNET)
    hooks.run("createContainer", plan.hooks["createContainer"], {**record.state("creating"), "pid": os.getpid()})
    link: Optional[network.Link] = None
    if booted.network and namespace is not None:
        link = network.attach(plan.name, plan.ports)
    if link is not None:
        ends.tell("link", document.dumps(link.name))
        ends.tell("tap", document.dumps(link.tap_name))
    initrd = plan.carried.initrd(booted.initrd)
    line = booted.command_line
    if line is None:
        told = None if link is None else Network(link.address, link.gateway, bundle.nameservers())
        line = command_line_of(plan, told, initrd is not None)
    console, console_end = _socket.socketpair()
    qmp, qmp_end = _socket.socketpair()
    said, said_end = os.pipe()
    made = machine.Machine(
        title=plan.name,
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
    user = machine.user_of(plan.name, plan.config.first_uid, plan.config.uids)
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
    argv = [sys.executable, "-ISE", "-c", code, plan.name, report, directory, str(pid), *rest]
    argv += [booted.family, "1" if can_shut_down else "0", document.dumps(booted.exit_rule)]
    os.chdir("/")
    os.execve(sys.executable, argv, {"LC_ALL": "C"})


def command_line_of(plan: Plan, told: Optional[Network], has_initrd: bool) -> str:
    """The kernel command line in the family's dialect. Raises UnifleetError for what it cannot carry."""
    words = plan.bundle.args[1:] or plan.unikernel.command
    return plan.family.command_line(words, unikernel.environment(plan.bundle), told, replace(plan.platform, initrd=has_initrd))


def _oom_score(score: int, ends: _Ends) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(max(-1000, min(1000, score))))
    except OSError as error:
        ends.tell("warning", f"oomScoreAdj {score} cannot be set: {error.strerror}")
