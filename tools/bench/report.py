# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a part of the benchmark hands back, and how figures are written for people.

A part measures things side by side in one run and gives figures (for machines), tables and charts (for people). Absolute times depend
on the machine and on what else it does; ratios of things measured in turns do not, so every table has them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.unifleet.hybrid.tools.bench.chart import Chart

Progress = Callable[[str], None]
"""Takes a sentence on what is being done now."""


@dataclass(frozen=True)
class Table:
    """A table. The first column is text, the others are figures. note: what one must know to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """As GitHub renders it."""
        ruler = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, ruler, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, *(["", self.note] if self.note else []), ""])


@dataclass(frozen=True)
class Outcome:
    """What one part found. figures: for results.json. charts: file name without .svg -> chart."""

    figures: Any
    tables: tuple[Table, ...] = ()
    charts: dict[str, Chart] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One part: its name on the command line, what it measures in a few words, and what does it."""

    name: str
    about: str
    run: Callable[[Progress], Outcome]


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing: the median, and the quartiles that half of them lie between."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Of one measurement or more."""
    known = sorted(values)
    if len(known) == 1:
        return Spread(known[0], known[0], known[0])
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return Spread(middle, low, high)


def bytes_text(count: float) -> str:
    """840 B, 9.9 kB, 29 kB, 48.1 MB: decimal units, as registries show them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{three(count / size)} {unit}"
    return f"{count:.0f} B"


def memory_text(count: float) -> str:
    """29.4 MiB: binary units, as memory is given out."""
    return f"{three(count / (1 << 20))} MiB" if count >= 1 << 20 else f"{three(count / 1024)} KiB"


def seconds_text(seconds: float) -> str:
    """850 µs, 12.3 ms, 1.24 s."""
    if seconds >= 1:
        return f"{three(seconds)} s"
    return f"{three(seconds * 1e3)} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def ratio_text(ratio: float) -> str:
    """1.07 x, 14.2 x, 4030 x."""
    return f"{three(ratio)} ×"


def three(number: float) -> str:
    """A number with about three figures that count."""
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def spread_text(measured: Spread) -> str:
    """412 ms (398 ms to 431 ms)."""
    return f"{seconds_text(measured.median)} ({seconds_text(measured.low)} to {seconds_text(measured.high)})"


def document(heading: str, facts: Sequence[tuple[str, str]], outcomes: Iterable[Outcome]) -> str:
    """results.md: where it was measured, then every table with its charts."""
    lines = [f"# {heading}", "", *(f"- {name}: {value}" for name, value in facts), ""]
    for outcome in outcomes:
        lines += [table.markdown() for table in outcome.tables]
        lines += [f"![{chart.title}]({name}.svg)\n" for name, chart in outcome.charts.items()]
    return "\n".join(lines)
