# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract tests need of each kind of machine: how to open it again (a restarted agent), and workloads that behave in known ways.

Standard library, pytest and the host's own packages only: this runs on the hosts, with Python 3.9 and newer.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Kernel, Machines, MachineSpec, Mount, Phase, Program
from ansible_collections.unifleet.hybrid.plugins.host.machines.registry import MachinesSettings, open_machines
from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import Behaviour, SimulatedHost, SimulatedMachines

SECONDS = 60.0
"""How long a test waits for what must come: hosts may be emulated and busy."""
SENSOR = Path(os.environ.get("UNIFLEET_CONTRACT_SENSOR", "/usr/local/lib/unifleet/probe/sensor-kvm-amd64"))


def wait_for(what: str, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return when the condition holds; fail, saying what was waited for, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.02)


def sensor_exit_code(console: bytes) -> Optional[int]:
    """The exit code in a sensor's last console line."""
    found = re.search(rb"unikernel: exit (\d+)\s*\Z", console)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Workload:
    """Something to boot, and what it does. ready: what it prints once it runs. lines: how many lines it prints before it ends."""

    boot: Union[Program, Kernel]
    code: int = 0
    ready: bytes = b""


@dataclass
class Bench:
    """One kind of machine on this host. survives_agents: whether machines outlive the process that made them."""

    kind: str
    directory: Path
    keys: list[str] = field(default_factory=list)
    survives_agents: bool = True

    def open(self) -> Machines:
        """The machines as a newly started agent sees them."""
        return open_machines(self.kind, settings(self.kind))

    def spec(self, workload: Workload, key: str = "", mounts: tuple[Mount, ...] = (), memory_bytes: int = 32 << 20) -> MachineSpec:
        """A specification with metadata that is hard to carry."""
        key = key or str(uuid.uuid4())
        if key not in self.keys:
            self.keys.append(key)
        metadata = {"family": "sensor", "attempt": "3", "nasty": "a\nb\t\"c' <d>&amp; %h $HOME \\x41 \u00e9\u2603 \x01;", "empty": ""}
        return MachineSpec(
            key=key,
            title=f"contract/{self.kind}/<&\"'>",
            boot=workload.boot,
            log_directory=self.directory / "logs",
            metadata=metadata,
            memory_bytes=memory_bytes,
            cpu_millis=500,
            mounts=mounts,
        )

    def console(self, machines: Machines, key: str) -> bytes:
        """All that the machine has written on its standard output."""
        path = dict(machines.raw_console(key, self.directory / "logs"))["stdout"]
        return path.read_bytes() if path.exists() else b""

    def exits_well(self) -> Workload:
        raise NotImplementedError

    def fails(self) -> Workload:
        raise NotImplementedError

    def runs(self) -> Workload:
        """Runs until it is asked to stop, and then exits 0."""
        raise NotImplementedError

    def is_deaf(self) -> Workload:
        """Cannot be stopped by asking."""
        raise NotImplementedError

    def talks(self, lines: int) -> Workload:
        """Prints so many lines, numbered, and exits 0."""
        raise NotImplementedError

    def is_broken(self) -> Workload:
        """Cannot be started at all."""
        raise NotImplementedError


class SimulatedBench(Bench):
    """Machines in memory."""

    def __init__(self, directory: Path) -> None:
        super().__init__("simulated", directory, survives_agents=False)
        self.host = SimulatedHost(self._behave)

    def open(self) -> Machines:
        return SimulatedMachines(self.host)

    def _behave(self, spec: MachineSpec) -> Behaviour:
        assert isinstance(spec.boot, Program)
        what, *rest = spec.boot.argv
        numbered = b"".join(b"line %d\n" % number for number in range(int(rest[0]))) if rest else b""
        return {
            "well": Behaviour(run_seconds=0.05),
            "fail": Behaviour(run_seconds=0.05, exit_code=3),
            "run": Behaviour(output=b"ready\n", stop_seconds=0.05),
            "deaf": Behaviour(output=b"ready\n", stop_seconds=None),
            "talk": Behaviour(run_seconds=0.05, output=numbered),
            "broken": Behaviour(start_error="no such program"),
        }[what]

    def _program(self, *argv: str) -> Program:
        return Program(self.directory, argv)

    def exits_well(self) -> Workload:
        return Workload(self._program("well"))

    def fails(self) -> Workload:
        return Workload(self._program("fail"), 3)

    def runs(self) -> Workload:
        return Workload(self._program("run"), ready=b"ready\n")

    def is_deaf(self) -> Workload:
        return Workload(self._program("deaf"), ready=b"ready\n")

    def talks(self, lines: int) -> Workload:
        return Workload(self._program("talk", str(lines)))

    def is_broken(self) -> Workload:
        return Workload(self._program("broken"), 128)


