# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on disk of a container: its directory below the root directory, and what its processes say about how far it is.

    ROOT/ID/runu.json   written once before the machine is built and once after: the record
            control     the monitor's socket
            started     there from the moment at which the machine runs, in nanoseconds since 1970; written by the monitor
            paused      there while it is paused; written by the monitor
            exit        the exit code, written by the monitor when all is over

runc keeps its containers in ROOT/ID/state.json, so the two share a root directory and no id. Nothing here says "running": that follows
from the monitor's process being alive and from `started`, so that a crash at any moment leaves a truth behind.
"""

from __future__ import annotations

import os
import time

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

RECORD = "runu.json"
OCI_VERSION = "1.1.0"


class Record:
    """One container as it was made. values: the JSON object in runu.json.

    id, bundle, rootfs, created (RFC 3339), annotations, pid and birth (the monitor's process and its start time in clock ticks),
    vmm (the QEMU's pid), hooks, cgroups (directories), unit (systemd scope), netns, tap, link, log.
    """

    __slots__ = ("directory", "values")

    def __init__(self, directory: str, values: dict[str, Any]) -> None:
        self.directory = directory
        self.values = values

    @classmethod
    def read(cls, root: str, name: str) -> Optional[Record]:
        """The record of a container of ours, or None when there is none. Raises UnifleetError when it cannot be read."""
        directory = f"{root}/{name}"
        try:
            with open(f"{directory}/{RECORD}", "rb") as file:
                values = document.loads(file.read(), f"{directory}/{RECORD}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not isinstance(values, dict) or values.get("id") != name:
            raise UnifleetError(f"{directory}/{RECORD} is not the record of {name}", "remove it with runu delete --force")
        return cls(directory, values)

    def write(self) -> None:
        """Put the record on disk; whoever reads sees the old one or this one, also after a full disk."""
        path = f"{self.directory}/{RECORD}"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(document.dumps(self.values))
        os.rename(f"{path}.new", path)

    @property
    def pid(self) -> int:
        return int(self.values.get("pid", 0))

    def alive(self) -> bool:
        """Whether the monitor runs; a zombie does not, and neither does another process with its number."""
        return self.pid > 0 and birth(self.pid) == self.values.get("birth")

    def marked(self, name: str) -> bool:
        return os.path.exists(f"{self.directory}/{name}")

    def status(self) -> str:
        """creating, created, running, paused or stopped."""
        if self.pid == 0:
            return "creating" if self.values.get("creator") == birth(int(self.values.get("creator_pid", 0))) else "stopped"
        if not self.alive():
            return "stopped"
        if not self.marked("started"):
            return "created" if self.values.get("ready") else "creating"
        return "paused" if self.marked("paused") else "running"

    def state(self, status: Optional[str] = None) -> dict[str, Any]:
        """The state as runtime-spec's runtime.md has it, with runc's rootfs and created beside."""
        status = status or self.status()
        return {
            "ociVersion": OCI_VERSION,
            "id": self.values["id"],
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.values["bundle"],
            "rootfs": self.values["rootfs"],
            "created": self.values["created"],
            "annotations": self.values.get("annotations") or {},
            "owner": "",
        }


def birth(pid: int) -> Optional[int]:
    """The start time of a living process in clock ticks since boot; None for one that is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def now() -> str:
    """The time as RFC 3339."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09d}Z"
