# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that nobody waits for: ps, list, exec (which says at once that it cannot), update, events, features, help and the like."""

from __future__ import annotations

import os
import sys

from ansible_collections.unifleet.hybrid.plugins.host.runu import cgroups, document
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import RECORD, Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command
    from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log

VERSION = "0.1.0"
SPEC = "1.1.0"
USAGE = {
    "create": "create [--bundle DIR] [--pid-file FILE] [--console-socket SOCKET] ID [DIR]   build the machine of a bundle, paused",
    "start": "start ID                                  let it run",
    "state": "state ID                                  say how it is, as JSON",
    "kill": "kill [--all] ID [SIGNAL]                  TERM, INT, QUIT ask the guest; KILL ends the machine; STOP, CONT pause and resume",
    "delete": "delete [--force] ID                       take all of it away",
    "list": "list [--format table|json] [--quiet]      containers, runc's too",
    "ps": "ps [--format table|json] ID               the host's processes: the monitor and QEMU",
    "pause": "pause ID",
    "resume": "resume ID",
    "update": "update [--resources FILE|-] [--memory N] [--cpu-quota N] ... ID   change limits",
    "exec": "exec ID COMMAND                           refused: a unikernel has no second program",
    "events": "events --stats ID                         resource use, as JSON",
    "spec": "spec [--bundle DIR] [--kernel FILE] [--family NAME] [--initrd FILE] [--memory 64Mi] [--arg A] [--env N=V] [UNIKERNEL.JSON]",
    "run": "run [--detach] [--bundle DIR] ID          create, start, and wait for the end",
    "features": "features                                  what this runtime can do, as JSON",
    "probe": "probe                                     find out again what this node runs machines with",
    "version": "version",
    "help": "help [COMMAND]",
}


def run(command: Command, argv: Sequence[str], log: Log) -> int:
    """A command that concerns no container of ours, or many."""
    name = command.name
    if name == "version":
        sys.stdout.write(f"runu version {VERSION}\nspec: {SPEC}\n")
    elif name == "help":
        _help(command.operands[0] if command.operands else "")
    elif name == "features":
        sys.stdout.write(document.dumps(features()) + "\n")
    elif name == "list":
        _list(command)
    elif name == "probe":
        from ansible_collections.unifleet.hybrid.plugins.host.runu import config, node

        found = node.hardware(config.read(), fresh=True)
        sys.stdout.write(f"{found.program} {found.machine} accel={found.accelerator} cpu={found.cpu}\n")
    elif name == "spec":
        from ansible_collections.unifleet.hybrid.plugins.host.runu import specification

        specification.command(command)
    elif name == "run":
        from ansible_collections.unifleet.hybrid.plugins.host.runu import foreground

        return foreground.run(command, argv, log)
    else:
        raise UnifleetError(f"runu cannot {name}: a machine's state is not saved", "run the image anew")
    return 0


def on_container(command: Command, record: Record, log: Log) -> int:
    """A command that concerns one container of ours."""
    name = command.name
    if name == "state":
        sys.stdout.write(document.dumps(record.state()) + "\n")
    elif name == "ps":
        _ps(command, record)
    elif name == "update":
        _update(command, record, log)
    elif name == "events":
        sys.stdout.write(document.dumps({"type": "stats", "id": record.values["id"], "data": _stats(record)}) + "\n")
    elif name == "exec":
        raise UnifleetError(
            f"container {record.values['id']} is a unikernel: one program is all there is in it, so nothing else can be executed",
            "use httpGet or tcpSocket probes, kubectl logs, or a sidecar container",
        )
    else:
        raise UnifleetError(f"runu cannot {name} container {record.values['id']}: a unikernel's state is not saved", "run the image anew")
    return 0


def _help(name: str) -> None:
    if name and name not in USAGE:
        raise UnifleetError(f"there is no command {name[:100]!r}", "see runu help")
    lines = [USAGE[name]] if name else list(USAGE.values())
    sys.stdout.write("runu [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] [--debug] COMMAND\n\n")
    sys.stdout.write("".join(f"  {line}\n" for line in lines))
    if not name:
        sys.stdout.write(
            "\nContainers that are no unikernels are runc's: the same arguments go to it. Configuration: /etc/unifleet/runu.json\n"
        )


