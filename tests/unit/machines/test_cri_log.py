# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw output becomes CRI log lines without a byte lost or doubled, wherever the agent is killed."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.machines.console_log import ConsoleLog
from ansible_collections.unifleet.hybrid.plugins.host.machines.cri_log import MAX_LINE, CriLog, consumed_by, cri_lines, time_stamp

pytestmark = pytest.mark.unit
STAMP = b"2026-11-21T10:00:00.000000001Z"
CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.just(b"\n"),
        st.sampled_from([b"\r\n", b"a line\n", b"x" * (MAX_LINE - 1), b"y" * MAX_LINE, b"z" * (MAX_LINE + 1), b"w\n" * 700]),
    ),
    max_size=12,
)


def streams_of(log: bytes) -> dict[bytes, bytes]:
    """What a reader of the CRI log would show of each stream."""
    streams: dict[bytes, bytes] = {}
    for line in re.findall(rb"[^\n]*\n", log):
        _stamp, stream, tag, text = line[:-1].split(b" ", 3)
        streams[stream] = streams.get(stream, b"") + text + (b"\n" if tag == b"F" else b"")
    return streams


def rotated_and_current(path: Path) -> bytes:
    older = sorted(entry for entry in path.parent.iterdir() if entry.name.startswith(path.name + "."))
    return b"".join(file.read_bytes() for file in [*older, path])


def ticking_clock() -> Callable[[], int]:
    return itertools.count(1_700_000_000_000_000_000, 1_000_000).__next__


def test_a_line_carries_time_stream_tag_and_text() -> None:
    assert cri_lines(b"stdout", b"hello\n\nrest", STAMP) == (STAMP + b" stdout F hello\n" + STAMP + b" stdout F \n", 7)


def test_a_line_of_exactly_the_limit_is_not_split_and_a_longer_one_is() -> None:
    text, used = cri_lines(b"stdout", b"x" * MAX_LINE + b"\n" + b"y" * (MAX_LINE + 1) + b"\n", STAMP)
    tags = [line.split(b" ", 3)[2] for line in text.splitlines()]
    assert (tags, used) == ([b"F", b"P", b"F"], 2 * MAX_LINE + 3)


def test_a_last_line_without_newline_is_kept_back_until_the_end() -> None:
    assert cri_lines(b"stderr", b"no newline", STAMP) == (b"", 0)
    assert cri_lines(b"stderr", b"no newline", STAMP, final=True) == (STAMP + b" stderr P no newline\n", 10)


def test_the_time_has_nine_digits_and_is_utc() -> None:
    assert time_stamp(1_700_000_000_000_000_007) == b"2023-11-14T22:13:20.000000007Z"


@given(CHUNKS)
def test_how_a_stream_is_cut_into_pieces_does_not_show_in_the_log(chunks: list[bytes]) -> None:
    whole, used = cri_lines(b"stdout", b"".join(chunks), STAMP)
    piecewise, waiting = b"", b""
    for chunk in chunks:
        waiting += chunk
        text, taken = cri_lines(b"stdout", waiting, STAMP)
        piecewise, waiting = piecewise + text, waiting[taken:]
    assert piecewise == whole
    assert len(waiting) == len(b"".join(chunks)) - used


