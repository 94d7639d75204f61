# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of an image onto a directory, from archives that anybody may have written.

A layer is a tar that may hold any name, link or size. Names that are absolute or climb with .. are refused, so are devices, FIFOs and
sparse files; parents are walked one by one from the directory, symbolic links among them followed as the image itself would see
them (an absolute link begins at the image's root) and refused where they climb above it; hard links name regular
files of the image only; set-id bits are dropped. Entries, bytes, depth and time are counted against limits while they are unpacked, so
that a bomb ends early. Whiteouts are OCI's (image-spec, layer.md): .wh.NAME removes NAME, .wh..wh..opq empties a directory of what
lower layers put there.

Nobody else writes to the directory meanwhile: the store unpacks into one of its own and renames it into place when all is well.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tarfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

CHUNK = 1 << 18
HEADER_MOST = 1 << 20
PATH_MOST = 4096
DEPTH_MOST = 128
GLOBALS_MOST = 256
PAX_MOST = 1 << 18
_DIGITS = re.compile(rb"[0-9]{100}")
ZSTD_WINDOW_MOST = 1 << 27
"""What the zstd program itself takes without being told to take more; a decoder holds that much in memory."""
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


@dataclass
class Budget:
    """What one image may still unpack; shared by its layers. deadline: when it must be done, on time.monotonic()."""

    bytes_left: int
    entries_left: int
    deadline: float = float("inf")

    def take_bytes(self, count: int) -> None:
        """Count unpacked bytes. Raises UnifleetError when there are too many."""
        self.check_time()
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise UnifleetError(
                "the image unpacks to more bytes than this host allows or its disk has left", "make room on the disk, or the image smaller"
            )

    def take_entry(self) -> None:
        """Count one entry of an archive."""
        self.entries_left -= 1
        if self.entries_left < 0:
            raise UnifleetError("the image has more files than this host allows", "make the image smaller")
        self.check_time()

    def check_time(self) -> None:
        """Raises UnifleetError when the time is over."""
        if time.monotonic() > self.deadline:
            raise UnifleetError("the image takes too long to unpack on this host", "make the image smaller")


class _Forward:
    """A forward-only file for tarfile: decompresses, hashes and counts what goes through, and refuses absurd header sizes."""

    def __init__(self, source: IO[bytes], budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._hash = hashlib.sha256()
        self._position = 0
        self._ready = b""
        self._last = b""
        self._again = False
        start = source.read(4)
        self._zstd = _zstd_reader(_Joined(start, source)) if _is_zstd(start) else None
        self._inflate = zlib.decompressobj(31) if start[:2] == b"\x1f\x8b" else None
        self._pending = start

    def _more(self) -> bytes:
        """The next decompressed bytes, at most CHUNK; empty at the end."""
        if self._zstd is not None:
            return bytes(self._zstd.read(CHUNK))
        if self._inflate is None:
            raw, self._pending = self._pending or self._source.read(CHUNK), b""
            return raw
        while True:
            if self._inflate.eof:
                self._pending = self._inflate.unused_data or self._source.read(CHUNK)
                if not self._pending:
                    return b""
                self._inflate = zlib.decompressobj(31)
                self._budget.check_time()
            if not self._pending:
                self._pending = self._source.read(CHUNK)
                if not self._pending:
                    raise UnifleetError("a layer's compressed data ends too early", "push the image anew")
            out = self._inflate.decompress(self._pending, CHUNK)
            self._pending = self._inflate.unconsumed_tail
            if out:
                return out

    def read(self, size: int) -> bytes:
        """Up to size bytes; fewer only at the end."""
        if size > HEADER_MOST:
            raise UnifleetError("a layer has a header of absurd size", "push the image anew")
        out = b""
        if self._again and size > 0:
            out, self._again = self._last, False
        while len(out) < size:
            if not self._ready:
                self._ready = self._more()
                if not self._ready:
                    break
                self._hash.update(self._ready)
                self._budget.take_bytes(len(self._ready))
            take = size - len(out)
            out += self._ready[:take]
            self._ready = self._ready[take:]
        self._position += len(out)
        if out:
            self._last = out[-1:]
        return out

    def unread(self, data: bytes) -> None:
        """Put back what was read last."""
        self._ready = data + self._ready
        self._position -= len(data)
        self._again = False

    def tell(self) -> int:
        """The position in the decompressed stream."""
        return self._position

    def seek(self, position: int) -> int:
        """Go forward, or one byte back, which is all that tarfile asks for."""
        if position == self._position - 1 and self._last and not self._again:
            self._again = True
            self._position = position
        elif position < self._position:
            raise UnifleetError("a layer's archive is not in order", "push the image anew")
        while self._position < position:
            if not self.read(min(CHUNK, position - self._position)):
                break
        return self._position

    def digest(self) -> str:
        """Read the rest and give the digest of the whole decompressed stream."""
        while self.read(CHUNK):
            pass
        return "sha256:" + self._hash.hexdigest()


class _Header(tarfile.TarInfo):
    """tarfile's reader of headers, kept from those it cannot read in bounded time.

    Its regular expressions take quadratic time, while nothing else in this process runs, on records that lie about their length and on
    long runs of digits (CVE-2024-6232, in every Python before the end of 2024). Sparse files are refused before their maps are read.
    """

    def _proc_pax(self, tarfile: tarfile.TarFile) -> tarfile.TarInfo:
        stream: Any = tarfile.fileobj
        if self.size > PAX_MOST:
            raise UnifleetError("a layer has a header of absurd size", "push the image anew")
        body = stream.read(self._block(self.size))  # type: ignore[attr-defined]
        _check_pax(body[: max(0, self.size)])
        stream.unread(body)
        return super()._proc_pax(tarfile)  # type: ignore[misc,no-any-return]

    def _proc_sparse(self, tarfile: tarfile.TarFile) -> tarfile.TarInfo:  # noqa: ARG002
        raise UnifleetError(f"a layer has a sparse file {self.name[:200]!r}, which is not unpacked", "pack it without holes")


def _check_pax(body: bytes) -> None:
    """Each record is "LENGTH KEY=VALUE" and a newline, LENGTH counting all of it (POSIX.1-2001, pax). Raises UnifleetError."""
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 8)
        length = int(body[at:space]) if space > at and body[at:space].isdigit() else 0
        record = body[at : at + length]
        if length == 0 or not record.endswith(b"\n") or b"=" not in record:
            raise UnifleetError("a layer has a header that cannot be read", "push the image anew")
        if body.startswith(b"GNU.sparse.", space + 1):
            raise UnifleetError("a layer has a sparse file, which is not unpacked", "pack it without holes")
        at += length
    if _DIGITS.search(body):
        raise UnifleetError("a layer has a number of absurd length in a header", "push the image anew")


class _Joined:
    """A file whose first bytes were read already."""

    def __init__(self, start: bytes, source: IO[bytes]) -> None:
        self._start = start
        self._source = source

    def read(self, size: int) -> bytes:
        start, self._start = self._start[:size], self._start[size:]
        return start or self._source.read(size)


def _is_zstd(start: bytes) -> bool:
    """A frame (RFC 8878, 3.1.1), or a skippable one before it (3.1.2)."""
    return start == b"\x28\xb5\x2f\xfd" or (start[1:] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F)


def _zstd_reader(source: _Joined) -> Any:
    """Decompresses with bounded memory: read(n) gives at most n bytes, however much a byte of input stands for."""
    try:
        import zstandard
    except ImportError as error:
        raise UnifleetError(
            "a layer is compressed with zstd, which this host cannot unpack",
            "install python3-zstandard, or push the image with gzip layers",
        ) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MOST)
    return decompressor.stream_reader(source, read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]


