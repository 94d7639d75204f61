# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""start, kill, delete, pause, resume: what is asked of a container that is there. The shim calls these, so they import little."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]  # signal imports enum
import _socket
import os
import time

from ansible_collections.unifleet.hybrid.plugins.host.runu import cgroups, hooks
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record, birth
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log

ANSWER_SECONDS = 30.0
GONE_SECONDS = 5.0
NUMBERS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
    "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23,
    "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
}  # fmt: skip
_KILL, _CONT, _STOP = 9, 18, 19
_GRACEFUL = (2, 3, 15)


def signal_number(text: str) -> int:
    """The signal that "15", "TERM" or "SIGTERM" names. Raises UnifleetError."""
    if text.isdigit() and text.isascii() and len(text) < 4 and 0 < int(text) <= 64:
        return int(text)
    number = NUMBERS.get(text.upper()[3:] if text.upper().startswith("SIG") else text.upper())
    if number is None:
        raise UnifleetError(f"there is no signal {text[:40]!r}", "write a number or a name such as TERM")
    return number


def ask(record: Record, word: str) -> None:
    """Let the monitor do something. Raises UnifleetError with its answer when it does not."""
    directory = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(f"/proc/self/fd/{directory}/control")
        connection.sendall(word.encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            part = connection.recv(1024)
            if not part:
                raise UnifleetError(f"container {record.values['id']} ended before it could {word}: container not running")
            said += part
    except OSError as error:
        if not record.alive():
            raise UnifleetError(f"cannot {word} container {record.values['id']}: container not running") from error
        raise UnifleetError(f"the monitor of container {record.values['id']} does not answer: {error}", "kill the container") from error
    finally:
        connection.close()
        os.close(directory)
    answer = said.decode("utf-8", "replace").strip()
    if answer != "ok":
        raise UnifleetError(answer.removeprefix("error ") if hasattr(answer, "removeprefix") else answer)


def start(record: Record, log: Log) -> None:
    """Let a created machine run. Raises UnifleetError; a poststart hook that fails stops it (runtime-spec 1.3)."""
    status = record.status()
    if status != "created":
        raise UnifleetError(f"cannot start container {record.values['id']} in the {status} state: it is not created")
    if not record.values.get("startable", True):
        raise UnifleetError(f"container {record.values['id']} has no process to start", "say process in config.json")
    wanted = record.values["hooks"]
    if wanted["startContainer"]:
        _in_namespace(record, "startContainer")
    ask(record, "start")
    try:
        hooks.run("poststart", wanted["poststart"], record.state("running"))
    except UnifleetError:
        _send(record, _KILL)
        raise
    del log


def _in_namespace(record: Record, kind: str) -> None:
    """Run hooks in the machine's network namespace, in a child, so that this process stays where it is."""
    from ansible_collections.unifleet.hybrid.plugins.host.runu import syscalls

    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            syscalls.setns(f"/proc/{record.pid}/ns/net", syscalls.CLONE_NEWNET)
            hooks.run(kind, record.values["hooks"][kind], record.state())
        except (UnifleetError, OSError) as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    said = b""
    while True:
        part = os.read(read, 4096)
        if not part:
            break
        said += part
    os.close(read)
    os.waitpid(pid, 0)
    if said:
        _send(record, _KILL)
        raise UnifleetError(said.decode("utf-8", "replace"))


def kill(record: Record, number: int) -> None:
    """Send a signal: KILL ends the machine, TERM, INT and QUIT ask the guest, STOP and CONT pause, the others mean nothing to a machine.

    Raises UnifleetError when the container is not there any more, in words that the shim knows.
    """
    status = record.status()
    if status in ("stopped", "creating"):
        raise UnifleetError(f"cannot kill container {record.values['id']}: container not running")
    if number in (_STOP, _CONT):
        if (number == _STOP) == (status == "running"):
            ask(record, "pause" if number == _STOP else "resume")
    elif number == _KILL or number in _GRACEFUL:
        _send(record, number)


def _send(record: Record, number: int) -> None:
    """Signal the monitor itself, and no other process that got its number meanwhile. Its death is QEMU's death."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if record.alive():
            _signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return
    finally:
        os.close(descriptor)


def delete(record: Record, force: bool, log: Log) -> None:
    """Take away all that create made. Raises UnifleetError, having done nothing, unless the container is stopped or force is set."""
    status = record.status()
    if status != "stopped" and not force:
        raise UnifleetError(f"cannot delete container {record.values['id']} that is not stopped: {status}", "kill it first, or use --force")
    state = record.state("stopped")
    for sentence in destroy(record):
        log.write("warning", sentence)
    for number, hook in enumerate((record.values.get("hooks") or {}).get("poststop") or []):
        try:
            hooks.run("poststop", [hook], state)
        except UnifleetError as error:
            log.write("warning", f"poststop[{number}]: {error}")


def destroy(record: Record) -> list[str]:
    """Kill what lives and remove everything, whatever of it is missing. Returns sentences on what could not be removed."""
    said: list[str] = []
    values = record.values
    creator = int(values.get("creator_pid", 0))
    if creator not in (0, os.getpid()) and not values.get("ready") and birth(creator) == values.get("creator"):
        os.kill(creator, _KILL)
    if record.pid:
        _send(record, _KILL)
        until = time.monotonic() + GONE_SECONDS
        while record.alive() and time.monotonic() < until:
            time.sleep(0.002)
        if record.alive():
            said.append(f"the monitor {record.pid} does not die")
        _reap(record.pid)
    if values.get("link") and values.get("netns"):
        from ansible_collections.unifleet.hybrid.plugins.host.runu import network

        said += network.detach(str(values["netns"]), str(values["link"]), str(values["tap"]))
    if values.get("unit"):
        from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

        scopes.stop(str(values["unit"]))
    left = cgroups.remove([str(directory) for directory in values.get("cgroups") or []])
    said += [f"control group {directory} is still in use" for directory in left]
    _forget(record.directory)
    return said


def _reap(pid: int) -> None:
    """The monitor is create's own child while create runs."""
    try:
        os.waitpid(pid, 0)
    except OSError:
        return


def _forget(directory: str) -> None:
    """Remove the state directory, the record last: whoever looks meanwhile still finds a container to delete."""
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in sorted(names, key=lambda name: name == "runu.json"):
        try:
            os.unlink(f"{directory}/{name}")
        except OSError:
            continue
    try:
        os.rmdir(directory)
    except OSError:
        return
