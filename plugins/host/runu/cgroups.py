# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's control group: made where cgroupsPath says, limited as its resources say, holding monitor and QEMU, removed at the end.

Version 2 and version 1 (each controller its own tree), by hand (cgroupfs); scopes.py has the way through systemd. The memory limit is
raised by what QEMU itself may need, so that a guest that uses all of its memory is not killed for it; a RuntimeClass declares the same.
Sources: runtime-spec config-linux.md, runc's libcontainer/cgroups, systemd's CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import errno
import os
import time

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Optional

MOUNTED = "/sys/fs/cgroup"
PIDS_HEADROOM = 32
"""Threads that the monitor and QEMU may have beside what the container's own pids limit says, which speaks of processes in a guest."""
_BUSY_SECONDS = 2.0


class Tree:
    """The mounted hierarchies. unified: version 2. mounts: controller ("" for version 2, "name=systemd" ...) -> mount point."""

    __slots__ = ("mounts", "own", "unified")

    def __init__(self, unified: bool, mounts: Mapping[str, str], own: Mapping[str, str]) -> None:
        self.unified = unified
        self.mounts = mounts
        self.own = own

    @classmethod
    def found(cls) -> Tree:
        """What is mounted here and where this process is in it."""
        own: dict[str, str] = {}
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _number, controllers, path = line.rstrip("\n").split(":", 2)
                own.update(dict.fromkeys(controllers.split(","), path))
        if os.path.exists(f"{MOUNTED}/cgroup.controllers"):
            return cls(True, {"": MOUNTED}, own)
        mounts: dict[str, str] = {}
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _dash, right = line.partition(" - ")
                kind, _source, options = right.split(" ", 2)
                if kind == "cgroup":
                    where = left.split(" ")[4]
                    for controller in options.strip().split(","):
                        if controller in own:
                            mounts.setdefault(controller, where)
        return cls(False, mounts, own)

    def directories(self, path: str, name: str) -> list[str]:
        """The leaf's directories for a cgroupsPath: absolute from the mount points, relative (or none) below this process's own group."""
        wanted = os.path.normpath(path or name)
        if ".." in wanted.split("/") or wanted in ("/", "."):
            raise UnifleetError(f"cgroupsPath {path[:200]!r} is no group of a container", "name one below the root")
        found = []
        for controller, where in self.mounts.items():
            inner = wanted if wanted.startswith("/") else f"{self.own.get(controller, '/')}/{wanted}"
            directory = os.path.normpath(f"{where}/{inner}")
            if directory not in found:
                found.append(directory)
        return found


def make(tree: Tree, directories: list[str]) -> None:
    """Make the leaf, and what is above it where it is missing. Raises UnifleetError."""
    for directory in directories:
        mount = next(where for where in tree.mounts.values() if directory.startswith(where + "/"))
        parts = directory[len(mount) + 1 :].split("/")
        here = mount
        for part in parts:
            if tree.unified:
                _enable_controllers(here)
            above, here = here, f"{here}/{part}"
            try:
                os.mkdir(here, 0o755)
            except FileExistsError:
                pass
            except OSError as error:
                raise UnifleetError(f"control group {here} cannot be made: {error.strerror}", "see linux.cgroupsPath") from error
            if "cpuset" in tree.mounts and mount == tree.mounts["cpuset"]:
                _inherit_cpuset(above, here)


def _enable_controllers(directory: str) -> None:
    """As runc does: each controller by itself, and what is refused (domain with processes, not delegated) is left."""
    try:
        with open(f"{directory}/cgroup.controllers", encoding="utf-8") as file:
            offered = set(file.read().split())
        with open(f"{directory}/cgroup.subtree_control", encoding="utf-8") as file:
            offered -= set(file.read().split())
    except OSError:
        return
    for controller in sorted(offered & {"cpu", "cpuset", "memory", "pids", "io"}):
        _write(f"{directory}/cgroup.subtree_control", f"+{controller}", must=False)


def _inherit_cpuset(above: str, here: str) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        try:
            with open(f"{here}/{name}", encoding="utf-8") as file:
                if file.read().strip():
                    continue
            with open(f"{above}/{name}", encoding="utf-8") as file:
                _write(f"{here}/{name}", file.read().strip(), must=False)
        except OSError:
            continue


def enter(directories: list[str], pid: int) -> None:
    """Put a process into the leaf. Raises UnifleetError."""
    for directory in directories:
        _write(f"{directory}/cgroup.procs", str(pid))


