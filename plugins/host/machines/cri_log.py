# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw output of machines, translated live into log files in the format of the Container Runtime Interface.

A machine writes its output straight into raw files (QEMU's serial log, a unit's StandardOutput=append:), so that no byte is lost
while the agent is away. Here it becomes "TIME STREAM TAG TEXT" lines (kubernetes/kubernetes
pkg/kubelet/kuberuntime/logs, containerd pkg/cri/io/logger.go). Where to go on after a kill -9 needs no bookkeeping that could be
wrong: what is in the CRI log says how much of each raw file was consumed, as a full line (F) stands for its text and one newline and
a partial one (P) for its text alone. A torn last line is cut off and made again.

Rotation keeps that exact: before a new log file takes the old one's place, a small file beside it says, by inode, at which raw offsets
each of the two begins. Behind the consumed offset the raw file is made sparse, so it stays small on disk for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

MAX_LINE = 16 << 10
"""Longest text of one CRI line, in bytes (containerd's max_container_log_line_size)."""
_CHUNK = 128 << 10
_KEEP_RAW = 64 << 10
"""Consumed bytes that stay readable in the raw file: the exit code and the last words are read from there."""
_PUNCH_STEP = 1 << 20


def cri_lines(stream: bytes, data: bytes, stamp: bytes, final: bool = False) -> tuple[bytes, int]:
    """CRI lines for the raw bytes and how many of them they stand for; the start of an unfinished line is left for later.

    The result does not depend on how a stream is cut into pieces. final: no more will come, so the rest becomes a partial line.
    """
    full, partial = b"%s %s F " % (stamp, stream), b"%s %s P " % (stamp, stream)
    out: list[bytes] = []
    position, size = 0, len(data)
    while position < size:
        newline = data.find(b"\n", position)
        end = newline if newline >= 0 else size
        while end - position > MAX_LINE:
            out += (partial, data[position : position + MAX_LINE], b"\n")
            position += MAX_LINE
        if newline >= 0:
            out += (full, data[position:end], b"\n")
            position = end + 1
        elif final:
            out += (partial, data[position:end], b"\n")
            position = end
        else:
            break
    return b"".join(out), position


def consumed_by(log: bytes) -> tuple[dict[bytes, int], int]:
    """Raw bytes of each stream that these CRI lines stand for, and the length of the log's intact part."""
    consumed: dict[bytes, int] = {}
    position = 0
    while True:
        end = log.find(b"\n", position)
        parts = log[position:end].split(b" ", 3) if end >= 0 else []
        if len(parts) != 4 or parts[2] not in (b"F", b"P"):
            return consumed, position
        consumed[parts[1]] = consumed.get(parts[1], 0) + len(parts[3]) + (parts[2] == b"F")
        position = end + 1


