# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep one lab host running: join its control groups, lay its cable, boot it, boot it again when it reboots.

Started detached by the module lab_host, it outlives Ansible. It needs nothing but the standard library. Its one argument is
a JSON file with: cgroups (directories to join), unified (where control groups of version 2 are mounted, if the host sees
those), before (commands run ahead of every boot, of which those that begin with "-" may fail), command and environment (what
boots the host), reboot_status (the exit status that asks for another boot), console (file that takes all output) and
pid_file (gets "PID START"; START as in proc(5) stat, so that a reused PID is told apart).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Group:
    """The supervisor's own control group of version 2, split so that the host can have controllers.

    Version 2 passes controllers on only from a group without processes (cgroups(7), "no internal processes"): the supervisor
    moves to one leaf, and every boot gets another, fresh, since a host leaves its group with controllers passed on.
    """

    def __init__(self, mount: str) -> None:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
        self.directory = Path(mount + own)
        keeper = self.directory / "supervisor"
        keeper.mkdir(exist_ok=True)
        (keeper / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        for controller in (self.directory / "cgroup.controllers").read_text(encoding="ascii").split():
            (self.directory / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")

    def fresh(self) -> Path:
        """A new group for a boot; the last boot's goes, once the last of its processes has."""
        host = self.directory / "host"
        for _attempt in range(100):
            try:
                for directory, _below, _files in os.walk(host, topdown=False):
                    Path(directory).rmdir()
                break
            except OSError:
                time.sleep(0.05)
        host.mkdir()
        return host


def main() -> int:
    run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    console = os.open(run["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, target in ((nothing, 0), (console, 1), (console, 2)):
        os.dup2(stream, target)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for joined in run["cgroups"]:
        (Path(joined) / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    start = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    pid_file = Path(run["pid_file"])
    beside = pid_file.with_suffix(".new")
    beside.write_text(f"{os.getpid()} {start}\n", encoding="ascii")
    beside.replace(pid_file)
    environment = {**os.environ, **run["environment"]}
    group = Group(run["unified"]) if run["unified"] else None
    status = run["reboot_status"]
    while status == run["reboot_status"]:
        for command in run["before"]:
            may_fail = command[0] == "-"
            words = command[1:] if may_fail else command
            done = subprocess.run(words, check=False, stderr=subprocess.DEVNULL if may_fail else None)
            if done.returncode != 0 and not may_fail:
                os.write(2, f"supervise: {' '.join(words)}: exit status {done.returncode}\n".encode())
                return 1
        words = run["command"]
        if group is not None:
            words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.fresh() / "cgroup.procs"), *words]
        status = subprocess.run(words, check=False, env=environment).returncode
    os.write(2, f"supervise: the host is off (exit status {status})\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