@given(CHUNKS, st.integers(min_value=0, max_value=200))
def test_any_cut_off_log_says_how_much_of_the_stream_its_intact_lines_hold(chunks: list[bytes], cut: int) -> None:
    data = b"".join(chunks)
    log, _consumed = cri_lines(b"stdout", data, STAMP, final=True)
    consumed, intact = consumed_by(log[: max(0, len(log) - cut)])
    rest, _consumed = cri_lines(b"stdout", data[consumed.get(b"stdout", 0) :], STAMP, final=True)
    assert streams_of(log[:intact] + rest).get(b"stdout", b"") == data


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=3000), st.integers(0, 3)), max_size=25),
    st.integers(min_value=200, max_value=5000),
)
def test_no_byte_is_lost_or_doubled_over_crashes_and_rotations(steps: list[tuple[str, bytes, int]], max_bytes: int) -> None:
    """Each step writes raw bytes; then the agent goes on (0), is killed (1), killed in mid-write (2), or killed in a rotation (3)."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        raw = [("stdout", directory / "raw" / "out"), ("stderr", directory / "raw" / "err")]
        (directory / "raw").mkdir()
        path = directory / "log" / "0.log"
        clock = ticking_clock()

        def opened() -> CriLog:
            return CriLog(raw, path, max_bytes=max_bytes, max_files=10_000, clock=clock)

        log = opened()
        for stream, data, event in steps:
            with dict(raw)[stream].open("ab") as file:
                file.write(data)
            log.pump()
            if event:
                log.close()
                if event == 2 and path.stat().st_size:
                    os.truncate(path, max(0, path.stat().st_size - len(data) % 97))
                if event == 3:
                    (path.parent / f".{path.name}.next").touch()
                    os.link(path, f"{path}.20261121-000000.000000")
                log = opened()
        log.pump(final=True)
        log.close()
        shown = streams_of(rotated_and_current(path))
        for stream, source in raw:
            written = source.read_bytes() if source.exists() else b""
            assert shown.get(stream.encode(), b"") == written


def test_rotation_keeps_so_many_files_and_the_path_is_never_missing(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "logs" / "0.log"
    log = CriLog([("stdout", raw)], path, max_bytes=2000, max_files=3)
    seen_missing, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not path.exists():
                seen_missing.append(True)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(400):
        with raw.open("ab") as file:
            file.write(b"line %d\n" % number)
        log.pump()
    done.set()
    watcher.join()
    log.close()
    assert not seen_missing
    assert len([entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]) == 3
    assert path.read_bytes().endswith(b"line 399\n")


@pytest.mark.parametrize("fails_at", ["link", "replace"])
def test_a_crash_between_the_steps_of_a_rotation_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    log = CriLog([("stdout", raw)], path, max_bytes=500, max_files=100)
    real_replace = Path.replace

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def crash_on_the_log(self: Path, target: Path) -> Path:
        if target == path:
            crash()
        return real_replace(self, target)

    def write_lines_until_it_rotates() -> None:
        for number in range(50):
            with raw.open("ab") as file:
                file.write(b"line %d\n" % number)
            log.pump()

    with monkeypatch.context() as patch:
        if fails_at == "link":
            patch.setattr(os, "link", crash)
        else:
            patch.setattr(Path, "replace", crash_on_the_log)
        with pytest.raises(KeyboardInterrupt):
            write_lines_until_it_rotates()
    log.close()
    log = CriLog([("stdout", raw)], path, max_bytes=500, max_files=100)
    log.pump(final=True)
    log.close()
    assert streams_of(rotated_and_current(path))[b"stdout"] == raw.read_bytes()


def test_the_raw_file_gives_its_consumed_bytes_back_and_keeps_its_tail(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    log = CriLog([("stdout", raw)], path)
    with raw.open("ab") as file:
        for _number in range(8):
            file.write((b"x" * 1023 + b"\n") * 1024)
            file.flush()
            log.pump()
    log.close()
    assert raw.stat().st_size == 8 << 20
    assert raw.stat().st_blocks * 512 < 3 << 20
    assert raw.read_bytes().endswith(b"x" * 1023 + b"\n")


def test_a_log_that_somebody_removed_begins_anew_with_what_raw_still_holds(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    raw.write_bytes(b"one\n")
    log = CriLog([("stdout", raw)], path)
    log.pump()
    path.unlink()
    with raw.open("ab") as file:
        file.write(b"two\n")
    log.pump()
    log.close()
    assert streams_of(path.read_bytes())[b"stdout"] == b"two\n"
    again = CriLog([("stdout", raw)], path)
    again.pump()
    assert streams_of(path.read_bytes())[b"stdout"] == b"two\n"
    again.close()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    raw.write_bytes(b"one\ntwo\n")
    log = CriLog([("stdout", raw)], path)
    real_write, calls = os.write, itertools.count()

    def ten_bytes_then_full(fd: int, data: bytes) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return real_write(fd, data[:10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", ten_bytes_then_full)
        with pytest.raises(OSError, match="No space"):
            log.pump()
    log.pump()
    log.close()
    assert streams_of(path.read_bytes())[b"stdout"] == b"one\ntwo\n"


def test_output_shows_up_in_the_log_within_a_moment(tmp_path: Path) -> None:
    raw, path = tmp_path / "machine" / "raw", tmp_path / "logs" / "0.log"
    with ConsoleLog() as logs:
        logs.attach("key", [("stdout", raw)], path)
        with raw.open("ab") as file:
            file.write(b"hello\n")
        deadline = time.monotonic() + 2
        while b"hello" not in path.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_detaching_writes_what_is_left_and_attaching_again_doubles_nothing(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    with ConsoleLog() as logs:
        logs.attach("key", [("stdout", raw)], path)
        raw.write_bytes(b"first\nlast words")
        logs.detach("key")
        logs.attach("key", [("stdout", raw)], path)
        logs.detach("key")
        logs.detach("never attached")
    assert streams_of(path.read_bytes())[b"stdout"] == b"first\nlast words"


def test_a_closed_console_log_can_be_followed_by_another(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "0.log"
    expected = b""
    for number in range(5):
        with ConsoleLog() as logs:
            logs.attach("key", [("stdout", raw)], path)
            with raw.open("ab") as file:
                file.write(b"run %d\nhalf" % number)
            expected += b"run %d\nhalf" % number
    with ConsoleLog() as logs:
        logs.attach("key", [("stdout", raw)], path)
        logs.detach("key")
    assert streams_of(path.read_bytes())[b"stdout"] == expected
