# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image's path is on the host. By itself, for it is asked at each start of a container, and unpacking is not."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LINKS_MOST = 40


def resolve_in_root(root: Path, path: str, follow_last: bool = True) -> Path:
    """The path on the host of an image's path, symbolic links followed inside the image only; what is not there yet is kept as it is.

    Raises UnifleetError where a link climbs above the root, or links go round.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")][::-1]
    walked: list[str] = []
    links = 0
    while parts:
        part = parts.pop()
        if part == "..":
            if not walked:
                raise UnifleetError(f"path {path[:200]!r} leads out of the image", "an image may only name what is inside of it")
            walked.pop()
            continue
        here = root.joinpath(*walked, part)
        if (parts or follow_last) and here.is_symlink():
            links += 1
            if links > LINKS_MOST:
                raise UnifleetError(f"path {path[:200]!r} goes through more than {LINKS_MOST} symbolic links", "mend the image")
            target = str(here.readlink())
            if target.startswith("/"):
                walked = []
            parts.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            continue
        walked.append(part)
    return root.joinpath(*walked)
