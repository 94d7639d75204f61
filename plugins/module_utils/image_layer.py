# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One layer of an image as a tar file, the same bytes for the same files.

Times are 0, owners root, entries sorted; directories come as they are needed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass(frozen=True)
class Link:
    """A symbolic link in an image."""

    target: str


FileOrLink = Union[tuple[bytes, bool], Link]
"""The bytes of a file and whether it can be executed, or a link."""


def layer_tar(files: Mapping[str, FileOrLink]) -> bytes:
    """files: by path in the image ("bin/sh"). Raises UnifleetError for a path that leads out of the image."""
    out = io.BytesIO()
    directories: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            parts = name.split("/")
            if any(part in ("", ".", "..") for part in parts):
                raise UnifleetError(f"{name!r} is not a path in an image", "write a path without . or .. or empty parts")
            for depth in range(1, len(parts)):
                directory = "/".join(parts[:depth])
                if directory not in directories:
                    directories.add(directory)
                    tar.addfile(_entry(directory, tarfile.DIRTYPE, 0o755))
            content = files[name]
            if isinstance(content, Link):
                entry = _entry(name, tarfile.SYMTYPE, 0o777)
                entry.linkname = content.target
                tar.addfile(entry)
            else:
                add_file(tar, name, content[0], 0o755 if content[1] else 0o644)
    return out.getvalue()


def add_file(tar: tarfile.TarFile, name: str, body: bytes, mode: int) -> None:
    """Add one regular file of root's with no time."""
    tar.addfile(_entry(name, tarfile.REGTYPE, mode, len(body)), io.BytesIO(body))


def _entry(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry
