# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chart of horizontal bars as SVG: groups of bars, one colour per series, the value beside each bar, a thin line for the spread.

Drawn here, with xml.etree alone, for one chart in one manner is little code and a plotting library is much.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass

COLOURS = ("#2563eb", "#f59e0b", "#94a3b8", "#10b981")
_INK, _SOFT, _GRID, _PAPER = "#0f172a", "#64748b", "#e2e8f0", "#ffffff"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"
_WIDTH, _RIGHT, _MARGIN = 860.0, 110.0, 24.0
_BAR, _BAR_GAP, _GROUP_GAP = 15.0, 3.0, 13.0
_LETTER = 7.2
"""Width of a letter of the labels, on average; SVG cannot be asked."""


@dataclass(frozen=True)
class Bar:
    """A value, with the range that is drawn as a thin line if low < high."""

    value: float
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Group:
    """What is measured, and a bar for each series of the chart, None where there is none."""

    label: str
    bars: tuple[Bar | None, ...]


@dataclass(frozen=True)
class Chart:
    """subtitle: unit and conditions. text: writes a value. logarithmic: for values of very different sizes; the axis says so."""

    title: str
    subtitle: str
    series: tuple[str, ...]
    groups: tuple[Group, ...]
    text: Callable[[float], str]
    logarithmic: bool = False


@dataclass(frozen=True)
class Axis:
    """From a value to a share (0 to 1) of the width, and where the grid is."""

    first: float
    last: float
    ticks: tuple[float, ...]
    logarithmic: bool

    def share(self, value: float) -> float:
        """Where a value is."""
        if not self.logarithmic:
            return value / self.last
        return math.log(max(value, self.first) / self.first) / math.log(self.last / self.first)


def axis(values: Sequence[float], logarithmic: bool) -> Axis:
    """The axis that these values, all above 0, fit on. Raises ValueError for none, or for one that is not above 0."""
    if not values or min(values) <= 0:
        raise ValueError("a chart needs values above 0")
    most = max(values)
    if logarithmic:
        low, high = math.floor(math.log10(min(values) / 2)), math.ceil(math.log10(most))
        return Axis(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1)), logarithmic=True)
    power = 10.0 ** math.floor(math.log10(most))
    step = next(power * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5) if most / (power * factor) <= 6)
    count = math.ceil(most / step - 1e-9)
    return Axis(0.0, count * step, tuple(step * number for number in range(count + 1)), logarithmic=False)


def round_text(text: str) -> str:
    """A round value without the noughts after its point: 10.0 kB is 10 kB."""
    return re.sub(r"(\.[0-9]*?)0+(?![0-9])", r"\1", text).replace(". ", " ")


def svg(chart: Chart) -> str:
    """The picture, as the text of an SVG file."""
    bars = [item for group in chart.groups for item in group.bars if item is not None]
    scale = axis([item.value for item in bars] + [item.high for item in bars if item.high > item.low], chart.logarithmic)
    left = _MARGIN + 12 + max(len(group.label) for group in chart.groups) * _LETTER
    width = _WIDTH - left - _RIGHT
    top = 104.0
    heights = [sum(item is not None for item in group.bars) * (_BAR + _BAR_GAP) - _BAR_GAP for group in chart.groups]
    bottom = top + sum(heights) + _GROUP_GAP * len(heights)
    total = bottom + 44
    root = ET.Element("svg", _at(xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH:g} {total:g}", width=_WIDTH, height=total))
    root.set("role", "img")
    root.set("font-family", _FONT)
    ET.SubElement(root, "title").text = f"{chart.title}: {chart.subtitle}"
    ET.SubElement(root, "rect", _at(width=_WIDTH, height=total, rx=10, fill=_PAPER))
    _text(root, _MARGIN, 36, chart.title, size=18, weight="600")
    _text(root, _MARGIN, 57, chart.subtitle, size=12.5, fill=_SOFT)
    x = _MARGIN
    for number, name in enumerate(chart.series):
        ET.SubElement(root, "rect", _at(x=x, y=72, width=11, height=11, rx=2.5, fill=COLOURS[number]))
        _text(root, x + 17, 82, name, size=12.5)
        x += 17 + len(name) * _LETTER + 22
    for tick in scale.ticks:
        at = left + scale.share(tick) * width
        ET.SubElement(root, "line", _at(x1=at, x2=at, y1=top - 4, y2=bottom, stroke=_GRID))
        _text(root, at, bottom + 18, round_text(chart.text(tick)) if tick else "0", size=11.5, fill=_SOFT, anchor="middle")
    if chart.logarithmic:
        _text(root, left + width, bottom + 34, "logarithmic: each line is ten times the one before", size=11, fill=_SOFT, anchor="end")
    y = top + _GROUP_GAP / 2
    for group, height in zip(chart.groups, heights, strict=True):
        _text(root, left - 12, y + height / 2 + 4.5, group.label, size=13, anchor="end")
        for number, item in enumerate(group.bars):
            if item is None:
                continue
            length = max(scale.share(item.value) * width, 1.5)
            ET.SubElement(root, "rect", _at(x=left, y=y, width=length, height=_BAR, rx=2.5, fill=COLOURS[number]))
            end = length
            if item.high > item.low:
                low, high = scale.share(item.low) * width, scale.share(item.high) * width
                end = max(length, high)
                middle = y + _BAR / 2
                ET.SubElement(root, "line", _at(x1=left + low, x2=left + high, y1=middle, y2=middle, stroke=_INK, opacity=0.55))
                for edge in (left + low, left + high):
                    ET.SubElement(root, "line", _at(x1=edge, x2=edge, y1=middle - 3, y2=middle + 3, stroke=_INK, opacity=0.55))
            _text(root, left + end + 7, y + _BAR - 3, chart.text(item.value), size=12, fill=_INK)
            y += _BAR + _BAR_GAP
        y += _GROUP_GAP - _BAR_GAP
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _at(**attributes: str | float) -> dict[str, str]:
    return {name: value if isinstance(value, str) else f"{value:.6g}" for name, value in attributes.items()}


def _text(parent: ET.Element, x: float, y: float, text: str, *, size: float, fill: str = _INK, weight: str = "", anchor: str = "") -> None:
    attributes = _at(x=x, y=y, fill=fill)
    attributes["font-size"] = f"{size:g}"
    if weight:
        attributes["font-weight"] = weight
    if anchor:
        attributes["text-anchor"] = anchor
    ET.SubElement(parent, "text", attributes).text = text