def settings(resources: Mapping[str, Any], unified: bool, overhead: int) -> list[tuple[str, str]]:
    """The (file, value) pairs that LinuxResources ask for. overhead: bytes that are added to a memory limit. Raises UnifleetError."""
    memory, cpu, pids = (_table(resources, key) for key in ("memory", "cpu", "pids"))
    found: list[tuple[str, str]] = []
    limit, swap, soft = (_number(memory, key) for key in ("limit", "swap", "reservation"))
    shares, quota, period = (_number(cpu, key) for key in ("shares", "quota", "period"))
    limit = limit + overhead if limit and limit > 0 else limit
    if unified:
        if limit:
            found.append(("memory.max", str(limit) if limit > 0 else "max"))
            if limit > 0 and swap is not None and swap > 0:
                found.append(("memory.swap.max", str(max(0, swap + overhead - limit))))
        if soft and soft > 0:
            found.append(("memory.low", str(soft)))
        if shares:
            found.append(("cpu.weight", str(weight(shares))))
        if quota or period:
            found.append(("cpu.max", f"{quota if quota and quota > 0 else 'max'} {period or 100000}"))
    else:
        if limit:
            found.append(("memory.limit_in_bytes", str(limit)))
            if swap:
                found.append(("memory.memsw.limit_in_bytes", str(swap + overhead if swap > 0 else swap)))
        if soft and soft > 0:
            found.append(("memory.soft_limit_in_bytes", str(soft)))
        if shares:
            found.append(("cpu.shares", str(shares)))
        if period:
            found.append(("cpu.cfs_period_us", str(period)))
        if quota:
            found.append(("cpu.cfs_quota_us", str(quota)))
    for key, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        value = cpu.get(key)
        if value:
            if not isinstance(value, str) or any(c not in "0123456789,-" for c in value):
                raise UnifleetError(f"linux.resources.cpu.{key} is {value!r:.80}", "write a list such as 0-3,5")
            found.append((name, value))
    most = _number(pids, "limit")
    if most:
        found.append(("pids.max", str(most + PIDS_HEADROOM) if most > 0 else "max"))
    return found


def weight(shares: int) -> int:
    """Version 1's cpu.shares (2-262144) as version 2's cpu.weight (1-10000), as runc converts it."""
    return 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142


def _table(resources: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = resources.get(key) or {}
    if not isinstance(found, dict):
        raise UnifleetError(f"linux.resources.{key} is no object", "see the runtime-spec's config-linux.md")
    return found


def _number(table: Mapping[str, Any], key: str) -> Optional[int]:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 64:
        raise UnifleetError(f"linux.resources: {key} is {value!r:.80}", "a whole number is wanted")
    return value


def apply(directories: list[str], values: list[tuple[str, str]]) -> list[str]:
    """Write the settings where their files are. Returns those that no mounted controller takes. Raises UnifleetError."""
    missing = []
    pending = list(values)
    for attempt in (0, 1):  # in version 1 memory.limit may not pass memsw.limit on the way, so a refused one is tried once more
        refused = []
        for name, value in pending:
            place = next((f"{directory}/{name}" for directory in directories if os.path.exists(f"{directory}/{name}")), None)
            if place is None:
                missing.append(name)
                continue
            try:
                _write(place, value)
            except UnifleetError:
                if attempt:
                    raise
                refused.append((name, value))
        pending = refused
    return missing


def least_limit(directory: str) -> Optional[int]:
    """The smallest memory limit of the groups above a leaf, in bytes; None where there is none."""
    found: Optional[int] = None
    here = os.path.dirname(directory)
    while here.startswith(f"{MOUNTED}/"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                with open(f"{here}/{name}", encoding="utf-8") as file:
                    text = file.read().strip()
            except OSError:
                continue
            if text.isdigit() and int(text) < 1 << 60:
                found = int(text) if found is None else min(found, int(text))
        here = os.path.dirname(here)
    return found


def processes(directories: list[str]) -> list[int]:
    """The processes in the leaf."""
    found: list[int] = []
    for directory in directories:
        try:
            with open(f"{directory}/cgroup.procs", encoding="utf-8") as file:
                found += [int(line) for line in file if int(line) not in found]
        except OSError:
            continue
    return found


def remove(directories: list[str]) -> list[str]:
    """Remove the leaf, ending whatever is still in it. Returns the directories that could not be removed."""
    until = time.monotonic() + _BUSY_SECONDS
    left = list(directories)
    while left:
        for directory in list(left):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.ENOTEMPTY) and time.monotonic() < until:
                    for pid in processes([directory]):
                        try:
                            os.kill(pid, 9)
                        except ProcessLookupError:
                            continue
                    continue
                if time.monotonic() < until:
                    continue
                return left
            left.remove(directory)
        if left:
            time.sleep(0.01)
    return left


def _write(path: str, text: str, must: bool = True) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        if must:
            raise UnifleetError(f"{path} does not take {text!r}: {error.strerror}", "see linux.resources and linux.cgroupsPath") from error
