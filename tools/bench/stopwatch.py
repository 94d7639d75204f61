# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the time of one start: to the first whole line on the console, to the first answer over HTTP, and the memory then.

The guest begins to listen before it prints its first line, so asking begins at that line; nothing is asked of a network that is not
there yet, whose retries would be measured in its place. Standard library and Python 3.9: this also runs on hosts.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

GLANCE_SECONDS = 0.001
"""How often the console is looked at: no time here is more exact than that."""
PATIENCE_SECONDS = 30.0
_UPTIME = re.compile(r"\buptime=([0-9.]+)")


class TooLateError(Exception):
    """What was waited for did not come."""


@dataclass(frozen=True)
class Timing:
    """Seconds since the start. guest: the guest's own uptime in that line. rss, pss: bytes of resident memory of the process that carries
    it, pss with shared pages divided among those who share. called: until whoever was told to start it came back (0 for a bare exec)."""

    first_line: float
    first_answer: float
    guest: Optional[float]
    rss: int
    pss: int
    called: float = 0.0


def timing(started: float, console: Path, address: tuple[str, int], pid_of: Callable[[], int]) -> Timing:
    """Follow one start. started: time.monotonic() before it. pid_of: finds the process id, once it runs. Raises TooLateError."""
    line, text = first_line(console, started)
    answer = first_answer(address, started)
    rss, pss = memory(pid_of())
    return Timing(line, answer, uptime_in(text), rss, pss)


def uptime_in(line: str) -> Optional[float]:
    """What a reading says of the guest's uptime, in seconds."""
    found = _UPTIME.search(line)
    return float(found[1]) if found else None


def first_line(console: Path, started: float) -> tuple[float, str]:
    """When the console had its first whole line, and the line."""
    for _glance in _glances(started, f"a line in {console}"):
        text = console.read_text(errors="replace") if console.exists() else ""
        if "\n" in text:
            return time.monotonic() - started, text.partition("\n")[0]
    raise AssertionError


def first_answer(address: tuple[str, int], started: float) -> float:
    """When GET / was answered with 200. A try is given up soon, for one that comes too early waits long for its second packet."""
    wait = 0.05
    for _glance in _glances(started, f"an answer from {address[0]}:{address[1]}"):
        with closing(http.client.HTTPConnection(*address, timeout=wait)) as connection:
            try:
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return time.monotonic() - started
            except OSError:
                wait = min(wait * 1.5, 1.0)
    raise AssertionError


def _glances(started: float, what: str) -> Iterator[None]:
    while time.monotonic() - started < PATIENCE_SECONDS:
        yield
        time.sleep(GLANCE_SECONDS)
    raise TooLateError(f"waited {PATIENCE_SECONDS:.0f} s for {what}")


def memory(pid: int) -> tuple[int, int]:
    """(RSS, PSS) of a process in bytes. Needs to be its owner or root."""
    return memory_in(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))


def memory_in(rollup: str) -> tuple[int, int]:
    """What smaps_rollup says (proc(5)): lines such as "Pss:  1024 kB"."""
    fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    return int(fields["Rss"].split()[0]) * 1024, int(fields["Pss"].split()[0]) * 1024


def pid_with(word: str, program: str) -> int:
    """The newest process whose arguments contain the word and whose program's name begins with program. Raises TooLateError."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name.startswith(program) and any(word in other for other in words[1:]):
            found.append(int(entry.name))
    if not found:
        raise TooLateError(f"there is no process {program} with {word} in its arguments")
    return max(found)
