# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's manager over D-Bus: the few calls that processes need, from any thread, over one connection that mends itself.

Written on jeepney, which is pure Python and packaged by Debian; python3-dbus would need the agent to own the one GLib main loop.
Interface: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any, Optional

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Message, new_method_call
from jeepney.bus_messages import message_bus
from jeepney.io.common import RouterClosed
from jeepney.io.threading import DBusRouter, Proxy, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_TIMEOUT = 25.0
_LOST = (RouterClosed, OSError, EOFError, FutureTimeout)

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


class SystemdBus:
    """One connection to the system bus. Raises UnifleetError when systemd refuses or does not answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._router: Any = None

    def start_transient(self, unit: str, properties: Sequence[Property]) -> str:
        """Start a transient unit and wait for the job: "done", "failed", "canceled", ... Its process may have ended by then."""
        router = self._connected()
        jobs: Queue[Message] = Queue()
        rule = MatchRule(type="signal", interface=_MANAGER.interface, member="JobRemoved", path=_MANAGER.object_path)
        with router.filter(rule, queue=jobs):
            (job,) = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", list(properties), []))
            waited = 0.0
            while waited < _TIMEOUT:
                try:
                    _, path, _, result = jobs.get(timeout=1.0).body
                except Empty:
                    waited += 1.0
                    if not self._exists(job):
                        return "unknown"
                    continue
                if path == job:
                    return str(result)
        return "timeout"

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
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(prefix, changed, stop), name="systemd-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
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

    def _watch(self, prefix: str, changed: Callable[[Optional[str]], None], stop: threading.Event) -> None:
        """Subscribe, and subscribe again whenever the bus or the connection was lost."""
        head = unit_path(prefix)
        rule = MatchRule(type="signal", interface="org.freedesktop.DBus.Properties", member="PropertiesChanged")
        rule.add_arg_condition(0, "org.freedesktop.systemd1.Unit")
        removed = MatchRule(type="signal", interface=_MANAGER.interface, member="UnitRemoved", path=_MANAGER.object_path)
        while not stop.is_set():
            try:
                router = self._connected()
                signals: Queue[Message] = Queue()
                with router.filter(rule, queue=signals), router.filter(removed, queue=signals):
                    bus = Proxy(message_bus, router, timeout=_TIMEOUT)
                    bus.AddMatch(rule)
                    bus.AddMatch(removed)
                    changed(None)
                    while not stop.is_set() and router is self._router and router._rcv_thread.is_alive():
                        with suppress(Empty):
                            message = signals.get(timeout=1.0)
                            fields = message.header.fields
                            gone = fields.get(HeaderFields.member) == "UnitRemoved"
                            path = message.body[1] if gone else fields.get(HeaderFields.path)
                            if isinstance(path, str) and path.startswith(head):
                                changed(unit_of_path(path))
            except (UnifleetError, DBusErrorResponse, *_LOST):
                stop.wait(1.0)

    def _exists(self, job: str) -> bool:
        address = DBusAddress(job, _MANAGER.bus_name, "org.freedesktop.DBus.Properties")
        try:
            self._send(new_method_call(address, "Get", "ss", ("org.freedesktop.systemd1.Job", "State")))
        except UnifleetError:
            return False
        return True

    def _connected(self) -> Any:
        with self._lock:
            if self._router is None or not self._router._rcv_thread.is_alive():
                try:
                    self._router = DBusRouter(open_dbus_connection("SYSTEM"))
                    Proxy(message_bus, self._router, timeout=_TIMEOUT).AddMatch(
                        MatchRule(type="signal", interface=_MANAGER.interface, member="JobRemoved")
                    )
                    subscribe = new_method_call(_MANAGER, "Subscribe")
                    unwrap_msg(self._router.send_and_get_reply(subscribe, timeout=_TIMEOUT))
                except (DBusErrorResponse, *_LOST) as error:
                    self._router = None
                    raise UnifleetError(f"systemd does not answer on the system bus: {error}", "see systemctl status dbus") from error
            return self._router

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
