# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process as a systemd unit: which properties say what a machine's specification says, and what a unit's properties say of the machine.

All of it is pure: process.py talks to systemd. Property names and types: org.freedesktop.systemd1(5), systemd.exec(5),
systemd.resource-control(5).
"""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, MachineSpec, MachineState, Mount, Phase, Program
from ansible_collections.unifleet.hybrid.plugins.host.machines.process_root import DEFAULT_PATH, Bind, user_and_group
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

Properties = list[tuple[str, tuple[str, Any]]]

PREFIX = "unifleet-"
SLICE = "unifleet.slice"
METADATA_FIELD = b"UNIFLEET_METADATA="
_MS_REC = 16384
_RUNNING = {"active", "activating", "reloading", "deactivating", "refreshing"}
_CODE_EXITED, _CODE_KILLED, _CODE_DUMPED = 1, 2, 3
_OWN_VARIABLES = ("PATH", "LANG", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM", "TMPDIR", "USER", "LOGNAME", "SHELL", "HOME")
_NOT_STARTED = {
    200: "its working directory is not in the image",
    203: "it cannot be executed (not an executable for this architecture, or its interpreter is missing from the image)",
    209: "its log file cannot be opened",
    226: "its file system cannot be put together (a mount's source is missing, or the host forbids mounts)",
    217: "its user is not known",
    228: "the host cannot filter system calls",
}


@dataclass(frozen=True)
class Isolation:
    """One property that keeps a process to itself, and what is missing on a host that cannot have it."""

    name: str
    signature: str
    value: Any
    loss: str


ISOLATION = (
    Isolation("DynamicUser", "b", True, "run processes under users of their own"),
    Isolation("NoNewPrivileges", "b", True, "keep processes from gaining privileges"),
    Isolation("CapabilityBoundingSet", "t", 0, "take capabilities from processes"),
    Isolation("ProtectSystem", "s", "strict", "make a process's root read-only"),
    Isolation("TemporaryFileSystem", "a(ss)", [("/tmp", "mode=1777,size=64M,nosuid,nodev")], "give processes a /tmp of their own"),  # noqa: S108
    Isolation("PrivateDevices", "b", True, "hide devices from processes"),
    Isolation("ProtectKernelTunables", "b", True, "keep processes from kernel settings"),
    Isolation("ProtectKernelModules", "b", True, "keep processes from loading kernel modules"),
    Isolation("ProtectKernelLogs", "b", True, "keep processes from the kernel log"),
    Isolation("ProtectControlGroups", "b", True, "keep processes from control groups"),
    Isolation("ProtectClock", "b", True, "keep processes from the clock"),
    Isolation("ProtectHostname", "b", True, "keep processes from the host name"),
    Isolation("ProtectProc", "s", "invisible", "hide other processes"),
    Isolation("RestrictNamespaces", "t", 0, "keep processes from making namespaces"),
    Isolation("RestrictSUIDSGID", "b", True, "keep processes from making set-user-ID files"),
    Isolation("RestrictRealtime", "b", True, "keep processes from realtime scheduling"),
    Isolation("LockPersonality", "b", True, "lock the execution domain of processes"),
    Isolation("RestrictAddressFamilies", "(bas)", (True, ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]), "restrict socket families"),
    Isolation("SystemCallArchitectures", "as", ["native"], "restrict processes to the native system calls"),
    Isolation("SystemCallFilter", "(bas)", (True, ["@system-service"]), "filter system calls"),
)


def unit_name(key: str) -> str:
    """The unit of a machine."""
    return f"{PREFIX}{key}.service"


def key_of_unit(unit: str) -> Optional[str]:
    """The machine of a unit, or None for a unit that is not a machine's."""
    return unit[len(PREFIX) : -len(".service")] if unit.startswith(PREFIX) and unit.endswith(".service") else None


