# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading container logs: tail, since, follow and limits over CRI files ("TIME STREAM TAG TEXT"), rotated ones included.

Lines come out as kubelet gives them (pkg/kubelet/kuberuntime/logs): the text, with a time stamp in front when asked for; a long line that
was stored in parts (tag P) is one line again. A follower needs no state but its place in a file: when the file was rotated it
reads the old one to the end before it opens the next.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import parse_time
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

BLOCK = 64 << 10
POLL = 0.2
MESSAGE_BYTES, MESSAGE_LINES = 2048, 80


class LogOptionError(UnifleetError):
    """A query that cannot be; answered with 400."""


@dataclass(frozen=True)
class LogOptions:
    """core/v1 PodLogOptions. tail None: all. since: seconds since the epoch; limit: bytes of output."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: Optional[int] = None
    since: Optional[float] = None
    limit: Optional[int] = None


@dataclass(frozen=True)
class Line:
    """One line of a CRI file. full: its text ends with a newline in the original. stamp: as written."""

    stamp: bytes
    full: bool
    text: bytes


def parse_options(query: Mapping[str, str], clock: float) -> LogOptions:
    """The query of /containerLogs. Raises LogOptionError with the API's own wording (apis/core/validation ValidatePodLogOptions)."""
    tail = _number(query, "tailLines", 0, "must be greater than or equal to 0")
    limit = _number(query, "limitBytes", 1, "must be greater than 0")
    seconds = _number(query, "sinceSeconds", 1, "must be greater than 0")
    since = clock - seconds if seconds is not None else None
    if query.get("sinceTime"):
        if since is not None:
            raise LogOptionError("at most one of `sinceTime` or `sinceSeconds` may be specified")
        try:
            since = parse_time(query["sinceTime"])
        except ValueError as error:
            raise LogOptionError(f"sinceTime: {error}") from error
    return LogOptions(
        follow=_truth(query, "follow"),
        previous=_truth(query, "previous"),
        timestamps=_truth(query, "timestamps"),
        tail=tail,
        since=since,
        limit=limit,
    )


def _number(query: Mapping[str, str], name: str, least: int, why: str) -> Optional[int]:
    text = query.get(name, "")
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        raise LogOptionError(f"{name}: Invalid value: {text!r}: is no number") from None
    if number < least:
        raise LogOptionError(f"{name}: Invalid value: {number}: {why}")
    return number


def _truth(query: Mapping[str, str], name: str) -> bool:
    """strconv.ParseBool, as Go's query decoding does; a bare ?follow counts as true."""
    text = query.get(name)
    if text is None:
        return False
    if text in {"", "1", "t", "T", "true", "True", "TRUE"}:
        return True
    if text in {"0", "f", "F", "false", "False", "FALSE"}:
        return False
    raise LogOptionError(f"{name}: Invalid value: {text!r}: is neither true nor false")


def parse_line(raw: bytes) -> Optional[Line]:
    """One line of a CRI file without its newline; None for what is no such line."""
    parts = raw.split(b" ", 3)
    if len(parts) < 3:
        return None
    return Line(parts[0], parts[2].split(b":")[0] != b"P", parts[3] if len(parts) == 4 else b"")


def files_of(path: Path) -> list[Path]:
    """A log and what was rotated away from it, oldest first."""
    rotated = sorted(p for p in path.parent.glob(f"{path.name}.*") if p.name[len(path.name) + 1 :][:1].isdigit())
    return [*rotated, path]


