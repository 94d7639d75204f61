# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How quickly runu starts a unikernel under a stock containerd, beside bare QEMU and runc: what tests/system/bench_runu.py measures.

It is a program of its own because it works with what the system tests of runu have: containerd, bundles and their control groups.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.bench.boot import bar_of
from ansible_collections.unifleet.hybrid.tools.bench.chart import Chart, Group
from ansible_collections.unifleet.hybrid.tools.bench.report import (
    Outcome,
    Progress,
    Table,
    memory_text,
    ratio_text,
    seconds_text,
    spread,
    spread_text,
    three,
)

PROGRAM = Path(__file__).resolve().parents[2] / "tests/system/bench_runu.py"
BASELINE = "bare QEMU: exec to first byte"


def measure(progress: Progress) -> Outcome:
    """Run it. Raises UnifleetError when it measured nothing; a target that is missed is told of in the table."""
    progress("containerd, runu and runc, in turns")
    with tempfile.TemporaryDirectory(prefix="unifleet-bench-") as directory:
        file = Path(directory) / "runu.json"
        done = subprocess.run([sys.executable, str(PROGRAM), "--json", str(file)], capture_output=True, text=True, check=False)
        if not file.is_file():
            raise UnifleetError(f"{PROGRAM.name} failed: {done.stderr[-1500:]}", "it needs what the system tests of runu need")
        return outcome(json.loads(file.read_text(encoding="utf-8")))


def outcome(said: Mapping[str, Any]) -> Outcome:
    """Tables and chart of what bench_runu.py wrote."""
    times = {name: spread(values) for name, values in said["seconds"].items()}
    rows = tuple((name, spread_text(one), ratio_text(one.median / times[BASELINE].median)) for name, one in times.items())
    count = min(map(len, said["seconds"].values()))
    memory = ", ".join(f"{name} {memory_text(spread(values).median)}" for name, values in said["pss"].items())
    note = f"Median and quartiles of {count} starts each, in turns. PSS of each process, the median of a node's pods: {memory}."
    starts = Table("Under a stock containerd", ("start", "time", "ratio to bare QEMU"), rows, note)
    met = tuple(
        (name, three(value), three(most), "met" if value <= most else "**missed**") for name, (value, most) in said["targets"].items()
    )
    chart = Chart(
        "Starting under a stock containerd",
        "sensor, in turns on one machine; median, thin line: quartiles",
        ("time",),
        tuple(Group(name, (bar_of(one),)) for name, one in times.items()),
        seconds_text,
    )
    return Outcome(said, (starts, Table("Targets of runu", ("target", "measured", "at most", ""), met)), {"runu": chart})