def to_record(spec: MachineSpec) -> dict[str, Any]:
    """What is kept of a prepared machine, as JSON knows it. Raises UnifleetError when the spec is not a process's."""
    program = spec.boot
    if not isinstance(program, Program):
        raise UnifleetError(f"{spec.title}: the process provider runs programs, not kernels", "use an image with a program for this host")
    for mount in spec.mounts:
        if ":" in mount.target or not mount.target.startswith("/"):
            raise UnifleetError(f"{spec.title}: {mount.target!r} cannot be a mount path", "use an absolute path without a colon")
    for name, value in program.env:
        if "\0" in name + value or "=" in name or not name:
            raise UnifleetError(f"{spec.title}: environment variable {name!r} cannot be set", "use a name without = and no NUL bytes")
    return {
        "version": 1,
        "key": spec.key,
        "title": spec.title,
        "metadata": dict(spec.metadata),
        "root": str(program.root),
        "argv": list(program.argv),
        "env": [list(pair) for pair in program.env],
        "cwd": program.cwd or "/",
        "user": program.user,
        "log_directory": str(spec.log_directory),
        "memory_bytes": spec.memory_bytes,
        "cpu_millis": spec.cpu_millis,
        "mounts": [[str(mount.source), mount.target, mount.read_only] for mount in spec.mounts],
        "started": None,
    }


def host_mounts(mounts: Iterable[Mount]) -> list[Mount]:
    """The host's name service files, for a process shares the host's network; a mount of the pod's own wins."""
    taken = {mount.target for mount in mounts}
    files = ("/etc/resolv.conf", "/etc/hosts")
    return [Mount(Path(file), file) for file in files if file not in taken and Path(file).is_file()]


def properties(
    record: Mapping[str, Any],
    *,
    program: str,
    root: Path,
    binds: Iterable[Bind],
    mounts: Iterable[Mount],
    isolation: Iterable[Isolation],
    console: Mapping[str, Path],
    controllers: frozenset[str],
) -> Properties:
    """The transient unit. mounts: with resolved targets."""
    env = dict(tuple(pair) for pair in record["env"])
    env.setdefault("PATH", DEFAULT_PATH)
    metadata = base64.urlsafe_b64encode(json.dumps(record["metadata"], sort_keys=True).encode())  # quoting is lost at a re-execution
    user, group = user_and_group(Path(record["root"]), record["user"])
    made: Properties = [
        ("Description", ("s", "Unifleet: " + _printable(record["title"]))),
        ("Type", ("s", "exec")),
        ("RemainAfterExit", ("b", True)),
        ("CollectMode", ("s", "inactive")),
        ("Slice", ("s", SLICE)),
        ("KillMode", ("s", "control-group")),
        ("TimeoutStopUSec", ("t", 10_000_000)),
        ("StartLimitIntervalUSec", ("t", 0)),
        ("LogExtraFields", ("aay", [METADATA_FIELD + metadata])),
        # Not ExecStartEx with no-env-expand: systemd 252 writes it down in a way that it cannot read again at a daemon-reload.
        ("ExecStart", ("a(sasb)", [(program, [word.replace("$", "$$") for word in record["argv"]], False)])),
        ("WorkingDirectory", ("s", record["cwd"])),
        ("Environment", ("as", [f"{name}={value}" for name, value in env.items()])),
        ("UnsetEnvironment", ("as", [name for name in _OWN_VARIABLES if name not in env])),
        ("RootDirectory", ("s", str(root))),
        ("MountAPIVFS", ("b", True)),
        ("StandardInput", ("s", "null")),
        ("StandardOutputFileToAppend", ("s", str(console["stdout"]))),
        ("StandardErrorFileToAppend", ("s", str(console["stderr"]))),
    ]
    shown = [(str(bind.source), bind.target, True) for bind in binds]
    shown += [(str(mount.source), mount.target, mount.read_only) for mount in mounts]
    for name, read_only in (("BindReadOnlyPaths", True), ("BindPaths", False)):
        paths = [(source, target, False, _MS_REC) for source, target, wanted in shown if wanted is read_only]
        if paths:  # an empty list would take back what the other name has set
            made.append((name, ("a(ssbt)", paths)))
    made += [(item.name, (item.signature, item.value)) for item in isolation if item.name != "DynamicUser" or not user]
    if user:
        made += [("User", ("s", user)), ("Group", ("s", group))]
    if "memory" in controllers and record["memory_bytes"]:
        made += [("MemoryMax", ("t", record["memory_bytes"])), ("MemorySwapMax", ("t", 0)), ("OOMPolicy", ("s", "kill"))]
    if "cpu" in controllers and record["cpu_millis"]:
        made.append(("CPUQuotaPerSecUSec", ("t", record["cpu_millis"] * 1000)))
    if "pids" in controllers:
        made.append(("TasksMax", ("t", 1024)))
    return made


