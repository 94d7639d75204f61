# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines as libvirt domains, the part that all hypervisors under libvirt share.

The domain's UUID is the machine's key. Domains are persistent, so one that stopped is still listed, and what libvirt forgets (that it
was started, why it stopped) is kept in the domain's metadata. A domain without that metadata is somebody else's and is never touched.
A created domain has no console log file yet: libvirt makes it at the start, which tells created from stopped even when the agent was
killed between starting a domain and noting it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any, Optional

import libvirt

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity, Exit, Kernel, MachineSpec, MachineState, Phase
from ansible_collections.unifleet.hybrid.plugins.host.machines.libvirt_domain import (
    CONSOLE_TAIL,
    NAMESPACE,
    Record,
    Shutoff,
    exit_of,
    record_from,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import memory_bytes

_LOG = logging.getLogger(__name__)
_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT = 5, 3
_SLOW_CALLS = 3
"""Slow calls at once. libvirtd reads no further from a client with five requests under way (max_client_requests), its answers to
keepalives included, and then drops the connection of twenty slow starts as dead; so some room stays for quick calls."""
ExitParser = Callable[[bytes], Optional[int]]


class _EventLoop:
    """libvirt's event loop: one thread a process, begun before the first connection."""

    _lock = threading.Lock()
    _thread: Optional[threading.Thread] = None

    @classmethod
    def ensure(cls) -> None:
        with cls._lock:
            if cls._thread is None:
                libvirt.registerErrorHandler(lambda *_: None, None)
                libvirt.virEventRegisterDefaultImpl()
                cls._thread = threading.Thread(target=cls._run, name="libvirt-events", daemon=True)
                cls._thread.start()

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()


class LibvirtMachines:
    """The Machines contract over one libvirt URI. A subclass says how a domain looks: _domain_xml() and limitations().

    exit_parsers: unikernel family (metadata key "family") -> what reads an exit code off a console's end.
    """

    kind = "libvirt"

    def __init__(self, uri: str, pods: int, exit_parsers: Mapping[str, ExitParser]) -> None:
        self._uri = uri
        self._pods = pods
        self._exit_parsers = dict(exit_parsers)
        self._own_parsers: dict[str, ExitParser] = {}
        self._lock = threading.Lock()
        self._recording = threading.Lock()
        self._slow = threading.BoundedSemaphore(_SLOW_CALLS)
        self._ended_at: dict[str, float] = {}
        self._connection: Any = None
        self._events: Queue[Optional[str]] = Queue()
        self._watchers: list[Callable[[str], None]] = []
        self._worker: Optional[threading.Thread] = None

    def _domain_xml(self, spec: MachineSpec, kernel: Kernel, console: Path) -> str:
        raise NotImplementedError

    def limitations(self) -> tuple[str, ...]:
        """See the contract."""
        return ()

    def health(self) -> None:
        """See the contract."""
        with _libvirt_errors("ask libvirt for its version"):
            self._connected().getLibVersion()

    def capacity(self) -> Capacity:
        """The host's processors and memory, and the configured number of pods."""
        return Capacity(cpus=os.cpu_count() or 1, memory_bytes=memory_bytes(), pods=self._pods)

    def prepare(self, spec: MachineSpec) -> None:
        """See the contract. The console file in spec.log_directory is removed: libvirt makes it when the domain starts."""
        _check_key(spec.key)
        kernel = spec.boot
        if not isinstance(kernel, Kernel):
            raise UnifleetError(f"{spec.title}: {self.kind} machines boot kernels, and this is a program", "use an image with a kernel")
        if spec.mounts:
            raise UnifleetError(f"{spec.title}: {self.kind} machines take no mounts yet", "pass small values in arguments or environment")
        for path in filter(None, (kernel.image, kernel.initrd)):
            if not path.is_file():
                raise UnifleetError(f"{spec.title}: {path} is not there", "pull the image again")
        ((_stream, console),) = self.raw_console(spec.key, spec.log_directory)
        xml = self._domain_xml(spec, kernel, console)
        with self._slow, _libvirt_errors(f"define the domain of {spec.title}"):
            domain = self._find(spec.key)
            if domain is not None:
                if self._record(domain) is None:
                    raise UnifleetError(f"a domain with UUID {spec.key} is there and not Unifleet's", "undefine it with virsh")
                if domain.isActive():
                    raise UnifleetError(f"{spec.title}: domain {spec.key} is running and cannot be prepared again", "stop it first")
                self._undefine(domain)
            spec.log_directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                console.unlink()
            self._connected().defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        if kernel.exit_from_console:
            self._own_parsers[spec.key] = kernel.exit_from_console
        self._tell(spec.key)

    def start(self, key: str) -> None:
        """See the contract. A domain that QEMU refuses to start is a machine that stopped with StartError, not an error of this call."""
        with self._slow, _libvirt_errors(f"start domain {key}"):
            domain, record = self._known(key)
            state = self._state(domain, record)
            if state.phase is not Phase.CREATED:
                raise UnifleetError(f"machine {key} is {state.phase.value} and cannot be started", "prepare it again first")
            begun = time.time()
            self._ended_at.pop(key, None)
            try:
                domain.create()
            except libvirt.libvirtError as error:
                if not self._connected().isAlive() or error.get_error_code() == libvirt.VIR_ERR_RPC:
                    raise
                end = Exit(128, "StartError", time.time(), f"the virtual machine did not start: {_first_line(error)}")
                self._keep(domain, replace(record, exit=end))
            else:
                self._keep(domain, replace(record, started_at=begun))
        self._tell(key)

    def request_stop(self, key: str) -> bool:
        """See the contract."""
        with _libvirt_errors(f"ask domain {key} to shut down"):
            domain = self._find(key)
            record = self._record(domain) if domain is not None else None
            if domain is None or record is None or not record.can_shut_down:
                return False
            if domain.isActive():
                _if_active(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))
            return True

    def kill(self, key: str) -> None:
        """See the contract."""
        with self._slow, _libvirt_errors(f"destroy domain {key}"):
            domain = self._find(key)
            if domain is not None and self._record(domain) is not None and domain.isActive():
                self._ended_at[key] = time.time()
                _if_active(domain.destroy)
        self._tell(key)

    def remove(self, key: str) -> None:
        """See the contract."""
        with self._slow, _libvirt_errors(f"remove domain {key}"):
            domain = self._find(key)
            if domain is None or self._record(domain) is None:
                return
            if domain.isActive():
                _if_active(domain.destroy)
            self._undefine(domain)
        self._own_parsers.pop(key, None)
        self._tell(key)

    def state(self, key: str) -> Optional[MachineState]:
        """See the contract."""
        with _libvirt_errors(f"ask for domain {key}"):
            domain = self._find(key)
            record = self._record(domain) if domain is not None else None
            return self._state(domain, record) if record is not None else None

    def list(self) -> Iterable[MachineState]:
        """See the contract."""
        states = []
        with _libvirt_errors("list the domains"):
            for domain in self._connected().listAllDomains():
                with contextlib.suppress(_DomainGoneError), _domain_may_go():
                    record = self._record(domain)
                    if record is not None:
                        states.append(self._state(domain, record))
        return states

    def watch(self, changed: Callable[[str], None]) -> AbstractContextManager[None]:
        """See the contract."""
        return self._watch(changed)

    def raw_console(self, key: str, log_directory: Path) -> tuple[tuple[str, Path], ...]:
        """See the contract."""
        return (("stdout", log_directory / f"{key}.console.raw"),)

    def close(self) -> None:
        """Let go of libvirt. Machines go on."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _state(self, domain: Any, record: Record) -> MachineState:
        """The domain's state; an end that is seen for the first time is kept."""
        key = domain.UUIDString()
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_PAUSED and reason in (libvirt.VIR_DOMAIN_PAUSED_CRASHED, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN):
            end = Exit(139, "Error", time.time(), "the hypervisor stopped the guest after an internal error")
            record = self._keep(domain, record.ended(end))
            _if_active(domain.destroy)
        elif state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
            return MachineState(key, Phase.RUNNING, record.metadata, record.started_at)
        console = Path(record.console)
        if record.exit is None:
            if record.started_at is None and not console.exists():
                return MachineState(key, Phase.CREATED, record.metadata)
            reason = Shutoff.CRASHED if state == libvirt.VIR_DOMAIN_CRASHED else reason
            parse = self._own_parsers.get(key) or self._exit_parsers.get(record.metadata.get("family", ""))
            at = self._ended_at.get(key) or _last_change(console)
            end = exit_of(reason, _tail(console), parse, at, record.exit_rule, abrupt=record.abrupt)
            record = self._keep(domain, record.ended(end))
        return MachineState(key, Phase.STOPPED, record.metadata, record.started_at, record.exit)

    def _keep(self, domain: Any, record: Record) -> Record:
        """Write the record into the domain, unless another thread has already noted an end."""
        with self._recording:
            now = self._record(domain)
            if now is not None and now.exit is not None:
                return now
            if now is not None and record.started_at is None:
                record = replace(record, started_at=now.started_at)
            kind, config = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
            domain.setMetadata(kind, record.element(), "unifleet", NAMESPACE, config)
            return record

    def _record(self, domain: Any) -> Optional[Record]:
        try:
            return record_from(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG))
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
                return None
            if not domain.isPersistent():
                return None
            raise

    def _find(self, key: str) -> Any:
        _check_key(key)
        try:
            return self._connected().lookupByUUIDString(key)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _known(self, key: str) -> tuple[Any, Record]:
        domain = self._find(key)
        record = self._record(domain) if domain is not None else None
        if record is None:
            raise UnifleetError(f"there is no machine {key}", "prepare it first")
        return domain, record

    def _undefine(self, domain: Any) -> None:
        try:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise

    def _connected(self) -> Any:
        """The connection; opened again, events and all, when libvirtd was restarted."""
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return self._connection
            _EventLoop.ensure()
            again = self._connection is not None
            self._connection = None
            try:
                connection = libvirt.open(self._uri)
                connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
                connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)
            except libvirt.libvirtError as error:
                raise UnifleetError(
                    f"libvirt ({self._uri}) does not answer: {_first_line(error)}", "see systemctl status libvirtd"
                ) from error
            self._connection = connection
        if again:
            self._events.put(None)
        return connection

    def _on_event(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        """On libvirt's event thread, which must not wait for libvirt: hand over."""
        key = domain.UUIDString()
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._ended_at[key] = time.time()
        elif event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            self._ended_at.pop(key, None)
        self._events.put(key)

    @contextmanager
    def _watch(self, changed: Callable[[str], None]) -> Iterator[None]:
        stop = threading.Event()
        guard = threading.Thread(target=self._guard, args=(stop,), name="libvirt-guard", daemon=True)
        with self._lock:
            self._watchers.append(changed)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="libvirt-watch", daemon=True)
                self._worker.start()
        with contextlib.suppress(UnifleetError):
            self._connected()
        guard.start()
        try:
            yield
        finally:
            stop.set()
            guard.join(5)
            with self._lock:
                self._watchers.remove(changed)

    def _guard(self, stop: threading.Event) -> None:
        """Connect again soon after libvirtd went away, as nobody may call for a while."""
        while not stop.wait(1.0):
            with contextlib.suppress(UnifleetError, libvirt.libvirtError):
                self._connected()

    def _work(self) -> None:
        while True:
            key = self._events.get()
            try:
                states = self.list() if key is None else [self.state(key)]
            except UnifleetError as error:
                _LOG.warning("%s", error)
                states = []
            keys = [state.key for state in states if state is not None]
            for changed in [key] if key is not None and not keys else keys:
                self._tell(changed)

    def _tell(self, key: str) -> None:
        for changed in list(self._watchers):
            changed(key)


class _DomainGoneError(Exception):
    """A domain that was undefined while it was looked at."""


@contextmanager
def _domain_may_go() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise _DomainGoneError from error
        raise


@contextmanager
def _libvirt_errors(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise UnifleetError(f"libvirt could not {what}: {_first_line(error)}", "see journalctl -u libvirtd") from error


def _if_active(action: Callable[[], object]) -> None:
    """Do something to a running domain; one that has stopped meanwhile is no error."""
    try:
        action()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
            raise


def _first_line(error: libvirt.libvirtError) -> str:
    return " ".join(str(error).split())[:500]


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - CONSOLE_TAIL))
            return file.read()
    except OSError:
        return b""


def _last_change(path: Path) -> float:
    """When the console was last written to: the best that is known of an end nobody saw."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _check_key(key: str) -> None:
    try:
        good = str(uuid.UUID(key)) == key
    except ValueError:
        good = False
    if not good:
        raise UnifleetError(f"{key!r} is no UUID in lower case", "key a machine by its pod's UID")
