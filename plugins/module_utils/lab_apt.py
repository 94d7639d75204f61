# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's archive as the machine's own apt knows it, said again for another suite.

A lab host must be able to install packages wherever the machine can, so no mirror is written anywhere: the sources of
the machine are read (both forms, sources.list(5)), those of Debian itself are kept, and their suites are renamed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Iterable, Mapping

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

POCKETS = ("", "-updates", "-security")
"""Suffixes of a codename that make up a stable release; backports and proposed-updates are left out."""

ROLLING = ("sid", "unstable", "testing", "experimental")
"""Suites without pockets."""

_ALIASES = {"stable", "oldstable"}
_ONE_LINE = re.compile(
    r"(?P<type>deb|deb-src)\s+(\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(\s+[^\s#]+)*)\s*(#.*)?"
)


@dataclass(frozen=True)
class Source:
    """One stanza of binary packages: where, which suites, which components, and which keys sign it (empty: apt's trusted keys)."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False


def parse(files: Mapping[str, str]) -> tuple[Source, ...]:
    """Every enabled binary source in the given files (name -> text); .sources is read as deb822, anything else line by line."""
    found: list[Source] = []
    for name, text in files.items():
        found.extend(_deb822(text) if name.endswith(".sources") else _one_line(text))
    return tuple(found)


def debian_archive(sources: Iterable[Source], codename: str, suite: str) -> tuple[Source, ...]:
    """Debian's own sources among those of a machine that runs `codename`, for `suite`; UnifleetError when there are none.

    Third-party sources also use Debian's codenames as suites. Debian's are told by what they have besides: the component
    main, and keys that are Debian's archive keys or apt's own.
    """
    kept: list[Source] = []
    for source in sources:
        if "main" not in source.components or not _signed_by_debian(source):
            continue
        pockets = _pockets(source.suites, codename)
        if suite in ROLLING:
            pockets = tuple(pocket for pocket in pockets if pocket == "")
        if pockets:
            kept.append(replace(source, suites=tuple(suite + pocket for pocket in pockets), components=("main",)))
    if not any(suite in source.suites for source in kept):
        raise UnifleetError(
            f"no source of Debian's archive (suite {codename}, component main) in /etc/apt/sources.list and /etc/apt/sources.list.d",
            "the lab's hosts are made from this machine's own package sources; add Debian's archive to them",
        )
    return tuple(kept)


def render(sources: Iterable[Source]) -> str:
    """The sources as a deb822 file (apt 1.1 and later read it)."""
    stanzas = []
    for source in sources:
        lines = [
            "Types: deb",
            f"URIs: {' '.join(source.uris)}",
            f"Suites: {' '.join(source.suites)}",
            f"Components: {' '.join(source.components)}",
        ]
        if source.signed_by:
            lines.append(f"Signed-By: {_folded(source.signed_by)}")
        if source.trusted:
            lines.append("Trusted: yes")
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)


def settings(dump: str) -> tuple[str, ...]:
    """The lines of `apt-config dump` that decide whether the archive can be reached and believed: proxies and clocks."""
    wanted = re.compile(r'Acquire::(Check-Valid-Until|Check-Date|Retries|https?::Proxy|https?::CAInfo)(::[^ ]+)? "[^"]+";')
    return tuple(line for line in dump.splitlines() if wanted.fullmatch(line))


def _pockets(suites: Iterable[str], codename: str) -> tuple[str, ...]:
    found = []
    for suite in suites:
        for pocket in POCKETS:
            if suite == codename + pocket or (suite.endswith(pocket) and suite[: len(suite) - len(pocket)] in _ALIASES):
                found.append(pocket)
                break
    return tuple(found)


def _signed_by_debian(source: Source) -> bool:
    return not source.signed_by or all("debian-archive" in key for key in re.split(r"[\s,]+", source.signed_by))


def _folded(value: str) -> str:
    """A many-line value the way deb822 wants it: continuation lines indented, empty ones as a dot."""
    first, *rest = value.split("\n")
    return "\n".join([first, *(" " + (line.strip() or ".") for line in rest)])


def _deb822(text: str) -> Iterable[Source]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() in {"no", "false", "0"}:
            continue
        uris, suites = tuple(fields.get("uris", "").split()), tuple(fields.get("suites", "").split())
        if uris and suites:
            trusted = fields.get("trusted", "no").strip().lower() in {"yes", "true", "1"}
            yield Source(uris, suites, tuple(fields.get("components", "").split()), fields.get("signed-by", "").strip(), trusted)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            continuation = line.strip()
            fields[key] = f"{fields.get(key, '')}\n{'' if continuation == '.' else continuation}"
        elif ":" in line:
            key, value = (part.strip() for part in line.split(":", 1))
            key = key.lower()
            fields[key] = value
    return fields


def _one_line(text: str) -> Iterable[Source]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.strip())
        if match is None or match["type"] != "deb":
            continue
        options = dict(part.split("=", 1) for part in (match["options"] or "").split() if "=" in part)
        trusted = options.get("trusted", "no").lower() in {"yes", "true", "1"}
        yield Source((match["uri"],), (match["suite"],), tuple(match["components"].split()), options.get("signed-by", ""), trusted)