def time_stamp(nanoseconds: int) -> bytes:
    """RFC 3339 with nine digits, UTC."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z".encode()


class _RawFile:
    """One raw file that somebody else appends to, and how far it was consumed."""

    def __init__(self, stream: str, path: Path) -> None:
        self.stream = stream.encode()
        self.path = path
        self.consumed = 0
        self._punched = 0
        self._fd = -1

    def open(self) -> bool:
        if self._fd < 0:
            flags = os.O_CLOEXEC | os.O_NOFOLLOW
            for mode in (os.O_RDWR, os.O_RDONLY):
                with contextlib.suppress(OSError):
                    self._fd = os.open(self.path, flags | mode)
                    break
        return self._fd >= 0

    def behind(self) -> int:
        """Bytes that wait. A file that shrank (a host that lost its last writes) is waited for no further than its end."""
        if not self.open():
            return 0
        size = os.fstat(self._fd).st_size
        self.consumed = min(self.consumed, size)
        return size - self.consumed

    def read(self) -> bytes:
        return os.pread(self._fd, _CHUNK, self.consumed)

    def first_data(self) -> int:
        """Where the bytes begin that were not given back to the file system."""
        if not self.open():
            return 0
        try:
            return os.lseek(self._fd, 0, os.SEEK_DATA)
        except OSError:
            return os.fstat(self._fd).st_size

    def punch(self) -> None:
        """Give consumed bytes back to the file system."""
        end = (self.consumed - _KEEP_RAW) & ~4095
        if end - self._punched >= _PUNCH_STEP:
            _punch_hole(self._fd, self._punched, end - self._punched)
            self._punched = end

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class CriLog:
    """The CRI log of one run of a machine. Not thread-safe; ConsoleLog (console_log.py) is.

    raw: (stream name, raw file) pairs; the files may appear later. Rotates at max_bytes; max_files counts the current one too.
    """

    def __init__(
        self,
        raw: Iterable[tuple[str, Path]],
        path: Path,
        max_bytes: int = 10 << 20,
        max_files: int = 5,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self._raw = [_RawFile(stream, file) for stream, file in raw]
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock = clock
        self._offsets_path = path.with_name(f".{path.name}.offsets")
        self._next_path = path.with_name(f".{path.name}.next")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = -1
        self._size = 0
        self._resume()

    def pump(self, final: bool = False) -> None:
        """Translate all that waits. final: the machine has stopped, so a last line without newline is written too.

        Raises OSError when the log cannot be written; nothing is lost by that, the next call goes on where the log ends.
        """
        for raw in self._raw:
            while raw.behind():
                data = raw.read()
                at_end = final and raw.consumed + len(data) >= os.fstat(raw._fd).st_size
                text, used = cri_lines(raw.stream, data, time_stamp(self._clock()), at_end)
                if not used:
                    break
                self._write(text)
                raw.consumed += used
                raw.punch()

    def close(self) -> None:
        """Let go of all files."""
        for raw in self._raw:
            raw.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, text: bytes) -> None:
        status = os.fstat(self._fd)
        if status.st_nlink == 0 or self._size >= self._max_bytes:
            self._rotate(status.st_nlink > 0)
        try:
            written = 0
            while written < len(text):
                written += os.write(self._fd, text[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(text)

    def _resume(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._begin()
            return
        status = os.fstat(self._fd)
        with open(self._fd, "rb", closefd=False) as file:
            consumed, self._size = consumed_by(file.read())
        if self._size != status.st_size:
            os.ftruncate(self._fd, self._size)
        bases = self._read_offsets().get(str(status.st_ino), {})
        for raw in self._raw:
            raw.consumed = bases.get(raw.stream.decode(), 0) + consumed.get(raw.stream, 0)
        self._tidy(status.st_ino)

    def _begin(self) -> None:
        """A first log file; or somebody removed it, and the raw file is translated again as far back as it goes."""
        for raw in self._raw:
            raw.consumed = raw.first_data()
        if any(raw.consumed for raw in self._raw):
            self._rotate(False)
        else:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            self._size = 0

    def _rotate(self, keep_old: bool) -> None:
        """A new file takes the log's place; at no moment is the path missing or the way to resume unclear."""
        offsets = self._read_offsets()
        kept = {}
        if keep_old:
            inode = str(os.fstat(self._fd).st_ino)
            kept[inode] = offsets.get(inode, {})
        with contextlib.suppress(FileNotFoundError):
            self._next_path.unlink()
        fd = os.open(self._next_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        kept[str(os.fstat(fd).st_ino)] = {raw.stream.decode(): raw.consumed for raw in self._raw}
        temporary = self._offsets_path.with_name(self._offsets_path.name + ".tmp")
        temporary.write_text(json.dumps(kept))
        temporary.replace(self._offsets_path)
        if keep_old:
            now = datetime.fromtimestamp(self._clock() / 1e9, timezone.utc)
            with contextlib.suppress(FileExistsError):
                os.link(self.path, f"{self.path}.{now:%Y%m%d-%H%M%S.%f}")
        self._next_path.replace(self.path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, 0
        self._tidy(os.fstat(fd).st_ino)

    def _tidy(self, current_inode: int) -> None:
        """Remove rotated files beyond the limit, and what a rotation cut short left behind."""
        with contextlib.suppress(FileNotFoundError):
            self._next_path.unlink()
        rotated = []
        with os.scandir(self.path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(self.path.name + "."):
                    if entry.inode() == current_inode:
                        Path(entry.path).unlink()
                    else:
                        rotated.append(entry.path)
        for path in sorted(rotated)[: max(0, len(rotated) - (self._max_files - 1))]:
            Path(path).unlink()

    def _read_offsets(self) -> dict[str, dict[str, int]]:
        try:
            loaded = json.loads(self._offsets_path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}


_LIBC = ctypes.CDLL(None, use_errno=True)
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2


def _punch_hole(fd: int, offset: int, length: int) -> None:
    """Best effort: a file system that cannot do it (or a read-only descriptor) keeps the bytes."""
    mode = ctypes.c_int(_FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE)
    if _LIBC.fallocate64(ctypes.c_int(fd), mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS, errno.EPERM):
            raise OSError(code, os.strerror(code))
