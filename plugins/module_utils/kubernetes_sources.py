# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Kubernetes' programs come from: the words shared by all sources, and the choice between them. Pure.

A source yields a Provision: for each architecture a directory's worth of programs with their SHA-256. Nothing is ever installed
that was not either pinned by its checksum, built here from Debian's signed source, or put into a directory by the user.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SOURCES = ("auto", "release", "directory", "debian_source")
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
ARCHITECTURES = ("amd64", "arm64", "arm", "ppc64le", "s390x")

Checksums = Mapping[str, Mapping[str, Mapping[str, str]]]
"""version -> architecture -> component -> SHA-256 in hex."""


@dataclass(frozen=True)
class Program:
    """One program on the controller; sha256 is empty when it is not there yet (check mode)."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Provision:
    """What a source gave: version without "v", and programs by architecture and component."""

    source: str
    version: str
    why: str
    programs: Mapping[str, Mapping[str, Program]]
    made: bool = False

    def as_result(self) -> dict[str, Any]:
        """For a module's exit_json."""
        programs = {
            architecture: {name: {"path": str(item.path), "sha256": item.sha256} for name, item in components.items()}
            for architecture, components in self.programs.items()
        }
        return {"source": self.source, "version": self.version, "why": self.why, "programs": programs, "changed": self.made}


def check_table(table: Any) -> Checksums:
    """The user's table of pinned checksums, or an error that names the entry that is wrong."""
    if not isinstance(table, Mapping):
        raise UnifleetError("kubernetes_binaries_checksums: not a mapping", "write it as version -> architecture -> component -> sha256")
    for version, architectures in table.items():
        if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", str(version)):
            raise UnifleetError(f"kubernetes_binaries_checksums: {version!r} is not a version", 'quote it and leave the "v" away: "1.33.1"')
        for architecture, components in _mapping(architectures, version).items():
            for component, checksum in _mapping(components, f"{version}.{architecture}").items():
                if not re.fullmatch(r"[0-9a-f]{64}", str(checksum)):
                    where = f"{version}.{architecture}.{component}"
                    raise UnifleetError(f"kubernetes_binaries_checksums: {where} is not a SHA-256 in hex", "64 lower-case hex digits")
    return table


def pinned(table: Checksums, version: str, architecture: str, component: str) -> str:
    """The checksum that this file must have; an error that says at which level the table has nothing."""
    hint = "add its SHA-256 to kubernetes_binaries_checksums (the release site publishes it beside the file, as FILE.sha256)"
    if version not in table:
        known = ", ".join(sorted(table, key=_order)) or "none"
        raise UnifleetError(f"Kubernetes {version} is not pinned (pinned: {known})", hint)
    if architecture not in table[version]:
        known = ", ".join(sorted(table[version]))
        raise UnifleetError(f"Kubernetes {version} is not pinned for {architecture} (pinned: {known})", hint)
    if component not in table[version][architecture]:
        raise UnifleetError(f"{component} of Kubernetes {version} is not pinned for {architecture}", hint)
    return table[version][architecture][component]


def newest(table: Checksums) -> str:
    """The newest version in the table, "" when it is empty."""
    return max(table, key=_order, default="")


def release_url(base: str, version: str, architecture: str, component: str) -> str:
    """https://kubernetes.io/releases/download/ describes this layout."""
    return f"{base.rstrip('/')}/v{version}/bin/linux/{architecture}/{component}"


def debian_upstream_version(text: str) -> str:
    """1.20.2 of "1.20.5+really1.20.2-1.1+deb12u1", as Debian's policy on "really" has it."""
    upstream = text.rsplit("-", 1)[0].rsplit(":", maxsplit=1)[-1]
    return upstream.rsplit("+really", 1)[-1].split("+")[0]


def build_key(**inputs: str) -> str:
    """12 hex digits over everything that decides what a build yields."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def source_stanzas(text: str, classic: bool) -> str:
    """The same apt sources, but for source packages: from one deb822 file, or from one-line entries (classic)."""
    if classic:
        lines = [line.strip() for line in text.splitlines()]
        return "".join(f"deb-src{line[3:]}\n" for line in lines if re.match(r"deb\s", line))
    stanzas = [block for block in re.split(r"\n\s*\n", text) if re.search(r"^Types:(?:.*\s)?deb(?:\s|$)", block, re.MULTILINE)]
    kept = [re.sub(r"^Types:.*$", "Types: deb-src", block.strip(), flags=re.MULTILINE) for block in stanzas if not _disabled(block)]
    return "\n\n".join(kept) + ("\n" if kept else "")


def newest_source_version(showsrc: str) -> str:
    """The version that `apt-get source` would take: the first stanza of `apt-cache showsrc`, which sorts newest first; "" for none."""
    versions = re.findall(r"^Version: (\S+)$", showsrc, re.MULTILINE)
    return max(versions, key=_order, default="")


_ELF_MACHINES = {"amd64": 62, "arm64": 183, "arm": 40, "ppc64le": 21, "s390x": 22}


def check_architecture(path: Path, architecture: str) -> None:
    """Refuse a file that is not an ELF program for this architecture (e_machine of its header)."""
    with path.open("rb") as file:
        header = file.read(20)
    machine = int.from_bytes(header[18:20], "big" if header[5:6] == b"\x02" else "little") if header[:4] == b"\x7fELF" else 0
    if machine != _ELF_MACHINES[architecture]:
        known = {number: name for name, number in _ELF_MACHINES.items()}
        found = known.get(machine, "no Linux program that is known")
        raise UnifleetError(f"{path} is for {found}, not for {architecture}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _disabled(stanza: str) -> bool:
    return bool(re.search(r"^Enabled:\s*(no|false|off|0)\s*$", stanza, re.MULTILINE | re.IGNORECASE))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnifleetError(f"kubernetes_binaries_checksums: {where} is not a mapping")
    return value


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
