# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods through the stock kubelet, under runc and under runu: what tests/system/bench_kubelet.py measures.

It is a program of its own because it works with what the system tests have: a lab on a network of its own and its cluster.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.bench.chart import Bar, Chart, Group
from ansible_collections.unifleet.hybrid.tools.bench.report import Outcome, Progress, Table, memory_text, ratio_text, seconds_text

PROGRAM = Path(__file__).resolve().parents[2] / "tests/system/bench_kubelet.py"
PARTS_OF_A_POD = {"runc": ("sensor", "kernel"), "runu": ("runu-qemu", "runu-monitor")}
SHIM, PAUSE = "containerd-shim", "pause"
"""The kernel cuts a command's name at 15 characters, which is just this much of containerd-shim-runc-v2."""


def measure(progress: Progress) -> Outcome:
    """Run it. Raises UnifleetError when it measured nothing."""
    progress("a lab of a control plane and a worker (two minutes), then up to 50 pods of each kind")
    with tempfile.TemporaryDirectory(prefix="unifleet-bench-") as directory:
        file = Path(directory) / "kubelet.json"
        command = [sys.executable, str(PROGRAM), "--json", str(file)]
        told: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            for line in process.stderr:
                told.append(line.rstrip())
                progress(told[-1])
        if not file.is_file():
            raise UnifleetError(f"{PROGRAM.name} failed: {' / '.join(told[-8:])}", "it needs what the system tests on a lab need")
        return outcome(json.loads(file.read_text(encoding="utf-8")))


def outcome(said: Sequence[Mapping[str, Any]]) -> Outcome:
    """Tables and chart of what bench_kubelet.py wrote: a list of {kind, pods, running, answered, ended, gone, memory}."""
    by: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for one in said:
        by.setdefault((one["pods"], one["kind"]), []).append(one)
    times, memory, groups = [], [], []
    for (pods, kind), runs in by.items():
        of_runc = by.get((pods, "runc"), runs)
        answered = _median(run["answered"][-1] for run in runs)
        cells = (
            seconds_text(_median(statistics.median(run["answered"]) for run in runs)),
            seconds_text(_median(run["running"][-1] for run in runs)),
            seconds_text(answered),
            ratio_text(answered / _median(run["answered"][-1] for run in of_runc)),
            seconds_text(_median(run["ended"] for run in runs)),
            seconds_text(_median(run["gone"] for run in runs)),
            str(len(runs)),
        )
        times.append((f"{pods} {'pod' if pods == 1 else 'pods'}, {kind}", *cells))
        parts = {name: _median(_each(run, name) for run in runs) for name in (*PARTS_OF_A_POD[kind], SHIM, PAUSE)}
        own = sum(parts[name] for name in PARTS_OF_A_POD[kind])
        row = (memory_text(own), memory_text(parts[SHIM]), memory_text(parts[PAUSE]), memory_text(own + parts[SHIM] + parts[PAUSE]))
        memory.append((f"{pods} {'pod' if pods == 1 else 'pods'}, {kind}", *row))
        groups.append(Group(f"{pods} × {kind}", (Bar(answered), Bar(_median(run["ended"] for run in runs)))))
    return Outcome(
        said,
        (
            Table(
                "Pods through the kubelet",
                ("pods", "a pod's first answer", "all Running", "all answered", "ratio to runc", "all ended", "all gone", "runs"),
                tuple(times),
                "Since a Deployment of that many pods was asked for; medians of the runs, in turns. Running is what the API says; an answer"
                " is an HTTP answer to the worker itself, asked for once the API tells the pod's address. All ended, all gone: from"
                " deleting the Deployment until nothing ran in the pods, and until the API had forgotten them. For the latter the kubelet"
                " of 1.20 waits until its garbage collection, once a minute, has removed sandboxes (kubernetes/kubernetes#97288).",
            ),
            Table(
                "Memory of a pod through the kubelet",
                ("pods", "program, or QEMU and monitor", "shim", "pause", "together"),
                tuple(memory),
                "Proportional share (PSS) a pod, all running. The guest has 32 MiB, of which it takes what it touches.",
            ),
        ),
        {
            "kubelet": Chart(
                "Pods through the kubelet",
                "sensor under runc and as a unikernel under runu, in turns on one worker; median",
                ("created to all answered", "deleted to all ended"),
                tuple(groups),
                seconds_text,
            )
        },
    )


def _each(run: Mapping[str, Any], name: str) -> float:
    """Bytes a pod of the processes of this name."""
    return float(run["memory"].get(name, [0, 0])[1]) * 1024 / int(run["pods"])


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))