class LogReader:
    """Reads one attempt's log. ended: whether no more can come."""

    def __init__(self, path: Path, options: LogOptions, ended: Callable[[], bool], poll: float = POLL) -> None:
        self.path = path
        self.options = options
        self.ended = ended
        self.poll = poll
        self.left = options.limit
        self.open_line = False
        self.skipping = False

    async def stream(self) -> AsyncIterator[bytes]:
        """Pieces of output, as they come; ends with the log, with the container when following, or at the limit."""
        position = self._begin()
        while self.left is None or self.left > 0:
            over = self.ended() if self.options.follow else True
            output, position = self._read(position)
            if output:
                yield output
                await asyncio.sleep(0)
                continue
            if over:
                return
            await asyncio.sleep(self.poll)

    def _begin(self) -> tuple[int, int]:
        """(inode, offset) of the first byte to read."""
        wanted = self.options.tail
        place = (0, 0)
        for path in reversed(files_of(self.path)) if wanted is not None else ():
            try:
                with path.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    if wanted == 0:
                        return inode, file.seek(0, os.SEEK_END)
                    offsets = last(line_starts(file), wanted or 0)
            except FileNotFoundError:
                continue
            if offsets:
                place = (inode, offsets[0])
            wanted = (wanted or 0) - len(offsets)
            if wanted <= 0:
                break
        return place

    def _read(self, position: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
        """The next piece of output and where it ends; empty when there is nothing new."""
        inode, offset = position
        paths = files_of(self.path)
        index = next((i for i, path in enumerate(paths) if inode and _inode(path) == inode), None)
        if index is None:
            index, offset = 0, 0
        while index < len(paths):
            try:
                with paths[index].open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    file.seek(offset)
                    data = file.read(BLOCK)
                    while data and b"\n" not in data and len(data) < 1 << 20:
                        more = file.read(BLOCK)
                        if not more:
                            break
                        data += more
            except FileNotFoundError:
                return b"", position
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                return self._translate(whole), (inode, offset + len(whole))
            position = (inode, offset)
            index, offset = index + 1, 0
        return b"", position

    def _translate(self, data: bytes) -> bytes:
        pieces = []
        for raw in data[:-1].split(b"\n"):
            line = parse_line(raw)
            if line is None:
                continue
            if not self.open_line:
                self.skipping = self._too_old(line.stamp)
            if not self.skipping:
                if self.options.timestamps and not self.open_line:
                    pieces.append(line.stamp + b" ")
                pieces.append(line.text + (b"\n" if line.full else b""))
            self.open_line = not line.full
        output = b"".join(pieces)
        if self.left is not None:
            output = output[: self.left]
            self.left -= len(output)
        return output

    def _too_old(self, stamp: bytes) -> bool:
        if self.options.since is None:
            return False
        try:
            return parse_time(stamp.decode("ascii", "replace")) < self.options.since
        except ValueError:
            return False


def backward(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a file with their offsets, the last one first. Reads in blocks; a torn last line is passed over."""
    position, buffer = file.seek(0, os.SEEK_END), b""
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        buffer = file.read(size) + buffer
        lines = buffer.split(b"\n")
        begins_inside = 1 if position > 0 else 0
        offset = position + len(buffer) - len(lines[-1])
        for raw in reversed(lines[begins_inside:-1]):
            offset -= len(raw) + 1
            yield offset, raw
        if len(lines) > 1:
            buffer = lines[0] + b"\n"


def line_starts(file: BinaryIO) -> Iterator[int]:
    """Offsets at which lines begin, the last line first; the parts of a long line are one line."""
    start: Optional[int] = None
    for offset, raw in backward(file):
        line = parse_line(raw)
        if line is None:
            continue
        if line.full and start is not None:
            yield start
        start = offset
    if start is not None:
        yield start


def last(starts: Iterator[int], wanted: int) -> list[int]:
    """Up to wanted of them, in file order."""
    taken: list[int] = []
    for start in starts:
        taken.append(start)
        if len(taken) == wanted:
            break
    return taken[::-1]


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def termination_message(path: Path) -> str:
    """The last lines of a log, for terminationMessagePolicy FallbackToLogsOnError (2048 bytes or 80 lines, as kubelet)."""
    try:
        with path.open("rb") as file:
            offsets = last(line_starts(file), MESSAGE_LINES)
            if not offsets:
                return ""
            file.seek(offsets[0])
            lines = [parse_line(raw) for raw in file.read().split(b"\n")]
    except OSError:
        return ""
    text = b"".join(line.text + (b"\n" if line.full else b"") for line in lines if line)
    return text[-MESSAGE_BYTES:].decode("utf-8", "replace")
