# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's figures: what is computed of measurements, and how it is written and drawn."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.tools.bench import __main__ as command
from ansible_collections.unifleet.hybrid.tools.bench import boot, kubelet, provider, report, sizes, stopwatch
from ansible_collections.unifleet.hybrid.tools.bench.chart import Bar, Chart, Group, axis, round_text, svg
from ansible_collections.unifleet.hybrid.tools.bench.debian_root import Layer

pytestmark = pytest.mark.unit
POSITIVE = st.floats(min_value=1e-6, max_value=1e12)


@given(st.lists(POSITIVE, min_size=1, max_size=40))
def test_the_median_lies_between_the_quartiles_and_these_between_the_extremes(values: list[float]) -> None:
    found = report.spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_a_single_outlier_leaves_the_median_alone() -> None:
    assert report.spread([1.0, 1.1, 0.9, 1.0, 60.0]).median == 1.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (report.bytes_text(840), "840 B"),
        (report.bytes_text(9872), "9.87 kB"),
        (report.bytes_text(39_264_000), "39.3 MB"),
        (report.memory_text(41 << 20), "41.0 MiB"),
        (report.memory_text(56 << 10), "56.0 KiB"),
        (report.seconds_text(0.00085), "850 µs"),
        (report.seconds_text(0.2519), "252 ms"),
        (report.seconds_text(0.09996), "100 ms"),
        (report.seconds_text(1.236), "1.24 s"),
        (report.ratio_text(4724.3), "4724 ×"),
        (report.ratio_text(0.654), "0.65 ×"),
        (round_text("10.0 kB"), "10 kB"),
        (round_text("1.20 s"), "1.2 s"),
        (round_text("100 ms"), "100 ms"),
        (round_text("1.25 MB"), "1.25 MB"),
    ],
)
def test_figures_have_about_three_digits_and_a_unit(text: str, wanted: str) -> None:
    assert text == wanted


@given(st.lists(POSITIVE, min_size=1, max_size=20), st.booleans())
def test_every_value_is_on_the_axis_and_a_larger_one_is_further_right(values: list[float], logarithmic: bool) -> None:
    scale = axis(values, logarithmic)
    shares = [scale.share(value) for value in sorted(values)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    assert shares[0] > 0 or not logarithmic
    assert 2 <= len(scale.ticks) <= 25


@pytest.mark.parametrize("values", [[], [0.0, 1.0], [-1.0]])
def test_a_chart_of_nothing_or_of_nought_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        axis(values, logarithmic=True)


def test_a_chart_shows_each_label_each_value_and_a_bar_as_long_as_its_value() -> None:
    chart = Chart("A <title> & more", "ms", ("one", "two"), (Group("a", (Bar(1.0), Bar(2.0, 1.5, 2.5))), Group("b", (None, Bar(4.0)))), str)
    root = ET.fromstring(svg(chart))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"A <title> & more", "one", "two", "a", "b", "1.0", "2.0", "4.0"} <= set(texts)
    bars = [float(element.get("width", "")) for element in root.iter(f"{space}rect") if element.get("height") == "15"]
    assert [round(width / bars[0], 3) for width in bars] == [1, 2, 4]


def test_a_tables_rows_are_as_wide_as_its_head() -> None:
    lines = report.Table("T", ("what", "n"), (("a", "1"), ("b", "2")), "a note").markdown().splitlines()
    assert lines == ["### T", "", "| what | n |", "| --- | ---: |", "| a | 1 |", "| b | 2 |", "", "a note"]


def kernels(directory: Path) -> dict[str, Path]:
    """Programs that differ in size and cannot be compressed to nothing."""
    made = {}
    for number, (target, build) in enumerate(sizes.TARGETS.items(), 1):
        made[target] = directory / build
        made[target].write_bytes(bytes((seed * seed * number >> 3) & 255 for seed in range(1000 * number)))
    return made


