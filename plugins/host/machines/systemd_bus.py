# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's manager over D-Bus: the few calls that processes need, from any thread, over one connection that mends itself.

Written on jeepney, which is pure Python and packaged by Debian; python3-dbus would need the agent to own the one GLib main loop.
Interface: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any, Optional

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Message, new_method_call
from jeepney.bus_messages import message_bus
from jeepney.io.common import FilterHandle, MessageFilters, RouterClosed
from jeepney.io.threading import DBusRouter, Proxy, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_TIMEOUT = 60.0
_JOB_TIMEOUT = 120.0
"""What a kubelet allows a runtime for a request; an emulated host under load needs most of a minute for twenty starts at once."""
_LOOK_SECONDS = 1.0
_JOBS_KEPT = 1000
_LOST = (RouterClosed, OSError, EOFError, FutureTimeout, KeyError)
"""How a lost connection shows; KeyError is jeepney's, whose clean-up hides its own RouterClosed (ReplyMatcher.catch after drop_all)."""

Property = tuple[str, tuple[str, Any]]
"""A unit property as D-Bus wants it: (name, (signature, value))."""


class NoSuchUnitError(UnifleetError):
    """systemd has no such unit loaded."""


def unit_path(unit: str) -> str:
    """The object path of a unit (sd_bus_path_encode)."""
    return "/org/freedesktop/systemd1/unit/" + "".join(
        letter if (letter.isascii() and letter.isalpha()) or (letter.isdigit() and position) else f"_{ord(letter):02x}"
        for position, letter in enumerate(unit)
    )


def unit_of_path(path: str) -> str:
    """The unit of an object path."""
    head, *rest = path.rpartition("/")[2].split("_")
    return head + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)


