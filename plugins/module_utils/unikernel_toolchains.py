# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How kraft (Unikraft) and mirage (MirageOS) are told to build a kernel for a target, and where they leave it. Runs nothing.

kraft: `kraft build` of kraftkit (internal/cli/kraft/build), which leaves .unikraft/build/NAME_PLATFORM-ARCHITECTURE. mirage: MirageOS 4,
`mirage configure`, `make depend`, `make`, which leave dist/NAME.EXTENSION (lib/mirage/target). Neither toolchain is to be had where
Unifleet is tested; what is said here comes from their sources and documentation.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TOOLCHAINS = ("kraft", "mirage")
MADE = frozenset({".git", ".unikraft", "dist", "_build", "mirage", "duniverse", "_opam"})
"""Directories of a project that toolchains and version control write to."""

_KRAFT: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "kvm/amd64": ("qemu", "x86_64"),
        "kvm/arm64": ("qemu", "arm64"),
        "xen/amd64": ("xen", "x86_64"),
        "xen/arm64": ("xen", "arm64"),
    }
)
_MIRAGE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"kvm": ("virtio", ".virtio"), "xen": ("xen", ".xen"), "hvt": ("hvt", ".hvt"), "spt": ("spt", ".spt"), "process": ("unix", "")}
)


@dataclass(frozen=True)
class Build:
    """commands: run one after the other in the project's directory. result: a pattern below it that one file must match."""

    commands: tuple[tuple[str, ...], ...]
    result: str


def build_of(toolchain: str, target: str, arguments: Sequence[str] = (), solo5: str = "") -> Build:
    """How a target is built. solo5: hvt or spt, for a process target that runs under that tender. Raises UnifleetError."""
    hypervisor, _slash, architecture = target.partition("/")
    if toolchain == "kraft":
        if target not in _KRAFT:
            raise UnifleetError(f"kraft builds nothing for {target!r}", f"targets: {', '.join(_KRAFT)}")
        platform, machine = _KRAFT[target]
        command = ("kraft", "build", "--no-prompt", "--no-check-updates", "--log-type", "basic", "--plat", platform, "--arch", machine)
        return Build(((*command, *arguments, "."),), f".unikraft/build/*_{platform}-{machine}")
    if toolchain == "mirage":
        if hypervisor not in ("kvm", "xen", "process") or architecture not in ("amd64", "arm64"):
            raise UnifleetError(f"mirage builds nothing for {target!r}", "targets: kvm, xen or process, on amd64 or arm64")
        if solo5 and hypervisor != "process":
            raise UnifleetError(f"target {target} does not run under solo5-{solo5}", "a tender is for process targets")
        kind, extension = _MIRAGE[solo5 or hypervisor]
        return Build((("mirage", "configure", "-t", kind, *arguments), ("make", "depend"), ("make",)), f"dist/*{extension}")
    raise UnifleetError(f"toolchain {toolchain!r} is not known", f"use one of {', '.join(TOOLCHAINS)}")


def find_result(project: Path, pattern: str) -> Path:
    """The kernel that the build left. Raises UnifleetError when it is not one file."""
    suffix = Path(pattern).suffix
    found = [
        path
        for path in sorted(project.glob(pattern))
        if path.is_file()
        and not path.name.startswith(".")
        and not path.name.endswith(".dbg")
        and (suffix or not pattern.startswith("dist/") or not path.suffix)
    ]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(project)) for path in found) or "nothing"
        raise UnifleetError(f"the build left {names} at {project}/{pattern}, not one file", "clean the project, or build one kernel in it")
    return found[0]


def fingerprint(project: Path, build: Build, toolchain_version: str) -> str:
    """A digest of all that the kernel is made of: the project's files (but those that are made), the commands, the toolchain.

    Raises UnifleetError when the project cannot be read.
    """
    digest = hashlib.sha256(repr((build, toolchain_version)).encode())
    if not project.is_dir():
        raise UnifleetError(f"source {project} is not a directory", "check the project out there first")
    try:
        for path in sorted(_files(project)):
            mode = path.lstat().st_mode
            content = os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else path.read_bytes()  # noqa: PTH115 - bytes
            name = os.fsencode(path.relative_to(project))
            digest.update(repr((name, mode & 0o111, stat.S_ISLNK(mode), hashlib.sha256(content).digest())).encode())
    except OSError as error:
        raise UnifleetError(f"source {error.filename} cannot be read: {error.strerror}", "see its permissions") from error
    return digest.hexdigest()


def _files(project: Path) -> list[Path]:
    found = []
    for directory, names, files in os.walk(project):
        if Path(directory) == project:
            names[:] = [name for name in names if name not in MADE]
        linked = [name for name in names if Path(directory, name).is_symlink()]
        found += [Path(directory, name) for name in [*files, *linked] if not stat.S_ISSOCK(Path(directory, name).lstat().st_mode)]
    return found
