# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux programs as machines: each one a transient systemd unit, isolated from the host, seen again by any later agent.

systemd is the truth about what runs and how it ended: units remain after their process ended (RemainAfterExit=, failed units are
kept), so an exit code waits for an agent that was away. What systemd cannot hold, a machine that is prepared and not started, is a
small file under /run, which ends with the boot as units do. The unit carries the metadata too (LogExtraFields=), should the file go.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity, Exit, MachineSpec, MachineState, Mount, Phase
from ansible_collections.unifleet.hybrid.plugins.host.machines.process_root import DEFAULT_PATH, build_root, find_program, resolve
from ansible_collections.unifleet.hybrid.plugins.host.machines.process_unit import (
    ISOLATION,
    PREFIX,
    Isolation,
    Properties,
    controllers_of_process,
    host_mounts,
    is_directory,
    key_of_unit,
    leaves_children,
    metadata_of_unit,
    properties,
    state_of_unit,
    to_record,
    unit_name,
)
from ansible_collections.unifleet.hybrid.plugins.host.machines.systemd_bus import NoSuchUnitError, SystemdBus
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import ControlGroups, control_groups, memory_bytes

_TRIAL_SKIPS = frozenset({"proc", "sys", "dev", "run", "tmp", "work", "lost+found"})
_TRIAL_SECONDS = 20.0
_GONE_SECONDS = 15.0
_POINTS = (("/proc", True), ("/sys", True), ("/dev", True), ("/tmp", True))  # noqa: S108 - the process's, not ours
_UNIT_PROPERTIES = ("ActiveState", "SubState")
_SERVICE_PROPERTIES = ("Result", "ExecMainCode", "ExecMainStatus", "ExecMainStartTimestamp", "ExecMainExitTimestamp")