def test_sizes_of_the_fat_image_hold_all_its_kernels_and_the_debian_container_all_of_its_base(tmp_path: Path) -> None:
    built = kernels(tmp_path)
    base = Layer(5_000_000, 20_000_000)
    found = {size.target: size for size in sizes.sizes_of("sensor", built, base)}
    assert set(found) == {*sizes.TARGETS, "linux/amd64, all kernels", "linux/arm64, all kernels"}
    fat = found["linux/amd64, all kernels"]
    assert fat.kernel == sum(built[target].stat().st_size for target in built if target.endswith("/amd64"))
    assert fat.image.unpacked > fat.kernel
    assert all(fat.image.compressed > found[target].image.compressed for target in ("kvm/amd64", "xen/amd64", "process/amd64"))
    for size in found.values():
        assert size.debian == Layer(base.compressed + size.scratch.compressed, base.unpacked + size.scratch.unpacked)
        assert size.image.unpacked > size.kernel
    assert found["process/arm"].scratch == found["process/arm"].image
    assert len(sizes.outcome(list(found.values())).tables[0].rows) == len(found)


def test_an_image_unpacks_to_its_layers_as_tar_files(tmp_path: Path) -> None:
    only = sizes.fetched(sizes.packed({"kvm/amd64": kernels(tmp_path)["kvm/amd64"]}))["linux/amd64"]
    assert only.unpacked % 512 == 0
    assert only.unpacked > only.compressed > 0


def test_memory_is_read_from_the_kernels_summary() -> None:
    text = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:   1200 kB\nPss:    800 kB\nPss_Dirty:  10 kB\nShared_Clean:  4 kB\n"
    assert stopwatch.memory_in(text) == (1200 * 1024, 800 * 1024)


def timing(first_line: float, pss: int = 1 << 20) -> stopwatch.Timing:
    return stopwatch.Timing(first_line, first_line * 1.1, 0.01, 2 << 20, pss, first_line / 2)


def test_the_ratio_of_a_target_is_that_of_the_medians_of_its_first_answers() -> None:
    timings = {target.name: [timing(0.2), timing(0.4), timing(9.0)] for target in boot.TARGETS}
    timings["microvm"] = [timing(0.1), timing(0.1), timing(0.1)]
    (table,) = boot.outcome(timings).tables
    ratios = {row[0]: row[3] for row in table.rows}
    assert ratios["microvm"] == "0.25 ×"
    assert ratios[boot.BASELINE] == "1.00 ×"
    json.dumps(boot.outcome(timings).figures)


def test_what_a_host_says_becomes_ratios_to_the_bare_start() -> None:
    ways = {"unifleet": [asdict(timing(0.9))], "alone": [asdict(timing(0.6))], "bare": [asdict(timing(0.3))]}
    said = {"accelerator": {"kind": "tcg", "why": "no KVM"}, "qemu": "QEMU 10", "timings": {"kvm": ways, "process": ways}}
    (table,) = provider.outcome(said).tables
    assert [row[3] for row in table.rows] == ["3.00 ×", "2.00 ×", "1.00 ×"] * 2
    assert "no KVM" in table.note


def test_pods_of_both_runtimes_become_ratios_to_runc_and_memory_a_pod() -> None:
    def run(kind: str, seconds: float, memory: dict[str, list[int]]) -> dict[str, object]:
        times = [seconds / 2, seconds]
        return {"kind": kind, "pods": 2, "running": times, "answered": times, "ended": 0.5, "gone": 1.0, "memory": memory}

    runc = {"sensor": [2, 128], "containerd-shim": [2, 20480], "pause": [2, 64]}
    runu = {"runu-qemu": [2, 61440], "runu-monitor": [2, 8192], "containerd-shim": [2, 20480], "pause": [2, 64]}
    found = kubelet.outcome([run("runc", 4.0, runc), run("runu", 9.0, runu), run("runu", 6.0, runu), run("runu", 5.0, runu)])
    times, memory = found.tables
    assert [(row[0], row[1], row[4]) for row in times.rows] == [("2 pods, runc", "3.00 s", "1.00 ×"), ("2 pods, runu", "4.50 s", "1.50 ×")]
    assert [row[1:] for row in memory.rows] == [
        ("64.0 KiB", "10.0 MiB", "32.0 KiB", "10.1 MiB"),
        ("34.0 MiB", "10.0 MiB", "32.0 KiB", "44.0 MiB"),
    ]
    json.dumps(found.figures)
    svg(found.charts["kubelet"])


def test_every_target_runs_a_program_that_the_guests_are_built_for() -> None:
    assert {target.build for target in boot.TARGETS} <= set(sizes.TARGETS.values())


def test_a_part_that_is_not_there_is_named_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sizes", "speed"]) == 2
    assert capsys.readouterr().err == "bench: no part speed; there are sizes, boot, provider, runu, kubelet\n"
