# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way to run a workload promises: the contract that kvm, xen, process and simulated machines keep.

A machine is one container of one pod: a virtual machine, or a process with its cgroup. It is keyed by a UUID (the pod's UID for
the pod's first container, uuid5(pod UID, container name) for the others), never by a name, and all truth about it is kept by the
hypervisor or by systemd, so that an agent that was killed finds every machine again through Machines.list().

The calls block and may be made from any thread. They raise UnifleetError; asking about a machine that is not there is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Optional, Protocol, Union

from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ExitRule
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Hardware as KernelHardware


class Phase(str, Enum):
    """Where a machine is in its life; the hypervisor or systemd said so."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Exit:
    """How a machine ended.

    code: 0-255, 128+n for signal n. reason: a Kubernetes container reason (Completed, Error, OOMKilled, StartError,
    ContainerStatusUnknown). finished_at: seconds since the epoch.
    """

    code: int
    reason: str
    finished_at: float
    message: str = ""


@dataclass(frozen=True)
class MachineState:
    """One machine as its hypervisor sees it. metadata is what MachineSpec.metadata said at prepare()."""

    key: str
    phase: Phase
    metadata: Mapping[str, str]
    started_at: Optional[float] = None
    exit: Optional[Exit] = None


@dataclass(frozen=True)
class Program:
    """A Linux program that runs as a process. root: the image's directory (the program sees it as /, read-only)."""

    root: Path
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""


@dataclass(frozen=True)
class Kernel:
    """A kernel that a hypervisor boots directly. command_line: what the guest family made of args, env and network.

    hardware: what it needs of its machine, empty where it takes what the host likes. exit_rule: what its end means; kept with the machine.
    debug_exit: the port of the isa-debug-exit device that it ends by, or 0.
    """

    image: Path
    command_line: str
    initrd: Optional[Path] = None
    can_shut_down: bool = False
    exit_from_console: Optional[Callable[[bytes], Optional[int]]] = None
    hardware: KernelHardware = field(default_factory=KernelHardware)
    exit_rule: Optional[ExitRule] = None
    debug_exit: int = 0


@dataclass(frozen=True)
class Mount:
    """A host file or directory that a process sees at target (absolute path inside its root)."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Interface:
    """The network interface of a VM: address "10.0.0.5/24", gateway "10.0.0.1", bridge: the host bridge it hangs on.

    tap: what the host's end of it is called, "" to leave that to the hypervisor. It is there as long as the VM runs.
    """

    address: str
    gateway: str
    bridge: str
    mac: str
    tap: str = ""


@dataclass(frozen=True)
class MachineSpec:
    """All that prepare() needs. title is for people (namespace/pod/container); metadata comes back through state()."""

    key: str
    title: str
    boot: Union[Program, Kernel]
    log_directory: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    cpu_millis: int = 0
    mounts: tuple[Mount, ...] = ()
    interface: Optional[Interface] = None


@dataclass(frozen=True)
class Capacity:
    """What the host has for machines: whole cores, bytes, number of pods."""

    cpus: int
    memory_bytes: int
    pods: int


class Machines(Protocol):
    """One hypervisor (or service manager) on this host."""

    kind: str
    """kvm, xen, process or simulated: also the hypervisor name in an image's kernel table."""

    def health(self) -> None:
        """Return when the hypervisor answers; raise UnifleetError when it does not."""

    def capacity(self) -> Capacity:
        """What the host really has."""

    def limitations(self) -> tuple[str, ...]:
        """Sentences on what this host cannot enforce (no memory cgroup, ...); empty when all is well."""

    def prepare(self, spec: MachineSpec) -> None:
        """Define the machine, not running. A stopped or created machine with this key is replaced; a running one is an error."""

    def start(self, key: str) -> None:
        """Set a created machine running; returns when the hypervisor says that it runs (it may already have ended)."""

    def request_stop(self, key: str) -> bool:
        """Ask the workload to end (TERM, ACPI power button); at once; False when this workload cannot be asked."""

    def kill(self, key: str) -> None:
        """End the workload now (process group, whole VM). The stopped machine stays for state()."""

    def remove(self, key: str) -> None:
        """Forget the machine; a running one is killed first. Its logs stay: they are the caller's."""

    def state(self, key: str) -> Optional[MachineState]:
        """The machine now, or None when there is none."""

    def list(self) -> Iterable[MachineState]:
        """Every machine that Unifleet made on this host, whoever made it and when."""

    def watch(self, changed: Callable[[str], None]) -> AbstractContextManager[None]:
        """While entered, call changed(key), from any thread, when a machine's phase may have changed."""

    def raw_console(self, key: str, log_directory: Path) -> tuple[tuple[str, Path], ...]:
        """The files that the workload's output lands in: (("stdout", path), ("stderr", path)); a VM has stdout alone."""
