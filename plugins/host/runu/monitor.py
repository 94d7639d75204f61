# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor: the process that containerd knows as the container, and QEMU's parent. It lives as long as the machine does.

It imports almost nothing, for there is one of it for each pod. It carries the console between QEMU and the container's standard streams,
turns signals into what a machine understands, answers the other runu commands on a socket, and exits with the guest's exit code. When it
is killed the kernel kills QEMU; when QEMU dies it says so by its own exit. QMP: docs/interop/qmp-spec.txt of QEMU.

    state directory/control   one line in, one line out: start | pause | resume | stop -> "ok" or "error SENTENCE"
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]  # signal imports enum
import _socket
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

TAIL = 16384
CHUNK = 4096
"""As much as a pipe that can be written to takes without blocking (PIPE_BUF)."""
DRAIN_SECONDS = 5.0
QMP_SECONDS = 20.0
ASK_AGAIN_SECONDS = 1.0
KILLED_SECONDS = 0.5
"""How long the monitor outlives a machine that somebody else killed, most likely the kernel for lack of memory: with its last process the
control group goes, if it is systemd's, and the shim would find no memory.events in which to read that."""
IGNORED = (1, 10, 12, 13, 28)
"""SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGWINCH: a machine has no use for them, and nobody is helped by an error."""
GRACEFUL = (2, 3, 15)


class MachineGoneError(Exception):
    """QEMU is no more."""


