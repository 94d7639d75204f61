# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching release files by URL into a cache, whole or not at all.

A file counts only when its SHA-256 is the pinned one. What an interrupted transfer left is continued by a range request; when the
finished file is wrong after a continuation, it is fetched once more from the start before anybody is blamed.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.urls import open_url

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_sources import sha256_of

Opener = Callable[..., Any]
ATTEMPTS = 4


def answers(url: str, seconds: int = 5, opener: Opener = open_url) -> str:
    """ "" when the URL can be fetched, else why not, in a few words."""
    try:
        opener(url, method="HEAD", timeout=seconds, follow_redirects="all").close()
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return f"it cannot be reached: {getattr(error, 'reason', error)}"
    return ""


def fetch(url: str, sha256: str, destination: Path, opener: Opener = open_url) -> bool:
    """Make the file be there with this checksum; True when it had to be fetched."""
    if destination.exists() and sha256_of(destination) == sha256:
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f"{destination.name}.{sha256[:12]}.part")
    resumed = part.exists()
    found = _transfer(url, part, opener)
    if found != sha256 and resumed:
        part.unlink()
        found = _transfer(url, part, opener)
    if found != sha256:
        size = part.stat().st_size
        part.unlink()
        hint = "the pinned checksum or the file is wrong: compare with the publisher's, and do not run the file"
        raise UnifleetError(f"{url}: SHA-256 is {found} ({size} bytes), pinned is {sha256}", hint)
    part.chmod(0o755)
    part.replace(destination)
    return True


def _transfer(url: str, part: Path, opener: Opener) -> str:
    """Fetch to the end, continuing where a connection broke; returns the SHA-256 of what is there."""
    last = ""
    for _attempt in range(ATTEMPTS):
        try:
            if _append(url, part, opener):
                return sha256_of(part)
            last = "the connection ended before the file did"
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():
                return sha256_of(part)
            raise UnifleetError(f"{url}: the server answers {error.code} {error.reason}", _hint(error.code)) from error
        except (OSError, ValueError) as error:
            last = str(getattr(error, "reason", error))
    raise UnifleetError(f"{url}: {last} ({ATTEMPTS} attempts)", "what came so far is kept, the next run continues")


def _append(url: str, part: Path, opener: Opener) -> bool:
    """One request; True when as much came as the server announced."""
    start = part.stat().st_size if part.exists() else 0
    headers: Mapping[str, str] = {"Range": f"bytes={start}-"} if start else {}
    with opener(url, headers=dict(headers), timeout=30, follow_redirects="all", decompress=False) as response:
        continued = start > 0 and getattr(response, "status", response.getcode()) == 206
        announced = response.headers.get("Content-Length")
        got = 0
        with part.open("ab" if continued else "wb") as file:
            while True:
                try:
                    block = response.read(1 << 20)
                except (OSError, ValueError) as error:
                    if type(error).__name__ != "IncompleteRead":
                        raise
                    return False
                if not block:
                    break
                file.write(block)
                got += len(block)
    return announced is None or got == int(announced)


def _hint(status: int) -> str:
    if status == 404:
        return "does this version exist for this architecture, and is kubernetes_binaries_url the root of a release site?"
    return "try again later, or set another kubernetes_binaries_url"
