# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of the host programs on one host: side by side in one directory, behind a `current` link.

A version's directory is never changed once it has its name: it is unpacked and byte-compiled under another name and then renamed,
so an install that breaks half-way leaves `current` as it was, and programs that run go on with the files they were started from.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

MANIFEST = "MANIFEST"
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*")
LINKS = frozenset({"current", "previous"})

Compile = Callable[[Path, Path], None]
"""Byte-compiles the sources below the first directory as if they lay in the second."""


class Installation:
    """The directory that holds the versions, for example /usr/local/lib/unifleet."""

    def __init__(self, directory: Path, bin_directory: Path) -> None:
        self.directory = directory
        self.bin_directory = bin_directory

    def path(self, version: str) -> Path:
        if not VERSION.fullmatch(version) or version in LINKS:
            raise UnifleetError(f"{version!r} is no version", "versions look like 0.1.0+1a2b3c4d")
        return self.directory / version

    @property
    def current(self) -> Optional[str]:
        return self._link("current")

    @property
    def previous(self) -> Optional[str]:
        return self._link("previous")

    def _link(self, name: str) -> Optional[str]:
        try:
            return Path(os.readlink(self.directory / name)).name  # noqa: PTH115 - Path.readlink resolves nothing more
        except OSError:
            return None

    def versions(self) -> list[str]:
        """The installed versions, the newest first."""
        try:
            found = [p for p in self.directory.iterdir() if VERSION.fullmatch(p.name) and not p.is_symlink() and (p / MANIFEST).is_file()]
        except FileNotFoundError:
            return []
        return [p.name for p in sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)]

    def manifest(self, version: Optional[str]) -> str:
        """The manifest that a version was installed with; empty when it is not installed."""
        if version is None:
            return ""
        try:
            return (self.path(version) / MANIFEST).read_text(encoding="utf-8")
        except OSError:
            return ""

    def fault(self, version: str, manifest: Optional[str], cache_tag: str) -> Optional[str]:
        """Why the version has to be installed (again), or None when it is whole.

        manifest: what it should hold, None for what it says itself. cache_tag: for which Python it should be compiled ("cpython-311").
        """
        own = self.manifest(version)
        if not own:
            return "not installed"
        if manifest is not None and own != manifest:
            return "installed with other content"
        for digest, mode, name in (line.split(" ", 2) for line in own.splitlines()):
            path = self.path(version) / name
            try:
                content = path.read_bytes()
                if f"{path.stat().st_mode & 0o777:04o}" != mode:
                    return f"{name} has another mode"
            except OSError:
                return f"{name} is missing"
            if hashlib.sha256(content).hexdigest() != digest:
                return f"{name} was changed"
            if name.endswith(".py") and not (path.parent / "__pycache__" / f"{path.stem}.{cache_tag}.pyc").is_file():
                return f"not compiled for {cache_tag}"
        return None

    def install(self, version: str, manifest: str, archive: Path, compile_sources: Compile) -> None:
        """Unpack, check against the manifest, compile, and only then give it its name. Raises UnifleetError and leaves nothing behind."""
        final = self.path(version)
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self.directory))
        try:
            unpack(archive, staging)
            (staging / MANIFEST).write_text(manifest, encoding="utf-8")
            _check(staging, manifest)
            compile_sources(staging, final)
            for directory in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
                directory.chmod(0o755)  # whatever the umask is
            if final.exists():  # damaged: set aside first, a directory cannot replace one that is not empty
                damaged = Path(tempfile.mkdtemp(prefix=".old-", dir=self.directory))
                final.rename(damaged / "old")
            staging.rename(final)
        finally:
            for leftover in (*self.directory.glob(".new-*"), *self.directory.glob(".old-*")):
                shutil.rmtree(leftover, ignore_errors=True)

    def activate(self, version: str) -> None:
        """Let `current` name the version, atomically; `previous` remembers what it named before."""
        before = self.current
        if before == version:
            return
        if before is not None and self.path(before).is_dir():
            replace_link(self.directory / "previous", before)
        replace_link(self.directory / "current", version)

    def missing_links(self, programs: Iterable[str]) -> list[str]:
        """The programs whose link in the bin directory is missing or leads elsewhere."""
        return [name for name in programs if not self._is_ours(self.bin_directory / name)]

    def stale_links(self, programs: Iterable[str]) -> list[str]:
        """Links in the bin directory that lead here though the programs are no longer wanted."""
        wanted = set(programs)
        try:
            return sorted(p.name for p in self.bin_directory.iterdir() if p.name not in wanted and self._is_ours(p))
        except FileNotFoundError:
            return []

    def link(self, programs: Sequence[str]) -> None:
        """Make the bin directory's links; refuse to overwrite what is not ours to overwrite."""
        self.bin_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in self.stale_links(programs):
            (self.bin_directory / name).unlink()
        for name in self.missing_links(programs):
            path = self.bin_directory / name
            if path.exists() and not path.is_symlink():
                raise UnifleetError(
                    f"{path} exists and is not a link of this installation", "move it away, or choose another bin_directory"
                )
            replace_link(path, str(self._target(name)))

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest versions; what `current` and `previous` name always stays. Returns what went."""
        protected = {self.current, self.previous}
        gone = [v for v in self.versions()[max(keep, 1) :] if v not in protected]
        for version in gone:
            shutil.rmtree(self.path(version), ignore_errors=True)
        return gone

    def _target(self, name: str) -> Path:
        return self.directory / "current" / "bin" / name

    def _is_ours(self, path: Path) -> bool:
        return path.is_symlink() and os.readlink(path) == str(self._target(path.name))  # noqa: PTH115


def replace_link(path: Path, target: str) -> None:
    """Make path a symbolic link to target; whoever looks sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def unpack(archive: Path, directory: Path) -> None:
    """Unpack regular files only, none outside the directory."""
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for member in tar:
                parts = Path(member.name).parts
                if not member.isreg() or not parts or ".." in parts or member.name.startswith("/"):
                    raise UnifleetError(
                        f"{archive} holds {member.name!r}, which is not a file below the version's directory", "pack it again"
                    )
                source = tar.extractfile(member)
                if source is None:
                    raise UnifleetError(f"{archive}: {member.name!r} has no content", "pack it again")
                path = directory.joinpath(*parts)
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                path.write_bytes(source.read())
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UnifleetError(f"cannot unpack {archive}: {error}", "transfer it again; check the free space") from error


def _check(directory: Path, manifest: str) -> None:
    for line in manifest.splitlines():
        try:
            digest, _mode, name = line.split(" ", 2)
            if hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest:
                continue
        except (OSError, ValueError):
            name = line
        raise UnifleetError(f"the archive does not hold what its manifest says: {name}", "transfer it again")
