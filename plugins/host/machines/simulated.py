# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that exist in memory alone, with behaviour, delays and failures that a test chooses.

They keep the same contract as the real ones (tests/contract runs over them too), so that the kubelet can be tested with thousands
of machines and with troubles that a real hypervisor shows once a year. A SimulatedHost is what survives the agent: two
SimulatedMachines on one host are an agent before and after its restart. One timer thread serves all machines of a host.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import (
    Capacity,
    Exit,
    MachineSpec,
    MachineState,
    Phase,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass(frozen=True)
class Behaviour:
    """How one machine behaves.

    run_seconds: how long it runs before it ends by itself with exit_code and reason; None: until it is stopped.
    stop_seconds: how long it takes to end after a request; None: it cannot be asked (a deaf guest). ignores_stop: it can be asked and
    does not care. stop_code: its exit code after a request. output: what it writes on stdout (and errors on stderr) as it starts.
    prepare_seconds, start_seconds: how long those calls block. start_error: the program cannot be run (StartError, 128).
    failures: call name ("prepare", "start", ...) -> the error that this call raises.
    """

    run_seconds: Optional[float] = None
    exit_code: int = 0
    reason: str = ""
    stop_seconds: Optional[float] = 0.0
    stop_code: int = 0
    ignores_stop: bool = False
    output: bytes = b""
    errors: bytes = b""
    prepare_seconds: float = 0.0
    start_seconds: float = 0.0
    start_error: str = ""
    failures: Mapping[str, UnifleetError] = field(default_factory=dict)


@dataclass
class _Machine:
    spec: MachineSpec
    behaviour: Behaviour
    state: MachineState
    starts: int = 0


class SimulatedHost:
    """The make-believe host: its machines, its size, its troubles. Outlives the SimulatedMachines that look at it.

    script: MachineSpec -> Behaviour, asked at prepare(). failures: call name -> error raised by that call for every machine ("health"
    included), to be changed at any time. calls: every call made, as (name, key), for tests that count.
    """

    def __init__(
        self,
        script: Callable[[MachineSpec], Behaviour] = lambda _: Behaviour(),
        capacity: Optional[Capacity] = None,
        limitations: tuple[str, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.script = script
        self.capacity = capacity or Capacity(cpus=64, memory_bytes=256 << 30, pods=1000)
        self.limitations = limitations
        self.failures: dict[str, UnifleetError] = {}
        self.calls: list[tuple[str, str]] = []
        self.machines: dict[str, _Machine] = {}
        self.watchers: dict[int, Callable[[str], None]] = {}
        self.lock = threading.RLock()
        self._clock = clock
        self._tickets = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._wake = threading.Condition(self.lock)
        self._thread: Optional[threading.Thread] = None

    def called(self, name: str, key: str) -> None:
        """Record a call and raise the failure that the test has set for it."""
        with self.lock:
            self.calls.append((name, key))
            failure = self.failures.get(name)
            machine = self.machines.get(key)
        if failure is None and machine is not None:
            failure = machine.behaviour.failures.get(name)
        if failure is not None:
            raise failure

    def starts(self, key: str) -> int:
        """How often the machine now known by this key was set running."""
        with self.lock:
            return self.machines[key].starts

    def now(self) -> float:
        """Seconds since the epoch on the host's clock."""
        return self._clock()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run action on the timer thread after seconds."""
        with self._wake:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._tickets), action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_timers, name="simulated-host", daemon=True)
                self._thread.start()
            self._wake.notify()

    def end(self, machine: _Machine, code: int, reason: str = "", message: str = "") -> None:
        """The machine stops now, unless it has already."""
        with self.lock:
            if machine.state.phase is not Phase.RUNNING:
                return
            why = reason or ("Completed" if code == 0 else "Error")
            machine.state = replace(machine.state, phase=Phase.STOPPED, exit=Exit(code, why, self.now(), message))
        self.changed(machine.spec.key)

    def changed(self, key: str) -> None:
        """Tell every watcher."""
        with self.lock:
            watchers = list(self.watchers.values())
        for watcher in watchers:
            watcher(key)

    def _run_timers(self) -> None:
        while True:
            with self._wake:
                while not self._timers or self._timers[0][0] > time.monotonic():
                    self._wake.wait(self._timers[0][0] - time.monotonic() if self._timers else None)
                action = heapq.heappop(self._timers)[2]
            action()


class SimulatedMachines:
    """The Machines contract over a SimulatedHost."""

    kind = "simulated"

    def __init__(self, host: Optional[SimulatedHost] = None, kind: str = "simulated") -> None:
        """kind: what to pass for; "kvm" lets a test look at how an agent treats virtual machines."""
        self.host = host or SimulatedHost()
        self.kind = kind

    def health(self) -> None:
        """See the contract."""
        self.host.called("health", "")

    def capacity(self) -> Capacity:
        """See the contract."""
        return self.host.capacity

    def limitations(self) -> tuple[str, ...]:
        """See the contract."""
        return self.host.limitations

    def prepare(self, spec: MachineSpec) -> None:
        """See the contract."""
        behaviour = self.host.script(spec)
        self.host.called("prepare", spec.key)
        if "prepare" in behaviour.failures:
            raise behaviour.failures["prepare"]
        _pause(behaviour.prepare_seconds)
        spec.log_directory.mkdir(parents=True, exist_ok=True)
        with self.host.lock:
            old = self.host.machines.get(spec.key)
            if old is not None and old.state.phase is Phase.RUNNING:
                raise UnifleetError(f"machine {spec.key} ({spec.title}) is running and cannot be prepared again", "stop it first")
            for _stream, path in self.raw_console(spec.key, spec.log_directory):
                path.write_bytes(b"")
            state = MachineState(spec.key, Phase.CREATED, dict(spec.metadata))
            self.host.machines[spec.key] = _Machine(spec, behaviour, state)
        self.host.changed(spec.key)

    def start(self, key: str) -> None:
        """See the contract."""
        self.host.called("start", key)
        machine = self._machine(key)
        behaviour = machine.behaviour
        _pause(behaviour.start_seconds)
        with self.host.lock:
            if machine.state.phase is not Phase.CREATED:
                raise UnifleetError(f"machine {key} is {machine.state.phase.value} and cannot be started", "prepare it first")
            machine.starts += 1
            machine.state = replace(machine.state, phase=Phase.RUNNING, started_at=self.host.now())
        for (_stream, path), data in zip(self.raw_console(key, machine.spec.log_directory), (behaviour.output, behaviour.errors)):
            with path.open("ab") as file:
                file.write(data)
        if behaviour.start_error:
            self.host.end(machine, 128, "StartError", behaviour.start_error)
            return
        self.host.changed(key)
        if behaviour.run_seconds is not None:
            self._end_later(machine, behaviour.run_seconds, behaviour.exit_code, behaviour.reason)

    def request_stop(self, key: str) -> bool:
        """See the contract."""
        self.host.called("request_stop", key)
        with self.host.lock:
            machine = self.host.machines.get(key)
        if machine is None or machine.behaviour.stop_seconds is None:
            return False
        if machine.state.phase is Phase.RUNNING and not machine.behaviour.ignores_stop:
            self._end_later(machine, machine.behaviour.stop_seconds, machine.behaviour.stop_code, "")
        return True

    def kill(self, key: str) -> None:
        """See the contract."""
        self.host.called("kill", key)
        with self.host.lock:
            machine = self.host.machines.get(key)
        if machine is not None:
            self.host.end(machine, 137, "Error")

    def remove(self, key: str) -> None:
        """See the contract."""
        self.host.called("remove", key)
        self.kill(key)
        with self.host.lock:
            gone = self.host.machines.pop(key, None)
        if gone is not None:
            self.host.changed(key)

    def state(self, key: str) -> Optional[MachineState]:
        """See the contract."""
        self.host.called("state", key)
        with self.host.lock:
            machine = self.host.machines.get(key)
            return machine.state if machine else None

    def list(self) -> Iterable[MachineState]:
        """See the contract."""
        self.host.called("list", "")
        with self.host.lock:
            return [machine.state for machine in self.host.machines.values()]

    def watch(self, changed: Callable[[str], None]) -> AbstractContextManager[None]:
        """See the contract."""
        return self._watch(changed)

    def raw_console(self, key: str, log_directory: Path) -> tuple[tuple[str, Path], ...]:
        """See the contract."""
        return (("stdout", log_directory / f"{key}.stdout.raw"), ("stderr", log_directory / f"{key}.stderr.raw"))

    @contextmanager
    def _watch(self, changed: Callable[[str], None]) -> Iterator[None]:
        ticket = id(changed)
        with self.host.lock:
            self.host.watchers[ticket] = changed
        try:
            yield
        finally:
            with self.host.lock:
                self.host.watchers.pop(ticket, None)

    def _machine(self, key: str) -> _Machine:
        with self.host.lock:
            machine = self.host.machines.get(key)
        if machine is None:
            raise UnifleetError(f"there is no machine {key}", "prepare it first")
        return machine

    def _end_later(self, machine: _Machine, seconds: float, code: int, reason: str) -> None:
        self.host.later(seconds, lambda: self.host.end(machine, code, reason))


def _pause(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
