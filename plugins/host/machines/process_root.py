# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root directory that a process sees: its image, read-only, with mounts put into it, and the image on disk left as it is.

systemd makes missing mount points inside RootDirectory= and would make them in the image, which other machines share. So the root
is a small directory of its own (on /run): directories on the way to a mount point are made there, everything else of the image is
bound into it. Symbolic links are followed as the process would follow them, never out of the image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_MAX_LINKS = 40
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Bind:
    """A host path and where it is seen."""

    source: Path
    target: str


def resolve(root: Path, path: str) -> str:
    """The path with every symbolic link of the image followed inside the image; parts that do not exist stay as they are.

    Raises UnifleetError for a relative path, control characters and loops.
    """
    if not path.startswith("/") or any(ord(letter) < 32 or letter == "\x7f" for letter in path):
        raise UnifleetError(f"{path!r} is no absolute path without control characters", "correct the mount path or the program's path")
    waiting = list(reversed(path.split("/")))
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise UnifleetError(f"{path} in {root} goes through too many symbolic links", "rebuild the image")
            target = str(here.readlink())
            if target.startswith("/"):
                done.clear()
            waiting.extend(reversed(target.split("/")))
        else:
            done.append(part)
    return "/" + "/".join(done)


def find_program(root: Path, argv: Sequence[str], search_path: str, cwd: str) -> str:
    """The absolute path inside the image that argv[0] names. Raises UnifleetError, worded as container runtimes do, when there is none."""
    if not argv or not argv[0]:
        raise UnifleetError("no command specified", "give the container a command or the image an entrypoint")
    name = argv[0]
    if "/" in name:
        candidates = [name if name.startswith("/") else f"{cwd}/{name}"]
    else:
        candidates = [f"{directory or cwd}/{name}" for directory in search_path.split(":") if (directory or cwd).startswith("/")]
    for candidate in candidates:
        found = resolve(root, candidate)
        with_root = root / found[1:]
        if with_root.is_file() and with_root.stat().st_mode & 0o111:
            return found
    where = "no such executable file in the image" if "/" in name else "executable file not found in $PATH"
    raise UnifleetError(f'exec: "{name}": {where}', "correct the container's command")


def build_root(directory: Path, image: Path, targets: Iterable[tuple[str, bool]], skipped: frozenset[str] = frozenset()) -> list[Bind]:
    """Make directory the root for image and return what must be bound into it, parents first.

    targets: (resolved path inside the root, whether a directory is mounted there). skipped: top-level names of the image to leave out.
    """
    wanted = _Tree()
    for target, is_directory in targets:
        wanted.add(target, is_directory)
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    binds: list[Bind] = []
    _fill(directory, image, "/", wanted, binds, skipped=skipped)
    return binds


class _Tree:
    """The mount points: a tree by path component; a leaf is mounted, what is on the way is only made."""

    def __init__(self) -> None:
        self.children: dict[str, _Tree] = {}
        self.is_mount = False
        self.is_directory = True

    def add(self, path: str, is_directory: bool) -> None:
        node = self
        for part in path.split("/"):
            if part:
                node = node.children.setdefault(part, _Tree())
        node.is_mount, node.is_directory = True, is_directory


def _fill(
    made: Path, image: Optional[Path], inside: str, wanted: _Tree, binds: list[Bind], *, skipped: frozenset[str] = frozenset()
) -> None:
    """Fill made (seen as inside) with the image's entries and the wanted mount points."""
    entries = {entry.name: entry for entry in os.scandir(image)} if image is not None else {}
    for name in sorted(entries.keys() | wanted.children.keys()):
        entry, node = entries.get(name), wanted.children.get(name)
        here = made / name
        target = f"{inside}{name}"
        if node is not None and node.is_mount:
            here.mkdir(mode=0o755) if node.is_directory else here.touch(mode=0o644)
        elif node is not None:
            here.mkdir(mode=0o755)
            is_directory = entry is not None and entry.is_dir(follow_symlinks=False)
            _fill(here, Path(entry.path) if entry is not None and is_directory else None, target + "/", node, binds)
        elif entry is None or name in skipped or any(ord(letter) < 32 for letter in name):
            continue
        elif entry.is_symlink():
            here.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir(follow_symlinks=False):
            here.mkdir(mode=0o755)
            binds.append(Bind(Path(entry.path), target))
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            here.touch(mode=0o644)
            binds.append(Bind(Path(entry.path), target))


def user_and_group(root: Path, user: str) -> tuple[str, str]:
    """Numbers for the image's "user[:group]"; ("", "") for none and for root, as neither is run with root's rights.

    Names are looked up in the image's own /etc/passwd and /etc/group. Raises UnifleetError for a name that is not there.
    """
    name, _separator, group = user.partition(":")
    if name in ("", "0", "root"):
        return "", ""
    number, own_group = (name, "") if name.isdigit() else _look_up(root, "/etc/passwd", name)
    if group and not group.isdigit():
        group, _ids = _look_up(root, "/etc/group", group)
    return number, group or own_group or number


def _look_up(root: Path, file: str, name: str) -> tuple[str, str]:
    path = root / resolve(root, file)[1:]
    if path.is_file():
        with path.open("r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(":")
                if len(fields) > 3 and fields[0] == name and fields[2].isdigit():
                    return fields[2], fields[3] if fields[3].isdigit() else ""
    raise UnifleetError(f"{name!r} is not in the image's {file}", "use a number, or a name that the image knows")