class Monitor:
    """One running monitor.

    descriptors: the state directory, QEMU's console, its QMP, its stderr, the control socket. guest: its family,
    whether it ends when the power button is pressed, and the image's exit rule as JSON.
    """

    def __init__(self, qemu: int, descriptors: tuple[int, int, int, int, int], guest: tuple[str, bool, str]) -> None:
        directory, console, qmp, errors, control = descriptors
        self.directory = directory
        self.qemu = qemu
        self.qemu_fd = os.pidfd_open(qemu)
        self.console = console
        self.errors = errors
        self.qmp = _socket.socket(fileno=qmp)
        self.control = _socket.socket(fileno=control)
        self.family, self.can_shut_down, self.exit_rule = guest
        self.started = False
        self.asked: Optional[int] = None
        self.tail = b""
        self.said = b""
        self.pending = b""
        self.input = b""
        self.stdin_open = True
        self.qmp_buffer = b""
        self.next_ask = 0.0
        self.wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in IGNORED:
            _signal.signal(number, _signal.SIG_IGN)
        for number in GRACEFUL:
            _signal.signal(number, lambda _number, _frame: None)

    # -- QMP

    def command(self, name: str) -> str:
        """Run a QMP command without arguments. Returns "" or what QEMU said against it. Raises MachineGoneError."""
        try:
            self.qmp.sendall(f'{{"execute":"{name}"}}\n'.encode())
            while True:
                line = self._qmp_line()
                if b'"return"' in line:
                    return ""
                if b'"error"' in line:
                    return line.decode("utf-8", "replace").partition('"desc": "')[2].partition('"')[0] or "QEMU refuses"
        except OSError as error:
            raise MachineGoneError from error

    def greet(self) -> None:
        """Wait until QEMU has built the machine. Raises MachineGoneError when it could not."""
        self._qmp_line()
        self.command("qmp_capabilities")

    def _qmp_line(self) -> bytes:
        while b"\n" not in self.qmp_buffer:
            poll = select.poll()
            poll.register(self.qmp.fileno(), select.POLLIN)
            if not poll.poll(QMP_SECONDS * 1000):
                raise MachineGoneError
            got = self.qmp.recv(65536)
            if not got:
                raise MachineGoneError
            self.qmp_buffer += got
        line, _newline, self.qmp_buffer = self.qmp_buffer.partition(b"\n")
        return line

    # -- what is asked of the machine

    def answer(self) -> None:
        """Serve one caller on the control socket."""
        connection, _address = self.control._accept()  # type: ignore[attr-defined,unused-ignore]
        caller = _socket.socket(fileno=connection)
        try:
            caller.settimeout(5.0)
            line = caller.recv(64).strip()
            caller.sendall((self.act(line.decode("ascii", "replace")) or "ok").encode() + b"\n")
        except OSError:
            pass
        finally:
            caller.close()

    def act(self, word: str) -> str:
        """Do what a caller asks. Returns "" or "error SENTENCE"."""
        if word == "start":
            if self.started or self.asked is not None:
                return "error the container was started before"
            now = time.time_ns()
            said = self.command("cont")
            if said:
                return f"error QEMU does not start the machine: {said}"
            self.started = True
            self.mark("started", str(now).encode())
            return ""
        if word in ("pause", "resume"):
            if not self.started:
                return "error the container is not running"
            said = self.command("stop" if word == "pause" else "cont")
            if said:
                return f"error QEMU does not {word} the machine: {said}"
            if word == "pause":
                self.mark("paused")
            else:
                self.unmark("paused")
            return ""
        return f"error the monitor does not know {word!r}"

    def mark(self, name: str, content: bytes = b"") -> None:
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.directory)
            os.write(descriptor, content)
            os.close(descriptor)
        except OSError:
            return  # a state directory that was removed, or a full disk: the machine itself goes on

    def unmark(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.directory)
        except OSError:
            return

    def stop(self, number: int) -> None:
        """End the machine in order: a running guest that can be asked is asked, again and again; any other is ended."""
        self.asked = number
        if not (self.started and self.can_shut_down):
            os.kill(self.qemu, 9)
            return
        self.next_ask = time.monotonic() + ASK_AGAIN_SECONDS
        if self.command("query-status") == "":
            self.command("system_powerdown")

    # -- the loop

    def run(self) -> int:
        """Until the machine is no more. Returns the exit code."""
        try:
            while True:
                self._turn()
        except MachineGoneError:
            pass
        return self._finish()

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.qmp.fileno(), select.POLLIN)
        poll.register(self.qemu_fd, select.POLLIN)
        if self.errors >= 0:
            poll.register(self.errors, select.POLLIN)
        if self.pending:
            poll.register(1, select.POLLOUT)
        console = (0 if self.pending else select.POLLIN) | (select.POLLOUT if self.input else 0)
        if console and self.console >= 0:
            poll.register(self.console, console)
        if self.stdin_open and self.started and not self.input:
            poll.register(0, select.POLLIN)
        ready = dict(poll.poll(ASK_AGAIN_SECONDS * 1000 if self.asked is not None else None))
        if self.console in ready:
            self._console(ready[self.console])
        if 1 in ready and self.pending:
            self._print()
        if 0 in ready:
            self._read_input()
        if self.errors in ready:
            self._read_errors()
        if self.wake in ready:
            for number in os.read(self.wake, 64):
                if number in GRACEFUL:
                    self.stop(number)
        if self.control.fileno() in ready:
            self.answer()
        if self.qmp.fileno() in ready:
            self._events()
        if self.qemu_fd in ready:
            raise MachineGoneError
        if self.asked is not None and self.started and self.can_shut_down and time.monotonic() >= self.next_ask:
            self.next_ask = time.monotonic() + ASK_AGAIN_SECONDS
            self.command("system_powerdown")

    def _console(self, ready: int) -> None:
        if ready & select.POLLOUT and self.input:
            try:
                self.input = self.input[os.write(self.console, self.input[:CHUNK]) :]
            except OSError:
                self.input = b""
        if ready & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self.pending:
            got = self._take(self.console)
            if not got:
                os.close(self.console)
                self.console = -1
                return
            self.tail = (self.tail + got)[-TAIL:]
            self.pending = got

    def _print(self) -> None:
        try:
            self.pending = self.pending[os.write(1, self.pending[:CHUNK]) :]
        except OSError:
            self.pending = b""  # nobody reads; a process would have died of SIGPIPE, a machine's console is never in the way

    def _read_input(self) -> None:
        self.input = self._take(0)
        self.stdin_open = bool(self.input)

    def _read_errors(self) -> None:
        got = self._take(self.errors)
        if not got:
            os.close(self.errors)
            self.errors = -1
            return
        self.said = (self.said + got)[-TAIL:]
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if self.started and poll.poll(0):
            try:
                os.write(2, got)
            except OSError:
                return

    def _events(self) -> None:
        got = self.qmp.recv(65536)
        if not got:
            raise MachineGoneError

    def _take(self, descriptor: int) -> bytes:
        try:
            return os.read(descriptor, CHUNK)
        except OSError:
            return b""

    def _finish(self) -> int:
        """Reap QEMU, print what is left of the console, and say how it ended."""
        status = self.reap()
        until = time.monotonic() + DRAIN_SECONDS
        while (self.console >= 0 or self.pending) and time.monotonic() < until:
            if not self.pending:
                got = self._take(self.console)
                if not got:
                    break
                self.tail = (self.tail + got)[-TAIL:]
                self.pending = got
            poll = select.poll()
            poll.register(1, select.POLLOUT)
            if poll.poll(100):
                self._print()
        code = self.exit_code(status)
        if self.asked is None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9:
            time.sleep(KILLED_SECONDS)
        self.mark("exit", str(code).encode())
        return code

    def reap(self) -> int:
        """QEMU's wait status; what still lives is killed, as it no longer answers."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            pid, status = os.waitpid(self.qemu, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.002)
        os.kill(self.qemu, 9)
        return os.waitpid(self.qemu, 0)[1]

    def exit_code(self, status: int) -> int:
        """The guest's own code where it said one, else what QEMU's end means: 128+n after signal n, isa-debug-exit's codes halved."""
        if not self.started:
            return 128 + (self.asked or 9)
        if os.WIFSIGNALED(status):
            return 128 + (self.asked if self.asked is not None and not self.can_shut_down else os.WTERMSIG(status))
        code = os.WEXITSTATUS(status)
        try:
            from ansible_collections.unifleet.hybrid.plugins.host.guests.families import family

            own = family(self.family).exit_code(self.tail)
            if self.exit_rule != "null":
                from ansible_collections.unifleet.hybrid.plugins.host.runu import document
                from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import exit_rule_from

                own = exit_rule_from(document.loads(self.exit_rule.encode(), "the exit rule")).code(self.tail, own)
        except Exception:  # the libraries of a version that was removed meanwhile: QEMU's code is better than none
            own = None
        if own is not None:
            return own
        if code == 85:  # Unikraft after a crash writes 42, after a clean end where there is no ACPI 41: cpu_native.c
            return 134
        return 0 if code in (0, 83) else (code - 1) // 2 if code & 1 and code > 1 else code