class _Watcher:
    """Somebody who watches units: their object paths begin with head."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.units: Queue[Optional[str]] = Queue()
        self.stopped = threading.Event()


class SystemdBus:
    """One connection to the system bus. Raises UnifleetError when systemd refuses or does not answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._router: Any = None
        self._watchers: list[_Watcher] = []
        self._jobs: dict[str, str] = {}
        self._job_ended = threading.Condition()

    def start_transient(self, unit: str, properties: Sequence[Property]) -> str:
        """Start a transient unit and wait for the job: "done", "failed", "canceled", ... Its process may have ended by then."""
        (job,) = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", list(properties), []))
        deadline = time.monotonic() + _JOB_TIMEOUT
        with self._job_ended:
            while job not in self._jobs and time.monotonic() < deadline:
                self._job_ended.wait(deadline - time.monotonic())
            return self._jobs.pop(job, "timeout")

    def call(self, member: str, signature: str = "", body: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """A method of the manager."""
        return self._send(new_method_call(_MANAGER, member, signature or None, body))

    def get(self, unit: str, interface: str, name: str) -> Any:
        """A property of a loaded unit; interface: "Unit" or "Service". Raises NoSuchUnitError."""
        address = DBusAddress(unit_path(unit), _MANAGER.bus_name, "org.freedesktop.DBus.Properties")
        return self._send(new_method_call(address, "Get", "ss", (f"org.freedesktop.systemd1.{interface}", name)))[0][1]

    def manager(self, name: str) -> Any:
        """A property of the manager."""
        address = DBusAddress(_MANAGER.object_path, _MANAGER.bus_name, "org.freedesktop.DBus.Properties")
        return self._send(new_method_call(address, "Get", "ss", (_MANAGER.interface, name)))[0][1]

    def kill(self, unit: str, signal: int) -> None:
        """Signal every process of a unit; none there is no error."""
        with suppress(NoSuchUnitError):
            try:
                self.call("KillUnit", "ssi", (unit, "all", signal))
            except UnifleetError as error:
                if "no process" not in error.message.lower() and "NoSuchProcess" not in error.message:
                    raise

    def forget(self, unit: str) -> None:
        """Stop a unit that has ended and drop what systemd remembers of it."""
        for member, signature, body in (("StopUnit", "ss", (unit, "replace")), ("ResetFailedUnit", "s", (unit,))):
            with suppress(NoSuchUnitError):
                self.call(member, signature, body)

    def units(self, pattern: str) -> list[tuple[str, str, str]]:
        """(name, active state, sub-state) of the loaded units that match."""
        (rows,) = self.call("ListUnitsByPatterns", "asas", ([], [pattern]))
        return [(row[0], row[3], row[4]) for row in rows]

    @contextmanager
    def watch(self, prefix: str, changed: Callable[[Optional[str]], None]) -> Iterator[None]:
        """While entered, call changed(unit) when a unit with this prefix changed, and changed(None) when anything may have."""
        watcher = _Watcher(unit_path(prefix))
        thread = threading.Thread(target=self._watch, args=(watcher, changed), name="systemd-watch", daemon=True)
        with self._lock:
            self._watchers.append(watcher)
        thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)
            watcher.stopped.set()
            watcher.units.put(None)
            thread.join(5)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            router, self._router = self._router, None
        if router is not None:
            with suppress(OSError):
                router.close()
            with suppress(OSError):
                router.conn.close()

    def _watch(self, watcher: _Watcher, changed: Callable[[Optional[str]], None]) -> None:
        """Hand on what the dispatcher found, and connect again whenever the connection was lost."""
        while not watcher.stopped.is_set():
            with suppress(UnifleetError):
                self._connected()
            with suppress(Empty):
                unit = watcher.units.get(timeout=_LOOK_SECONDS)
                if not watcher.stopped.is_set():
                    with suppress(UnifleetError):
                        changed(unit)

    def _dispatch(self, router: Any, signals: Queue[Message]) -> None:
        """Sort the signals of one connection, on a thread of its own, until the connection is lost."""
        while router._rcv_thread.is_alive() or not signals.empty():
            try:
                message = signals.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            fields = message.header.fields
            member = fields.get(HeaderFields.member)
            if member == "JobRemoved":
                with self._job_ended:
                    self._jobs[message.body[1]] = message.body[3]
                    for old in list(self._jobs)[:-_JOBS_KEPT]:
                        del self._jobs[old]
                    self._job_ended.notify_all()
                continue
            path = message.body[1] if member == "UnitRemoved" else fields.get(HeaderFields.path)
            with self._lock:
                watchers = list(self._watchers)
            for watcher in watchers:
                if isinstance(path, str) and path.startswith(watcher.head):
                    watcher.units.put(unit_of_path(path))

    def _connected(self) -> Any:
        with self._lock:
            if self._router is not None and self._router._rcv_thread.is_alive():
                return self._router
            try:
                self._router = self._connect()
            except (DBusErrorResponse, *_LOST) as error:
                self._router = None
                raise UnifleetError(f"systemd does not answer on the system bus: {error}", "see systemctl status dbus") from error
            for watcher in self._watchers:
                watcher.units.put(None)
            return self._router

    def _connect(self) -> Any:
        """Open a connection. All filters are set at once: a message that comes while one is added would end jeepney's receiving thread."""
        router = DBusRouter(open_dbus_connection("SYSTEM", auth_timeout=_TIMEOUT))
        signals: Queue[Message] = Queue()
        changes = MatchRule(type="signal", interface="org.freedesktop.DBus.Properties", member="PropertiesChanged")
        changes.add_arg_condition(0, "org.freedesktop.systemd1.Unit")
        rules = [changes]
        for member in ("JobRemoved", "UnitRemoved"):
            rules.append(MatchRule(type="signal", interface=_MANAGER.interface, member=member, path=_MANAGER.object_path))
        bus = Proxy(message_bus, router, timeout=_TIMEOUT)
        filters = MessageFilters()
        for rule in rules:
            FilterHandle(filters, rule, signals)
        router._filters = filters
        for rule in rules:
            bus.AddMatch(rule)
        unwrap_msg(router.send_and_get_reply(new_method_call(_MANAGER, "Subscribe"), timeout=_TIMEOUT))
        threading.Thread(target=self._dispatch, args=(router, signals), name="systemd-signals", daemon=True).start()
        return router

    def _send(self, message: Message) -> tuple[Any, ...]:
        for attempt in (1, 2):
            router = self._connected()
            try:
                return tuple(unwrap_msg(router.send_and_get_reply(message, timeout=_TIMEOUT)))
            except DBusErrorResponse as error:
                text = str(error.data[0]) if error.data else ""
                if error.name in ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject"):
                    raise NoSuchUnitError(text) from error
                raise UnifleetError(f"systemd refused {message.header.fields.get(HeaderFields.member)}: {text} [{error.name}]") from error
            except _LOST as error:
                if attempt == 2:
                    raise UnifleetError(f"systemd does not answer: {error}", "see systemctl status dbus") from error
        raise AssertionError
