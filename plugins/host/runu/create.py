# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`runu create`: build the machine, paused, and leave its monitor behind as the container's process.

    runu create (dies)
     └─ monitor (build.py, then monitor.py by exec)
         └─ QEMU, paused

The monitor is forked by create and orphaned when create ends, so that it becomes the shim's child: the shim learns its exit status from
wait(2) and from nothing else. All that can fail fails here, with a sentence, and what was made by then is taken back.
"""

from __future__ import annotations

import _socket
import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import cgroups, document, hooks
from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import HOOKS
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record, birth, now
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command
    from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
    from ansible_collections.unifleet.hybrid.plugins.host.runu.config import Config
    from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log


class Frame:
    """What is decided before anything is made: all but the machine itself, which the monitor decides on."""

    __slots__ = ("bundle", "cgroups", "config", "hooks", "name", "tree", "unit")

    def __init__(self, command: Command, bundle: Bundle, config: Config) -> None:
        self.name = command.container
        self.bundle = bundle
        self.config = config
        self.hooks = {kind: bundle.hooks(kind) for kind in HOOKS}
        self.tree = cgroups.Tree.found()
        self.unit = ""
        self.cgroups: list[str] = []
        if command.globals.get("systemd-cgroup") == "true":
            from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

            self.unit, self.cgroups = scopes.leaf(bundle.cgroups_path, self.name)
        else:
            self.cgroups = self.tree.directories(bundle.cgroups_path, self.name)


def create(command: Command, bundle: Bundle, config: Config, log: Log) -> None:
    """Create the container. Raises UnifleetError and leaves nothing behind."""
    terminal, console_socket = bundle.terminal, command.options.get("console-socket", "")
    if terminal and not console_socket:
        raise UnifleetError("process.terminal is true, and there is no --console-socket to hand the terminal to", "name one")
    if console_socket and not terminal:
        raise UnifleetError("--console-socket is given, and process.terminal is not true", "leave one out")
    frame = Frame(command, bundle, config)
    startable = bundle.get("process", dict, None) is not None or bool(bundle.get("vm.kernel.parameters", list, None))
    if not startable:
        log.write("warning", f"{bundle.path} has no process: the container can be created and not started")
    os.makedirs(command.root, mode=0o711, exist_ok=True)
    directory = f"{command.root}/{frame.name}"
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise UnifleetError(f"container with id {frame.name} exists", "an id is free again after delete") from None
    except OSError as error:
        raise UnifleetError(f"{directory} cannot be made: {error.strerror}", "see --root") from error
    record = Record(
        directory,
        {
            "id": frame.name,
            "bundle": bundle.directory,
            "rootfs": bundle.rootfs,
            "created": now(),
            "annotations": bundle.annotations,
            "creator_pid": os.getpid(),
            "creator": birth(os.getpid()),
            "hooks": {kind: frame.hooks[kind] for kind in ("startContainer", "poststart", "poststop")},
            "cgroups": frame.cgroups,
            "unit": frame.unit,
            "netns": bundle.network_namespace(),
            "overhead": config.memory_overhead,
            "startable": startable,
        },
    )
    try:
        _make(frame, record, console_socket, command.options.get("pid-file", ""), log)
    except BaseException as error:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import lifecycle

        lifecycle.destroy(record)
        if isinstance(error, OSError):
            raise UnifleetError(
                f"the container cannot be created: {error.strerror} {error.filename or ''}".rstrip(), "see the disk"
            ) from error
        raise


def _make(frame: Frame, record: Record, console_socket: str, pid_file: str, log: Log) -> None:
    record.write()
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
        _child(frame, record, Ends(go_read, report_write, directory, control, slave))
    os.close(go_read)
    os.close(report_write)
    if slave >= 0:
        os.close(slave)
    record.values.update(pid=pid, birth=birth(pid))
    try:
        _place(frame, record, log)
        os.write(go_write, b"g")
    except (UnifleetError, OSError):
        if not record.alive():
            _reports(report_read, log)  # the monitor's own reason is the better one
        raise
    record.values.update(_reports(report_read, log))
    record.values["ready"] = True
    record.write()
    if pid_file:
        with open(f"{pid_file}.new", "w", encoding="utf-8") as file:
            file.write(str(pid))
        os.rename(f"{pid_file}.new", pid_file)


def _place(frame: Frame, record: Record, log: Log) -> None:
    """Make the control group with the monitor in it, limit that, and run the hooks that want its pid; the monitor plans meanwhile."""
    pid, resources, overhead = record.pid, frame.bundle.resources, frame.config.memory_overhead
    record.write()
    values = cgroups.settings(resources, frame.tree.unified, overhead)
    if frame.unit:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

        scopes.start(frame.unit, frame.bundle.cgroups_path, pid, resources, overhead)
    else:
        cgroups.make(frame.tree, frame.cgroups)
        cgroups.enter(frame.cgroups, pid)
    for name in cgroups.apply(frame.cgroups, values):
        log.write("warning", f"{name} is not enforced: no controller for it is mounted")
    for kind in ("prestart", "createRuntime"):
        hooks.run(kind, frame.hooks[kind], record.state("creating"))


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


class Ends:
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

    def wait(self) -> None:
        """Wait until create has made what it makes. When it failed, it cleans up after both."""
        if not os.read(self.go, 1):
            os._exit(1)


def _child(frame: Frame, record: Record, ends: Ends) -> NoReturn:
    """In the forked child: become the monitor, or say why not."""
    try:
        os.setsid()
        if ends.slave >= 0:
            for number in (0, 1, 2):
                os.dup2(ends.slave, number)
        from ansible_collections.unifleet.hybrid.plugins.host.runu import later

        later.postpone()
        from ansible_collections.unifleet.hybrid.plugins.host.runu.build import build

        build(frame, record, ends)
    except UnifleetError as error:
        ends.tell("error", str(error))
    except OSError as error:
        ends.tell("error", f"the machine cannot be built: {error.strerror or error} {error.filename or ''}".rstrip())
    except BaseException as error:
        ends.tell("error", f"the machine cannot be built: {type(error).__name__}: {error}")
    os._exit(1)
