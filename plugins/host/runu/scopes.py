# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's control group where systemd owns the tree (--systemd-cgroup): a transient scope, as runc makes it.

cgroupsPath is "SLICE:PREFIX:NAME" then. Sources: runc's libcontainer/cgroups/systemd, systemd's org.freedesktop.systemd1(5) and
CGROUP_DELEGATION.md. jeepney speaks D-Bus; it is found where Debian puts it, as this interpreter runs without site-packages.
"""

from __future__ import annotations

import sys
import time

from ansible_collections.unifleet.hybrid.plugins.host.runu import cgroups
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SECONDS = 20.0
_PACKAGES = "/usr/lib/python3/dist-packages"
_SETS = "a(sv)"


def parts(path: str, container: str) -> tuple[str, str]:
    """(slice, unit) of a cgroupsPath. Raises UnifleetError for one that is not systemd's."""
    words = (path or f"system.slice:runu:{container}").split(":")
    if len(words) != 3 or not words[2] or any("/" in word or word.startswith(".") for word in words):
        raise UnifleetError(f"linux.cgroupsPath {path[:200]!r} is not SLICE:PREFIX:NAME", "with --systemd-cgroup it has this form")
    where, prefix, name = words
    where = where or "system.slice"
    if not where.endswith(".slice"):
        raise UnifleetError(f"linux.cgroupsPath {path[:200]!r} names no slice", "a slice's name ends with .slice")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return where, unit


def slice_path(name: str) -> str:
    """a-b.slice is in a.slice: "a.slice/a-b.slice"; -.slice is the root."""
    if name == "-.slice":
        return ""
    words = name[: -len(".slice")].split("-")
    if not all(words):
        raise UnifleetError(f"{name[:200]!r} is no name of a slice", "its parts are not empty")
    return "/".join("-".join(words[:depth]) + ".slice" for depth in range(1, len(words) + 1))


def leaf(path: str, container: str) -> tuple[str, list[str]]:
    """(unit, directories) of a container's scope."""
    where, unit = parts(path, container)
    return unit, cgroups.Tree.found().directories(f"/{slice_path(where)}/{unit}".replace("//", "/"), container)


def properties(resources: Mapping[str, Any], unified: bool, overhead: int) -> list[tuple[str, tuple[str, Any]]]:
    """What systemd is told of the limits, so that it does not undo them when it is reloaded."""
    found: list[tuple[str, tuple[str, Any]]] = []
    values = dict(cgroups.settings(resources, unified, overhead))
    limit = values.get("memory.max" if unified else "memory.limit_in_bytes")
    if limit and limit.isdigit():
        found.append(("MemoryMax" if unified else "MemoryLimit", ("t", int(limit))))
    for name, key in (("cpu.weight", "CPUWeight"), ("cpu.shares", "CPUShares")):
        if name in values:
            found.append((key, ("t", int(values[name]))))
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 100000
    if quota > 0 and period > 0:
        micro = -(-quota * 1000000 // period)
        found.append(("CPUQuotaPerSecUSec", ("t", -(-micro // 10000) * 10000)))
    most = values.get("pids.max", "")
    if most.isdigit():
        found.append(("TasksMax", ("t", int(most))))
    return found


def start(unit: str, path: str, pid: int, resources: Mapping[str, Any], overhead: int) -> None:
    """Make the scope with the process in it, and return when the process is there. Raises UnifleetError."""
    tree = cgroups.Tree.found()
    where, _unit = parts(path, unit)
    wanted: list[tuple[str, tuple[str, Any]]] = [
        ("Description", ("s", f"unikernel {unit}")),
        ("Slice", ("s", where)),
        ("Delegate", ("b", True)),
        ("MemoryAccounting", ("b", True)),
        ("CPUAccounting", ("b", True)),
        ("TasksAccounting", ("b", True)),
        ("DefaultDependencies", ("b", False)),
        ("PIDs", ("au", [pid])),
        *properties(resources, tree.unified, overhead),
    ]
    _call("StartTransientUnit", f"ss{_SETS}a(s{_SETS})", (unit, "replace", wanted, []))
    until = time.monotonic() + SECONDS
    while not _is_in(pid, unit):
        if time.monotonic() > until:
            raise UnifleetError(
                f"systemd did not put process {pid} into {unit} within {SECONDS:.0f} s", "see systemctl status and the journal"
            )
        time.sleep(0.001)
    directories = tree.directories(f"/{slice_path(where)}/{unit}".replace("//", "/"), unit)
    cgroups.make(tree, directories)
    if not tree.unified:
        cgroups.enter(directories, pid)


def update(unit: str, resources: Mapping[str, Any], overhead: int) -> None:
    """Tell systemd of other limits."""
    wanted = properties(resources, cgroups.Tree.found().unified, overhead)
    if wanted:
        _call("SetUnitProperties", f"sb{_SETS}", (unit, True, wanted))


def stop(unit: str) -> None:
    """End the scope. One that ended by itself, with its last process, is no error."""
    try:
        _call("StopUnit", "ss", (unit, "replace"))
        _call("ResetFailedUnit", "s", (unit,))
    except UnifleetError:
        return


def _is_in(pid: int, unit: str) -> bool:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            return any(line.rstrip("\n").endswith(f"/{unit}") for line in file if ":name=systemd:" in line or line.startswith("0::"))
    except OSError as error:
        raise UnifleetError(f"process {pid} ended before systemd took it", "see the kernel's log") from error


def _call(method: str, signature: str, body: tuple[Any, ...]) -> None:
    if _PACKAGES not in sys.path:
        sys.path.append(_PACKAGES)
    try:
        from jeepney import DBusAddress, DBusErrorResponse, new_method_call
        from jeepney.io.blocking import open_dbus_connection
    except ImportError as error:
        raise UnifleetError(f"--systemd-cgroup needs jeepney: {error}", "install python3-jeepney") from error
    address = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
    try:
        with open_dbus_connection("SYSTEM") as connection:
            reply = connection.send_and_get_reply(new_method_call(address, method, signature, body), timeout=SECONDS)
        if reply.header.message_type.name == "error":
            raise DBusErrorResponse(reply)
    except (OSError, DBusErrorResponse, TimeoutError) as error:
        raise UnifleetError(f"systemd's {method} of {body[0]} failed: {error}", "see the journal, or turn SystemdCgroup off") from error