class ProcessBench(Bench):
    """Programs: busybox in an image of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__("process", directory)
        self.image = directory / "image"
        binaries = self.image / "bin"
        binaries.mkdir(parents=True)
        shutil.copy("/bin/busybox", binaries / "busybox")
        for name in ("sh", "sleep", "cat", "id", "env", "ls", "touch", "seq", "kill", "dd"):
            (binaries / name).symlink_to("busybox")
        for made in (directory, self.image, binaries):
            made.chmod(0o755)

    def shell(self, script: str, code: int = 0, ready: bytes = b"") -> Workload:
        """A shell script as a workload."""
        return Workload(Program(self.image, ("sh", "-c", script), env=(("NAME", "va%lue $X"),)), code, ready)

    def exits_well(self) -> Workload:
        return self.shell("exit 0")

    def fails(self) -> Workload:
        return self.shell("exit 3", 3)

    def runs(self) -> Workload:
        return self.shell("trap 'exit 0' TERM; echo ready; while :; do sleep 1; done", ready=b"ready\n")

    def is_deaf(self) -> Workload:
        return self.shell("trap '' TERM; echo ready; while :; do sleep 1; done", ready=b"ready\n")

    def talks(self, lines: int) -> Workload:
        return self.shell(f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done")

    def is_broken(self) -> Workload:
        return Workload(Program(self.image, ("/no/such/program",)), 128)


class KvmBench(Bench):
    """Virtual machines: the project's own sensor guest."""

    def __init__(self, directory: Path) -> None:
        super().__init__("kvm", directory)
        self.kernel = directory / "sensor"
        self.kernel.write_bytes(SENSOR.read_bytes())
        self.broken = directory / "broken"
        self.broken.write_bytes(b"this is no kernel")
        directory.chmod(0o755)

    def _sensor(self, arguments: str, can_shut_down: bool = True) -> Kernel:
        return Kernel(self.kernel, f"-- --sensor contract --source value:1 {arguments}", can_shut_down=can_shut_down)

    def exits_well(self) -> Workload:
        return Workload(self._sensor("--period 0.01 --count 1"))

    def fails(self) -> Workload:
        return Workload(self._sensor("--nonsense"), 2)

    def runs(self) -> Workload:
        return Workload(self._sensor("--period 0.2"), ready=b"seq=1 ")

    def is_deaf(self) -> Workload:
        return Workload(self._sensor("--period 0.2", can_shut_down=False), ready=b"seq=1 ")

    def talks(self, lines: int) -> Workload:
        return Workload(self._sensor(f"--period 0.01 --count {lines}"))

    def is_broken(self) -> Workload:
        return Workload(Kernel(self.broken, ""), 128)


def settings(kind: str) -> MachinesSettings:
    """An agent's settings for the contract tests."""
    return MachinesSettings(probe_kernel=SENSOR if kind == "kvm" else None, exit_parsers={"sensor": sensor_exit_code})


def is_running(machines: Machines, key: str) -> bool:
    """Whether the machine runs."""
    state = machines.state(key)
    return state is not None and state.phase is Phase.RUNNING


def has_stopped(machines: Machines, key: str) -> bool:
    """Whether the machine has stopped."""
    state = machines.state(key)
    return state is not None and state.phase is Phase.STOPPED
