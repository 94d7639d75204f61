# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory that a host keeps images in, by digest: what is where, what is under way, what was used when.

    DIRECTORY/images/sha256-HEX/root         an unpacked image; the digest is that of its platform's manifest
    DIRECTORY/images/sha256-HEX/image.json   that digest, the image's config and its size on disk; its time says when it was last used
    DIRECTORY/references/HEX.json            which digest a reference last meant
    DIRECTORY/locks/, DIRECTORY/work/        one lock for each start of a digest; what is under way

Everything is made in work/ and renamed into place when it is whole, and is renamed back there before it is removed. So a crash at any
moment leaves whole images in images/ and the rest in work/; what no living process holds there is swept when a cache is opened and
whenever images are collected.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import is_digest


@dataclass(frozen=True)
class CachedImage:
    """An image that is here. size: bytes on disk. used_at: seconds since the epoch. references: the names that mean it, sorted."""

    digest: str
    size: int
    used_at: float
    references: tuple[str, ...] = ()


class ImageCache:
    """Blocking; safe from any thread, and beside other processes with the same directory. platform: what names are resolved for."""

    def __init__(self, directory: Path, platform: str = "") -> None:
        self.directory = directory
        self._platform = platform
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, mode in (("images", 0o755), ("references", 0o700), ("locks", 0o700), ("work", 0o700)):
            (directory / name).mkdir(mode=mode, exist_ok=True)
        self.sweep()

    def root(self, digest: str) -> Path:
        """Where the file system of an image is, or would be."""
        return self._place(digest) / "root"

    def use(self, digest: str) -> Optional[Mapping[str, Any]]:
        """What was recorded of a whole image, which counts as used from now on; None when it is not here."""
        file = self._place(digest) / "image.json"
        with self._locked("use", fcntl.LOCK_SH):
            record = _read(file)
            if record is None or record.get("digest") != digest:
                return None
            _touch(file)
        return record

    def adopt(self, new: Path, digest: str, record: Mapping[str, Any]) -> None:
        """Take over new, a directory below work/ with root in it, as the image of this digest. The caller holds lock(digest)."""
        _sync(new)
        (new / "image.json").write_text(json.dumps({**record, "digest": digest, "size": disk_usage(new)}, sort_keys=True))
        _sync(new)
        place = self._place(digest)
        if place.exists():
            self._discard(place)
        new.rename(place)

    def remember(self, reference: str, digest: str, work: Path) -> None:
        """That the reference means this digest now."""
        new = work / "reference.json"
        new.write_text(json.dumps({"reference": reference, "digest": digest}))
        new.replace(self._reference_file(reference))

    def meaning(self, reference: str) -> str:
        """The digest that the reference last meant, "" when it is not known."""
        digest = (_read(self._reference_file(reference)) or {}).get("digest")
        return digest if isinstance(digest, str) and is_digest(digest) else ""

    def images(self) -> list[CachedImage]:
        """Every whole image."""
        names: dict[str, list[str]] = {}
        for file in (self.directory / "references").iterdir():
            said = _read(file) or {}
            names.setdefault(str(said.get("digest")), []).append(str(said.get("reference")))
        found, now = [], time.time()
        for place in (self.directory / "images").iterdir():
            file = place / "image.json"
            record = _read(file)
            if record is None or self._place(str(record.get("digest"))) != place:
                continue
            digest, size = str(record["digest"]), record.get("size")
            with contextlib.suppress(FileNotFoundError):  # it was collected meanwhile
                used_at = file.stat().st_mtime
                if used_at > now + 60:  # the clock was set back; without this the image would stay for ever
                    _touch(file)
                    used_at = now
                size = size if isinstance(size, int) else disk_usage(place)
                found.append(CachedImage(digest, size, used_at, tuple(sorted(names.get(digest, ())))))
        return found

    def remove(self, digest: str, unused_since: float) -> bool:
        """Remove an image, unless it was used at or after that time (seconds since the epoch). Returns whether it was removed."""
        place = self._place(digest)
        with self.work() as work:
            with self._locked("use", fcntl.LOCK_EX):
                try:
                    if (place / "image.json").stat().st_mtime >= unused_since:
                        return False
                    place.rename(work / "removed")
                except FileNotFoundError:
                    return False
            for file in (self.directory / "references").iterdir():
                if (_read(file) or {}).get("digest") == digest:
                    file.unlink(missing_ok=True)
            return True

    @contextlib.contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """One at a time for a digest. The first byte names the lock, so that there are 256 files and never more."""
        with self._locked(digest.partition(":")[2][:2], fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A private directory, locked while it is in use so that no sweep takes it."""
        with self._locked("work", fcntl.LOCK_SH):
            work = Path(tempfile.mkdtemp(dir=self.directory / "work"))
            handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield work
        finally:
            remove_tree(work)
            os.close(handle)

    def sweep(self) -> None:
        """Remove what a process that died left in work/, and an image without a record, should a power cut have left one."""
        with self._locked("work", fcntl.LOCK_EX):
            for left in (self.directory / "work").iterdir():
                try:
                    handle = os.open(left, os.O_RDONLY)
                except FileNotFoundError:
                    continue
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(left)
                except BlockingIOError:
                    pass
                finally:
                    os.close(handle)
        for place in (self.directory / "images").iterdir():
            if _read(place / "image.json") is None:
                with contextlib.suppress(FileNotFoundError):
                    self._discard(place)

    def _discard(self, place: Path) -> None:
        with self.work() as work:
            place.rename(work / "removed")

    def _place(self, digest: str) -> Path:
        return self.directory / "images" / digest.replace(":", "-").replace("/", "-")

    def _reference_file(self, reference: str) -> Path:
        return self.directory / "references" / f"{hashlib.sha256(f'{reference} {self._platform}'.encode()).hexdigest()}.json"

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        with (self.directory / "locks" / name).open("ab") as file:
            fcntl.flock(file, how)
            yield


def disk_usage(path: Path) -> int:
    """Bytes that a tree takes on disk, each hard-linked file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _names, files in os.walk(path):
        for name in (".", *files):
            status = os.lstat(Path(directory, name))
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def remove_tree(path: Path) -> None:
    """Remove a file or a tree, whatever the rights of the directories in it."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        for directory, _names, _files in os.walk(path):
            Path(directory).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _touch(file: Path) -> None:
    """Used now: by the clock that the caller of remove() reads; the kernel's own for files is some milliseconds behind."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def _read(file: Path) -> Optional[dict[str, Any]]:
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _sync(path: Path) -> None:
    """All of the file system that path is on, to disk: a rename must not outlive the files it stands for."""
    handle = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(handle)
    except AttributeError:
        os.sync()
    finally:
        os.close(handle)