@dataclass
class _Layer:
    """One layer on its way onto root. made: what this layer itself put there, and the directories above, which whiteouts spare."""

    root: Path
    budget: Budget
    owner: bool
    made: set[Path] = field(default_factory=set)
    emptied: set[Path] = field(default_factory=set)
    directories: dict[Path, tuple[int, float]] = field(default_factory=dict)

    def place(self, entry: tarfile.TarInfo, stream: _Forward) -> None:
        """Put one entry of the archive where it belongs."""
        parent, name = self._target(entry.name)
        if name.startswith(WHITEOUT):
            self._whiteout(parent, name)
            return
        target = parent / name if name else self.root
        if entry.isdir():
            self._directory(target, entry)
            return
        if not name:
            raise UnifleetError(f"a layer's entry {entry.name[:200]!r} would replace the image's root", "mend the image")
        self._clear(target)
        if entry.isreg() and not entry.issparse():
            self._file(target, entry, stream)
        elif entry.issym():
            target.symlink_to(entry.linkname)
            self._chown(target, entry)
        elif entry.islnk():
            self._hard_link(target, entry)
        else:
            kind = "sparse file" if entry.isreg() else "device, FIFO or unknown entry"
            raise UnifleetError(f"a layer has a {kind} {entry.name[:200]!r}, which is not unpacked", "take it out of the image")
        self.made.add(target)

    def finish(self) -> None:
        """Set the directories' own modes and times, now that nothing is put into them any more."""
        for path, (mode, modified) in sorted(self.directories.items(), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.chmod(mode)
                os.utime(path, (modified, modified))

    def _target(self, name: str) -> tuple[Path, str]:
        if len(name) > PATH_MOST:
            raise UnifleetError(f"a layer has an entry with a name of {len(name)} characters", f"at most {PATH_MOST} are allowed")
        if name.startswith("/") or "\0" in name or ".." in name.split("/"):
            raise UnifleetError(f"a layer has the entry {name[:200]!r}, which leads out of the image", "names are relative and without ..")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            return self.root, ""
        parent = self.root
        for part in parts[:-1]:
            parent = parent / part
            if parent.is_symlink():
                parent = resolve_in_root(self.root, str(parent.relative_to(self.root)))
            if not parent.is_dir():
                if parent.exists() or parent.is_symlink():
                    raise UnifleetError(f"a layer puts {name[:200]!r} below something that is no directory", "mend the image")
                self._check_depth(parent, name)
                self.budget.take_entry()
                parent.mkdir(parents=True)
            self.made.add(parent)
        self._check_depth(parent / parts[-1], name)
        return parent, parts[-1]

    def _check_depth(self, path: Path, name: str) -> None:
        if len(path.parts) - len(self.root.parts) > DEPTH_MOST:
            raise UnifleetError(f"a layer's entry {name[:200]!r} is more than {DEPTH_MOST} directories deep", "make the image flatter")

    def _directory(self, target: Path, entry: tarfile.TarInfo) -> None:
        if target.is_symlink() or not target.is_dir():
            self._clear(target)
            target.mkdir()
        self.made.add(target)
        self._chown(target, entry)
        self.directories[target] = (entry.mode & 0o777 | 0o500, _time(entry))

    def _file(self, target: Path, entry: tarfile.TarInfo, stream: _Forward) -> None:
        stream.seek(entry.offset_data)
        left = entry.size
        with target.open("xb") as out:
            while left:
                data = stream.read(min(CHUNK, left))
                if not data:
                    raise UnifleetError(f"a layer ends in the midst of {entry.name[:200]!r}", "push the image anew")
                out.write(data)
                left -= len(data)
        self._chown(target, entry)
        target.chmod(entry.mode & 0o777)
        os.utime(target, (_time(entry), _time(entry)))

    def _hard_link(self, target: Path, entry: tarfile.TarInfo) -> None:
        name = entry.linkname
        if name.startswith("/") or ".." in name.split("/"):
            raise UnifleetError(f"a layer links {entry.name[:200]!r} to {name[:200]!r}, out of the image", "mend the image")
        source = resolve_in_root(self.root, name, follow_last=False)
        if source.is_symlink() or not source.is_file():
            raise UnifleetError(f"a layer links {entry.name[:200]!r} to {name[:200]!r}, which is no file in the image", "mend the image")
        os.link(source, target, follow_symlinks=False)

    def _whiteout(self, parent: Path, name: str) -> None:
        if name == OPAQUE:
            if parent not in self.emptied:
                self.emptied.add(parent)
                for child in list(parent.iterdir()):
                    self._remove_lower(child)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
            raise UnifleetError(f"a layer has the whiteout {name[:200]!r}, which names nothing", "mend the image")
        if parent / hidden not in self.made:
            _remove(parent / hidden)

    def _remove_lower(self, path: Path) -> None:
        self.budget.check_time()
        if path not in self.made:
            _remove(path)
        elif path.is_dir() and not path.is_symlink():
            for child in list(path.iterdir()):
                self._remove_lower(child)

    def _clear(self, target: Path) -> None:
        if target.is_symlink() or target.exists():
            _remove(target)

    def _chown(self, target: Path, entry: tarfile.TarInfo) -> None:
        if self.owner:
            if not (0 <= entry.uid < 1 << 31 and 0 <= entry.gid < 1 << 31):
                raise UnifleetError(f"a layer's entry {entry.name[:200]!r} has an owner out of range", "mend the image")
            os.chown(target, entry.uid, entry.gid, follow_symlinks=False)


def _time(entry: tarfile.TarInfo) -> float:
    return min(max(float(entry.mtime), 0.0), 4e9)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory, _names, _files in os.walk(path):
        mode = stat.S_IMODE(Path(directory).lstat().st_mode)
        Path(directory).chmod(mode | 0o700)
    shutil.rmtree(path)


def unpack_layer(source: IO[bytes], root: Path, budget: Budget) -> str:
    """Put one layer (a tar, plain or compressed with gzip or zstd) onto root. Returns the digest of the tar itself, the layer's diff id.

    Raises UnifleetError on anything that an image may not hold; then root is to be thrown away.
    """
    stream = _Forward(source, budget)
    layer = _Layer(root, budget, owner=os.geteuid() == 0)
    try:
        with tarfile.TarFile(fileobj=stream, mode="r", errorlevel=2, tarinfo=_Header) as tar:  # type: ignore[arg-type]
            while True:
                entry = tar.next()
                if entry is None:
                    break
                tar.members = []  # type: ignore[attr-defined]
                if len(tar.pax_headers) > GLOBALS_MOST:
                    raise UnifleetError(f"a layer has {len(tar.pax_headers)} global headers", f"at most {GLOBALS_MOST} are allowed")
                budget.take_entry()
                layer.place(entry, stream)
        layer.finish()
        return stream.digest()
    except UnifleetError:
        raise
    except OSError as error:
        name = getattr(error, "filename", None)
        raise UnifleetError(f"a layer cannot be unpacked: {error.strerror} ({str(name)[-200:]})", "see that the disk has room") from error
    except Exception as error:  # tarfile has many ways to stumble: IndexError, struct.error, zstd's own, ...
        raise UnifleetError(f"a layer is not a readable archive: {error or type(error).__name__}", "push the image anew") from error