class ProcessMachines:
    """The Machines contract over systemd. run_directory: on a file system that ends with the boot. pods: see capacity()."""

    kind = "process"

    def __init__(self, run_directory: Path = Path("/run/unifleet"), pods: int = 110) -> None:
        self._directory = run_directory / "process"
        self._pods = pods
        self._bus = SystemdBus()
        self._isolation: Optional[tuple[Isolation, ...]] = None
        self._isolation_lock = threading.Lock()
        self._groups_lock = threading.Lock()
        self._groups: Optional[ControlGroups] = None
        self._watchers: list[Callable[[str], None]] = []
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def health(self) -> None:
        """See the contract."""
        self._bus.manager("Version")

    def capacity(self) -> Capacity:
        """The host's processors and memory, and the configured number of pods."""
        return Capacity(cpus=os.cpu_count() or 1, memory_bytes=memory_bytes(), pods=self._pods)

    def limitations(self) -> tuple[str, ...]:
        """See the contract."""
        groups, possible = self._effective_groups(), self._possible_isolation()
        limits = (("memory", "memory limits"), ("cpu", "CPU limits"), ("pids", "limits on the number of tasks"))
        sentences = [
            f"systemd has no {controller} controller on this host, so {what} are not enforced"
            for controller, what in limits
            if controller not in groups.controllers
        ]
        if groups.version == 1 and "memory" in groups.controllers:
            sentences.append("control groups version 1 do not tell why a process was killed: out of memory is Error, not OOMKilled")
        return (*sentences, *(f"this host cannot {item.loss} ({item.name})" for item in ISOLATION if item not in possible))

    def prepare(self, spec: MachineSpec) -> None:
        """See the contract. The raw console files in spec.log_directory begin empty."""
        if str(_uuid(spec.key)) != spec.key:
            raise UnifleetError(f"{spec.key!r} is no UUID in lower case", "key a machine by its pod's UID")
        record = to_record(spec)
        state = self.state(spec.key)
        if state is not None:
            if state.phase is Phase.RUNNING:
                raise UnifleetError(
                    f"{spec.title}: the unit {unit_name(spec.key)} is running and cannot be prepared again", "stop it first"
                )
            self.remove(spec.key)
        spec.log_directory.mkdir(parents=True, exist_ok=True)
        for _stream, path in self.raw_console(spec.key, spec.log_directory):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            path.touch(mode=0o640)
        (self._directory / spec.key).mkdir(mode=0o700, exist_ok=True)
        self._write(record)
        self._tell(spec.key)

    def start(self, key: str) -> None:
        """See the contract. A program that cannot be run is a machine that stopped with StartError, not an error of this call."""
        record = self._record(key)
        state = self.state(key)
        if record is None or state is None:
            raise UnifleetError(f"there is no machine {key}", "prepare it first")
        if state.phase is not Phase.CREATED:
            raise UnifleetError(f"machine {key} is {state.phase.value} and cannot be started", "prepare it again first")
        try:
            made = self._properties(record)
        except UnifleetError as error:
            self._write({**record, "started": "no", "error": error.message, "at": time.time()})
            self._tell(key)
            return
        result = self._bus.start_transient(unit_name(key), made)
        if result == "done":
            self._write({**record, "started": "yes", "at": time.time()})
        elif result == "failed":
            self._write({**record, "started": "failed", "at": time.time()})
        else:
            raise UnifleetError(f"systemd did not start {unit_name(key)} in time: {result}", f"see journalctl -u {unit_name(key)}")
        self._tell(key)

    def request_stop(self, key: str) -> bool:
        """See the contract."""
        self._signal(key, signal.SIGTERM)
        return True

    def kill(self, key: str) -> None:
        """See the contract."""
        self._signal(key, signal.SIGKILL)

    def remove(self, key: str) -> None:
        """See the contract."""
        if str(_uuid(key)) != key:
            return
        self._signal(key, signal.SIGKILL)
        self._bus.forget(unit_name(key))
        self._wait_until_gone(unit_name(key))
        shutil.rmtree(self._directory / key, ignore_errors=True)
        self._tell(key)

    def state(self, key: str) -> Optional[MachineState]:
        """See the contract."""
        record = self._record(key)
        unit = unit_name(key)
        try:
            seen = {name: self._bus.get(unit, "Unit", name) for name in _UNIT_PROPERTIES}
            if seen["ActiveState"] == "inactive" and record is None:
                return None
            if seen["ActiveState"] != "inactive":
                seen.update({name: self._bus.get(unit, "Service", name) for name in _SERVICE_PROPERTIES})
                metadata = record["metadata"] if record else metadata_of_unit(self._bus.get(unit, "Service", "LogExtraFields"))
                state = state_of_unit(key, metadata, record, seen)
                if leaves_children(seen):
                    self._end_children(unit)
                return state
        except NoSuchUnitError:
            pass
        return _state_without_unit(key, record)

    def list(self) -> Iterable[MachineState]:
        """See the contract."""
        keys = {key for name, _active, _sub in self._bus.units(f"{PREFIX}*.service") if (key := key_of_unit(name))}
        keys |= {entry.name for entry in os.scandir(self._directory) if entry.is_dir()}
        states = (self.state(key) for key in sorted(keys) if _is_uuid(key))
        return [state for state in states if state is not None]

    def watch(self, changed: Callable[[str], None]) -> AbstractContextManager[None]:
        """See the contract."""
        return self._watch(changed)

    def raw_console(self, key: str, log_directory: Path) -> tuple[tuple[str, Path], ...]:
        """See the contract."""
        return (("stdout", log_directory / f"{key}.stdout.raw"), ("stderr", log_directory / f"{key}.stderr.raw"))

    def close(self) -> None:
        """Let go of the bus. Machines go on."""
        self._bus.close()

    @contextmanager
    def _watch(self, changed: Callable[[str], None]) -> Iterator[None]:
        def told(unit: Optional[str]) -> None:
            key = key_of_unit(unit) if unit else None
            if key:
                self._sweep(key)
                changed(key)
            elif unit is None:
                for state in self.list():
                    changed(state.key)

        self._watchers.append(changed)
        try:
            with self._bus.watch(PREFIX, told):
                yield
        finally:
            self._watchers.remove(changed)

    def _sweep(self, key: str) -> None:
        """Ask for the state, which ends what a process that has ended left running."""
        with contextlib.suppress(UnifleetError):
            self.state(key)

    def _tell(self, key: str) -> None:
        for changed in list(self._watchers):
            changed(key)

    def _signal(self, key: str, number: int) -> None:
        if _is_uuid(key):
            self._bus.kill(unit_name(key), number)

    def _end_children(self, unit: str) -> None:
        """A container ends with its first process; systemd lets the others of a unit that remains after exit live on."""
        with contextlib.suppress(UnifleetError):
            self._bus.kill(unit, signal.SIGKILL)

    def _wait_until_gone(self, unit: str) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline:
            states = [active for name, active, _sub in self._bus.units(unit) if name == unit]
            if not states or states == ["inactive"]:
                return
            if states == ["failed"]:
                self._bus.forget(unit)
            time.sleep(0.01)
        raise UnifleetError(f"{unit} does not end although it was killed", f"see systemctl status {unit}")

    def _properties(self, record: dict[str, Any]) -> Properties:
        key, image = record["key"], Path(record["root"])
        if not image.is_dir():
            raise UnifleetError(f"the image directory {image} is not there", "pull the image again")
        wanted = [Mount(Path(source), target, bool(read_only)) for source, target, read_only in record["mounts"]]
        mounts = [
            Mount(mount.source, resolve(image, mount.target), mount.read_only)
            for mount in sorted([*host_mounts(wanted), *wanted], key=lambda mount: mount.target.count("/"))
        ]
        env = dict(tuple(pair) for pair in record["env"])
        program = find_program(image, record["argv"], env.get("PATH") or DEFAULT_PATH, record["cwd"])
        root = self._directory / key / "root"
        shutil.rmtree(root, ignore_errors=True)
        binds = build_root(root, image, [*_POINTS, *((mount.target, is_directory(mount.source)) for mount in mounts)])
        return properties(
            record,
            program=program,
            root=root,
            binds=binds,
            mounts=mounts,
            isolation=self._possible_isolation(),
            console=dict(self.raw_console(key, Path(record["log_directory"]))),
            controllers=self._effective_groups().controllers,
        )

    def _possible_isolation(self) -> tuple[Isolation, ...]:
        """What this host can do of ISOLATION, found out by trial once a boot (and systemd version)."""
        with self._isolation_lock:
            if self._isolation is None:
                cache = self._directory / "isolation.json"
                version = str(self._bus.manager("Version"))
                try:
                    kept = json.loads(cache.read_text())
                    names = frozenset(kept["possible"]) if kept["version"] == version else None
                except (OSError, ValueError, KeyError, TypeError):
                    names = None
                if names is None:
                    names = frozenset(item.name for item in self._try_isolation())
                    _write_atomically(cache, {"version": version, "possible": sorted(names)})
                self._isolation = tuple(item for item in ISOLATION if item.name in names)
            return self._isolation

    def _effective_groups(self) -> ControlGroups:
        """The controllers that systemd really uses. Version 2 lists them; of version 1, systemd uses what was writable when it
        started, which only a unit with limits shows."""
        with self._groups_lock:
            if self._groups is None:
                groups = control_groups()
                if groups.version == 1:
                    limits = frozenset(groups.controllers & {"memory", "cpu", "pids"})
                    shown = self._trial((), program="/bin/cat", arguments=("/proc/self/cgroup",), controllers=limits) or ""
                    groups = ControlGroups(1, limits & controllers_of_process(shown))
                self._groups = groups
            return self._groups

    def _try_isolation(self) -> tuple[Isolation, ...]:
        if self._trial(ISOLATION) is not None:
            return ISOLATION
        alone = tuple(item for item in ISOLATION if self._trial((item,)) is not None)
        together: tuple[Isolation, ...] = ()
        if self._trial(alone) is not None:
            return alone
        for item in alone:
            together = (*together, item) if self._trial((*together, item)) is not None else together
        return together

    def _trial(
        self,
        isolation: tuple[Isolation, ...],
        program: str = "/bin/true",
        arguments: tuple[str, ...] = (),
        controllers: frozenset[str] = frozenset(),
    ) -> Optional[str]:
        """The output of one of the host's own programs, run from a root like a machine's; None when it does not run."""
        name = f"trial-{uuid.uuid4()}"
        unit = f"{PREFIX}{name}.service"
        directory = self._directory / name
        directory.mkdir(mode=0o700)
        try:
            binds = build_root(directory / "root", Path("/"), _POINTS, _TRIAL_SKIPS)
            made = properties(
                {
                    **{"env": [], "metadata": {}, "root": "/", "user": "", "title": "trial", "cwd": "/"},
                    **{"argv": [program, *arguments], "memory_bytes": 64 << 20, "cpu_millis": 1000},
                },
                program=resolve(Path("/"), program),
                root=directory / "root",
                binds=binds,
                mounts=(),
                isolation=isolation,
                console={"stdout": directory / "out", "stderr": directory / "err"},
                controllers=controllers,
            )
            result = self._bus.start_transient(unit, made)
            deadline = time.monotonic() + _TRIAL_SECONDS
            while result == "done" and not self._bus.get(unit, "Service", "ExecMainCode") and time.monotonic() < deadline:
                time.sleep(0.005)
            good = result == "done" and self._bus.get(unit, "Service", "ExecMainStatus") == 0
            self._bus.forget(unit)
            return (directory / "out").read_text() if good else None
        except UnifleetError:
            return None
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _record(self, key: str) -> Optional[dict[str, Any]]:
        if not _is_uuid(key):
            return None
        try:
            loaded = json.loads((self._directory / key / "machine.json").read_text())
        except (OSError, ValueError):
            return None
        return loaded if isinstance(loaded, dict) else None

    def _write(self, record: dict[str, Any]) -> None:
        _write_atomically(self._directory / record["key"] / "machine.json", record)


def _state_without_unit(key: str, record: Optional[dict[str, Any]]) -> Optional[MachineState]:
    """A machine that systemd knows nothing of: prepared only, never startable, or stopped behind our back."""
    if record is None:
        return None
    metadata, started = record["metadata"], record.get("started")
    if started is None:
        return MachineState(key, Phase.CREATED, metadata)
    when = float(record.get("at", 0.0))
    if started == "no":
        return MachineState(key, Phase.STOPPED, metadata, None, Exit(128, "StartError", when, str(record.get("error", ""))))
    message = "its unit was stopped by somebody else than Unifleet, so how it ended is not known"
    return MachineState(key, Phase.STOPPED, metadata, None, Exit(137, "ContainerStatusUnknown", when, message))


def _write_atomically(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


def _is_uuid(key: str) -> bool:
    try:
        return str(uuid.UUID(key)) == key
    except ValueError:
        return False


def _uuid(key: str) -> uuid.UUID:
    try:
        return uuid.UUID(key)
    except ValueError as error:
        raise UnifleetError(f"{key!r} is no UUID", "key a machine by its pod's UID") from error