def state_of_unit(key: str, metadata: Mapping[str, str], record: Optional[Mapping[str, Any]], unit: Mapping[str, Any]) -> MachineState:
    """The machine that a loaded unit is.

    unit: ActiveState, SubState, Result, ExecMainCode, ExecMainStatus, ExecMainStartTimestamp, ExecMainExitTimestamp (microseconds).
    """
    started_at = unit["ExecMainStartTimestamp"] / 1e6 or None
    ended = unit["ExecMainExitTimestamp"] / 1e6
    active, sub = unit["ActiveState"], unit["SubState"]
    if active in _RUNNING and sub != "exited":
        return MachineState(key, Phase.RUNNING, metadata, started_at)
    code, status = unit["ExecMainCode"], unit["ExecMainStatus"]
    never_ran = record is not None and record.get("started") != "yes" and code == _CODE_EXITED and 200 <= status <= 243
    if never_ran or not code:
        message = _NOT_STARTED.get(status, f"systemd says {unit['Result']}, status {status}")
        return MachineState(
            key, Phase.STOPPED, metadata, started_at, Exit(128, "StartError", ended, f"the program did not start: {message}")
        )
    if code == _CODE_EXITED:
        end = Exit(status & 0xFF, "Error" if status else "Completed", ended)
    elif unit["Result"] == "oom-kill":
        end = Exit(128 + status, "OOMKilled", ended, "the process used more memory than its limit")
    else:
        end = Exit(128 + status, "Error", ended, f"ended by signal {_signal_name(status)}")
    return MachineState(key, Phase.STOPPED, metadata, started_at, end)


def metadata_of_unit(fields: Iterable[bytes]) -> dict[str, str]:
    """The machine's metadata as the unit carries it; empty for a unit that carries none."""
    for field in fields:
        if bytes(field).startswith(METADATA_FIELD):
            with contextlib.suppress(ValueError):
                loaded = json.loads(base64.urlsafe_b64decode(bytes(field)[len(METADATA_FIELD) :]))
                return {str(name): str(value) for name, value in loaded.items()}
    return {}


def leaves_children(unit: Mapping[str, Any]) -> bool:
    """Whether the first process has ended and systemd lets others live: for ever, or while it asks them politely."""
    return bool(unit["ExecMainCode"]) and unit["SubState"] in ("exited", "stop-sigterm", "final-sigterm")


def controllers_of_process(cgroup: str) -> frozenset[str]:
    """The version 1 controllers in which a unit's process has a group of its own; cgroup: its /proc/self/cgroup."""
    found: set[str] = set()
    for line in cgroup.splitlines():
        names, _separator, path = line.partition(":")[2].partition(":")
        if path.rstrip("/").endswith(".service"):
            found.update(names.split(","))
    return frozenset(found)


def is_directory(path: Path) -> bool:
    """Whether a mount's source is a directory. Raises UnifleetError when it is not there."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise UnifleetError(f"the mount's source {path} is not there: {error.strerror}", "make it before the container starts") from error


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
