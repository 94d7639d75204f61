# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the parts of the benchmark that are named, or all: make bench, or make bench PARTS='sizes boot'.

Writes build/bench/results.json, results.md and a chart (SVG) for each part. A new part is a module with a function that takes a
Progress and gives an Outcome (report.py), and a line in PARTS.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.bench import boot, containerd, kubelet, provider, sizes
from ansible_collections.unifleet.hybrid.tools.bench.chart import svg
from ansible_collections.unifleet.hybrid.tools.bench.report import Outcome, Part, document
from ansible_collections.unifleet.hybrid.tools.bench.stopwatch import TooLateError

PARTS = (
    Part("sizes", "images beside containers of the same program", sizes.measure),
    Part("boot", "time to the first line and HTTP answer by target, QEMU started directly", boot.measure),
    Part("provider", "machines through Unifleet beside bare QEMU and bare exec, on a lab host", provider.measure),
    Part("runu", "unikernels under a stock containerd beside bare QEMU and runc", containerd.measure),
    Part("kubelet", "pods through the stock kubelet, under runc and under runu, on a lab of their own", kubelet.measure),
)
DIRECTORY = Path(__file__).resolve().parents[2] / "build/bench"


def main(words: list[str]) -> int:
    """0 when every part was measured."""
    known = {part.name: part for part in PARTS}
    unknown = [word for word in words if word not in known]
    if unknown:
        print(f"bench: no part {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    outcomes: dict[str, Outcome] = {}
    facts, failed = machine_facts(), False
    load = load_text()
    for part in (known[word] for word in words or known):
        print(f"\n==> {part.name}: {part.about}", flush=True)
        began = time.monotonic()
        try:
            outcomes[part.name] = part.run(lambda text: print(f"    {text}", flush=True))
        except (UnifleetError, TooLateError, OSError) as error:
            failed = True
            print(f"bench: {part.name}: {error}", file=sys.stderr, flush=True)
            continue
        for table in outcomes[part.name].tables:
            print(f"\n{table.markdown()}")
        print(f"    {time.monotonic() - began:.0f} s", flush=True)
    facts += [("load when it began, and at its end (1, 5, 15 minutes)", f"{load}; {load_text()}")]
    write(facts, outcomes)
    print(f"\nIn {DIRECTORY}: {', '.join(sorted(path.name for path in DIRECTORY.iterdir() if path.is_file()))}")
    return 1 if failed else 0


def write(facts: list[tuple[str, str]], outcomes: dict[str, Outcome]) -> None:
    """Into build/bench, where nothing of an earlier run stays."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for chart in DIRECTORY.glob("*.svg"):
        chart.unlink()
    figures = {"machine": dict(facts), "parts": {name: outcome.figures for name, outcome in outcomes.items()}}
    (DIRECTORY / "results.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (DIRECTORY / "results.md").write_text(document("Figures", facts, outcomes.values()), encoding="utf-8")
    for outcome in outcomes.values():
        for name, drawn in outcome.charts.items():
            (DIRECTORY / f"{name}.svg").write_text(svg(drawn), encoding="utf-8")


def machine_facts() -> list[tuple[str, str]]:
    """What the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    return [
        ("measured", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("processor", f"{model or platform.machine()}, {os.cpu_count()} cores"),
        ("kernel", platform.release()),
    ]


def load_text() -> str:
    """The load averages of 1, 5 and 15 minutes. A figure above the number of cores says that something waited."""
    return ", ".join(f"{one:.1f}" for one in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
