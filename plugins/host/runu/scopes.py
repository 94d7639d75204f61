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
_INFINITY = (1 << 64) - 1
_PROCESSORS_MOST = 8192
"""What Linux can be built for."""
_LIMITS = (
    ("memory.max", "MemoryMax"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.low", "MemoryLow"),
    ("memory.limit_in_bytes", "MemoryLimit"),
    ("pids.max", "TasksMax"),
)


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
    """What systemd is told of the limits, for it writes them again whenever it likes. Raises UnifleetError for what is no limit."""
    found: list[tuple[str, tuple[str, Any]]] = []
    values = dict(cgroups.settings(resources, unified, overhead))
    for file, key in _LIMITS:
        value = values.get(file)
        if value is not None:
            found.append((key, ("t", min(int(value), _INFINITY) if value.isdigit() else _INFINITY)))
    if "cpu.weight" in values:
        found.append(("CPUWeight", ("t", int(values["cpu.weight"]))))
    if "cpu.shares" in values:
        found.append(("CPUShares", ("t", min(max(int(values["cpu.shares"]), 2), 262144))))
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota:
        micro = -(-quota * 1000000 // (period if period > 0 else 100000))
        found.append(("CPUQuotaPerSecUSec", ("t", min(-(-micro // 10000) * 10000, _INFINITY) if quota > 0 else _INFINITY)))
    if period > 0:
        found.append(("CPUQuotaPeriodUSec", ("t", period)))
    if unified:
        for file, key in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
            if file in values:
                found.append((key, ("ay", _bits(file[len("cpuset.") :], values[file]))))
    return found


def _bits(what: str, text: str) -> bytes:
    """A list such as "0-2,9" as systemd takes it: bit n of byte n/8."""
    bits = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or not int(first) <= int(last or first) < _PROCESSORS_MOST:
            raise UnifleetError(f"linux.resources.cpu.{what} is {text[:80]!r}", "write a list such as 0-3,5")
        for number in range(int(first), int(last or first) + 1):
            bits |= 1 << number
    return bits.to_bytes(bits.bit_length() // 8 + 1, "little").rstrip(b"\0")


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
        ("CollectMode", ("s", "inactive-or-failed")),
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
