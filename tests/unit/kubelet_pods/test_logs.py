# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading CRI logs: tail, since, limits, long lines, rotation, follow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kubelet import logs
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.logs import LogOptionError, LogOptions, LogReader, parse_options
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import parse_time

STAMP = "2026-11-21T23:00:{:02d}.000000000Z"


def cri(*lines: str, start: int = 0) -> bytes:
    """ "text" is a full line, "text+" a part of one."""
    made = []
    for second, line in enumerate(lines, start):
        tag = "P" if line.endswith("+") else "F"
        made.append(f"{STAMP.format(second % 60)} stdout {tag} {line.rstrip('+')}\n")
    return "".join(made).encode()


async def read(path: Path, **options: Any) -> bytes:
    return b"".join([piece async for piece in LogReader(path, LogOptions(**options), lambda: True).stream()])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_bytes(cri("one", "two", "thr+", "ee", "four"))
    return path


async def test_all_lines_come_out_with_the_parts_of_a_long_one_joined(log: Path) -> None:
    assert await read(log) == b"one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize(
    ("tail", "expected"), [(0, b""), (1, b"four\n"), (2, b"three\nfour\n"), (3, b"two\nthree\nfour\n"), (99, b"one\ntwo\nthree\nfour\n")]
)
async def test_tail_counts_a_long_line_once(log: Path, tail: int, expected: bytes) -> None:
    assert await read(log, tail=tail) == expected


async def test_limit_cuts_to_the_byte(log: Path) -> None:
    assert await read(log, limit=5) == b"one\nt"


async def test_since_leaves_older_lines_out_and_timestamps_are_put_in_front(log: Path) -> None:
    out = await read(log, since=parse_time(STAMP.format(2)), timestamps=True)
    assert out == f"{STAMP.format(2)} three\n{STAMP.format(4)} four\n".encode()


async def test_tail_and_all_reach_into_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20261121-230000.000001").write_bytes(cri("a", "b"))
    (tmp_path / "0.log.20261121-230001.000001").write_bytes(cri("c"))
    path.write_bytes(cri("d"))
    (tmp_path / "0.log.offsets").write_text("{}")
    assert await read(path) == b"a\nb\nc\nd\n"
    assert await read(path, tail=3) == b"b\nc\nd\n"


async def test_a_line_that_is_being_written_is_not_shown_in_pieces(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"2026-11-21T23:00:09Z stdout F fi")
    assert await read(log, tail=1) == b"four\n"


async def test_garbage_in_the_file_is_passed_over(log: Path) -> None:
    log.write_bytes(b"\x00\xff\n\n" + cri("good") + b"half a line\n")
    assert b"good\n" in await read(log)


async def test_follow_goes_on_across_a_rotation_and_ends_with_the_container(log: Path) -> None:
    over = False
    reader = LogReader(log, LogOptions(follow=True, tail=1), lambda: over, poll=0.01)
    seen = b""

    async def consume() -> None:
        nonlocal seen
        async for piece in reader.stream():
            seen += piece

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    with log.open("ab") as file:
        file.write(cri("five"))
    log.rename(log.with_name("0.log.20261121-230500.000000"))
    log.write_bytes(cri("six"))
    await asyncio.sleep(0.1)
    assert not task.done()
    with log.open("ab") as file:
        file.write(cri("seven"))
    over = True
    await asyncio.wait_for(task, 2)
    assert seen == b"four\nfive\nsix\nseven\n"


async def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "0.log", tail=5) == b""


@given(
    lines=st.lists(st.text(alphabet="ab ", max_size=30), max_size=40),
    wanted=st.integers(0, 45),
    block=st.integers(1, 200),
)
def test_tail_is_what_the_last_lines_are_whatever_the_block_size(lines: list[str], wanted: int, block: int) -> None:
    import tempfile

    before, logs.BLOCK = logs.BLOCK, block
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "0.log"
            path.write_bytes(cri(*lines))
            out = asyncio.run(read(path, tail=wanted))
    finally:
        logs.BLOCK = before
    assert out == "".join(f"{line}\n" for line in lines[len(lines) - min(wanted, len(lines)) :]).encode()


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"tailLines": "x"},
        {"limitBytes": "0"},
        {"sinceSeconds": "0"},
        {"sinceTime": "yesterday"},
        {"sinceTime": "2026-11-21T23:00:00Z", "sinceSeconds": "5"},
        {"follow": "maybe"},
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_name(query: dict[str, str]) -> None:
    with pytest.raises(LogOptionError, match=next(iter(query))):
        parse_options(query, 0.0)


def test_a_query_is_read_as_go_reads_it() -> None:
    options = parse_options({"follow": "true", "tailLines": "0", "timestamps": "1", "previous": "false", "sinceSeconds": "10"}, 100.0)
    assert options == LogOptions(follow=True, timestamps=True, tail=0, since=90.0)
    assert parse_options({"follow": ""}, 0.0).follow


def test_a_carriage_return_in_a_line_takes_nothing_of_the_termination_message(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"2026-01-01T00:00:00Z stdout F 10 %\r20 % of it\r\n")
    assert logs.termination_message(path) == "10 %\r20 % of it\r\n"


def test_the_termination_message_is_the_end_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(cri(*[f"line {n}" for n in range(100)]))
    message = logs.termination_message(path)
    assert message.startswith("line 20\n")
    assert message.endswith("line 99\n")
    assert logs.termination_message(tmp_path / "none") == ""