def _outlive_machine() -> None:
    """Where memory ends the kernel shall take QEMU, and leave who says so: -998, as the kubelet's pause containers have."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write("-998")
    except OSError:
        return  # a host that is a container itself may not lower it


def main() -> None:
    """argv: id, report, directory, qemu, console, qmp, errors, control, family, can_shut_down, exit_rule."""
    _name, *numbers, family, can_shut_down, exit_rule = sys.argv[1:]
    report, directory, qemu, console, qmp, errors, control = map(int, numbers)
    with open("/proc/self/comm", "w", encoding="utf-8") as comm:
        comm.write("runu-monitor")
    _outlive_machine()
    for number in (report, directory, console, qmp, errors, control):
        os.set_inheritable(number, False)
    monitor = Monitor(qemu, (directory, console, qmp, errors, control), (family, can_shut_down == "1", exit_rule))
    try:
        monitor.greet()
        os.write(report, b"ready\n")
        os.close(report)
    except (MachineGoneError, OSError) as error:
        os.kill(qemu, 9)
        status = os.waitpid(qemu, 0)[1]
        monitor._read_errors()
        said = monitor.said.decode("utf-8", "replace").strip() or f"it ended with status {status}"
        if isinstance(error, MachineGoneError):
            os.write(report, f"error QEMU does not build the machine: {said}\n".encode())
        os._exit(1)
    os._exit(monitor.run())