def features() -> dict[str, Any]:
    """runtime-spec features.md. Absent is not the same as empty: what is empty here is known and not supported."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [],
        "linux": {
            "namespaces": ["network"],
            "capabilities": [],
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": False},
            "seccomp": {"enabled": False},
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"io.unifleet.runu.version": VERSION, "io.unifleet.runu.hypervisors": "kvm,tcg"},
        "potentiallyUnsafeConfigAnnotations": ["io.unifleet."],
    }


def _list(command: Command) -> None:
    found = []
    for name in sorted(os.listdir(command.root)) if os.path.isdir(command.root) else []:
        if not os.path.exists(f"{command.root}/{name}/{RECORD}"):
            continue
        try:
            record = Record.read(command.root, name)
        except UnifleetError as error:
            sys.stderr.write(f"runu: {error}\n")
            continue
        if record is not None:
            found.append(record.state())
    found += _runcs(command, {entry["id"] for entry in found})
    shape = command.options.get("format", "table")
    if command.flag("quiet"):
        sys.stdout.write("".join(f"{entry['id']}\n" for entry in found))
    elif shape == "json":
        sys.stdout.write(document.dumps(found) + "\n")
    elif shape == "table":
        rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [tuple(str(entry.get(key) or "") for key in ("id", "pid", "status", "bundle", "created", "owner")) for entry in found]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        sys.stdout.write("".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows))
    else:
        raise UnifleetError(f"there is no format {shape[:40]!r}", "use table or json")


def _runcs(command: Command, ours: set[str]) -> list[dict[str, Any]]:
    """What runc keeps in the same root directory; nothing where runc is not installed."""
    import subprocess

    from ansible_collections.unifleet.hybrid.plugins.host.runu import config

    argv = [config.read().runc, *(["--root", command.globals["root"]] if "root" in command.globals else []), "list", "--format", "json"]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        entries = document.loads(done.stdout, "runc's list") if done.returncode == 0 else []
    except (OSError, UnifleetError):
        return []
    return [entry for entry in entries or [] if isinstance(entry, dict) and entry.get("id") not in ours]


def _ps(command: Command, record: Record) -> None:
    if record.status() == "stopped":
        raise UnifleetError(f"container {record.values['id']} is stopped: container not running")
    pids = sorted(set(cgroups.processes(list(record.values["cgroups"]))) | {record.pid})
    shape = command.options.get("format", "table")
    if shape == "json":
        sys.stdout.write(document.dumps(pids) + "\n")
    elif shape == "table":
        lines = ["PID  COMMAND"]
        for pid in pids:
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    lines.append(f"{pid}  {file.read().strip()}")
            except OSError:
                continue
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        raise UnifleetError(f"there is no format {shape[:40]!r}", "use table or json")


def _update(command: Command, record: Record, log: Log) -> None:
    """LinuxResources from a file, stdin or options; the guest's own memory stays as it booted, so no limit goes below that."""
    if record.status() == "stopped":
        raise UnifleetError(f"container {record.values['id']} is stopped: container not running")
    resources = _resources(command)
    limit = (resources.get("memory") or {}).get("limit") or 0
    memory, overhead = int(record.values.get("memory", 0)), int(record.values.get("overhead", 0))
    if isinstance(limit, int) and 0 < limit < memory:
        raise UnifleetError(
            f"the guest booted with {memory} bytes of memory, and a limit of {limit} would have it killed",
            "recreate the pod with another limit",
        )
    directories = list(record.values["cgroups"])
    values = cgroups.settings(resources, cgroups.Tree.found().unified, overhead)
    if record.values.get("unit"):
        from ansible_collections.unifleet.hybrid.plugins.host.runu import scopes

        scopes.update(str(record.values["unit"]), resources, overhead)
    for name in cgroups.apply(directories, values):
        log.write("warning", f"{name} is not enforced: no controller for it is mounted")


def _resources(command: Command) -> dict[str, Any]:
    source = command.options.get("resources", "")
    if source:
        if source == "-":
            text = sys.stdin.buffer.read(1 << 20)
        else:
            with open(source, "rb") as file:
                text = file.read(1 << 20)
        found = document.loads(text, "--resources")
        if not isinstance(found, dict):
            raise UnifleetError("--resources is not a JSON object", "give it the runtime-spec's linux.resources")
        return found
    resources: dict[str, dict[str, Any]] = {"memory": {}, "cpu": {}, "pids": {}}
    names = {
        "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"), "memory-swap": ("memory", "swap"),
        "cpu-quota": ("cpu", "quota"), "cpu-period": ("cpu", "period"), "cpu-share": ("cpu", "shares"), "pids-limit": ("pids", "limit"),
    }  # fmt: skip
    for key, value in command.options.items():
        if key in names:
            table, field = names[key]
            try:
                resources[table][field] = int(value)
            except ValueError:
                raise UnifleetError(f"--{key} is {value[:40]!r}", "write a whole number") from None
        elif key in ("cpuset-cpus", "cpuset-mems"):
            resources["cpu"][key[7:]] = value
        else:
            raise UnifleetError(f"--{key} means nothing to a machine", "see runu help update")
    return dict(resources)


def _stats(record: Record) -> dict[str, Any]:
    """The leaf's use of memory and processors, as far as its controllers tell."""
    found: dict[str, Any] = {"cpu": {"usage": {}}, "memory": {"usage": {}}, "pids": {}}
    files = {
        "memory.current": ("memory", 1), "memory.usage_in_bytes": ("memory", 1), "cpuacct.usage": ("cpu", 1), "pids.current": ("pids", 1),
    }  # fmt: skip
    for directory in record.values["cgroups"]:
        for name, (table, factor) in files.items():
            try:
                with open(f"{directory}/{name}", encoding="ascii") as file:
                    value = int(file.read()) * factor
            except (OSError, ValueError):
                continue
            if table == "pids":
                found["pids"]["current"] = value
            else:
                found[table]["usage"]["total" if table == "cpu" else "usage"] = value
        try:
            with open(f"{directory}/cpu.stat", encoding="ascii") as file:
                for line in file:
                    key, _space, value_text = line.partition(" ")
                    if key == "usage_usec":
                        found["cpu"]["usage"]["total"] = int(value_text) * 1000
        except OSError:
            continue
    return found
