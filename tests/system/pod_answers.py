# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a worker, for bench_kubelet.py: when each pod first answers HTTP, and what the processes of all pods take.

Lines in:  `ask ADDRESS`, `memory`, `until-ended`. Lines out: `answer ADDRESS MONOTONIC_SECONDS`,
`memory {"COMMAND": [COUNT, PSS_IN_KIB], ...}`, `ended MONOTONIC_SECONDS` when nothing but pause is left in the pods' control groups.
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

TELLING = threading.Lock()
SECONDS = 120


def tell(line: str) -> None:
    with TELLING:
        print(line, flush=True)


def ask(address: str) -> None:
    """Until it answers."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://{address}/", timeout=1).read()
        except OSError:
            time.sleep(0.02)
        else:
            tell(f"answer {address} {time.monotonic()}")
            return


def memory() -> dict[str, list[int]]:
    """Command -> how many there are and their proportional share of memory, of all in the pods' control groups and of the shims."""
    found: dict[str, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            if name.startswith("containerd-shim") or "/kubepods" in (process / "cgroup").read_text():
                lines = (process / "smaps_rollup").read_text().splitlines()
                one = found.setdefault(name, [0, 0])
                one[0] += 1
                one[1] += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return found


def ended() -> float:
    """Wait for the end of what the pods ran; when it was."""
    while not all(map(is_pause, Path("/proc").glob("[0-9]*"))):
        time.sleep(0.1)
    return time.monotonic()


def is_pause(process: Path) -> bool:
    """Whether it is a pod's pause, or none of a pod's."""
    try:
        return "/kubepods" not in (process / "cgroup").read_text() or (process / "comm").read_text() == "pause\n"
    except OSError:
        return True


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in sys.stdin:
        words = line.split()
        if words[0] == "ask":
            pool.submit(ask, words[1])
        elif words[0] == "memory":
            tell(f"memory {json.dumps(memory())}")
        else:
            tell(f"ended {ended()}")
