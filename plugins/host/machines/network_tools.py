# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iproute2, nft and iptables as this room uses them: commands in, JSON out, and an error that says what was refused.

The programs rather than Python libraries: they are on every Debian, and a library for netlink (pyroute2) would double the agent's
memory on a Raspberry Pi.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_SECONDS = 60
_PACKAGES = {"ip": "iproute2", "nft": "nftables", "iptables": "iptables", "iptables-restore": "iptables"}


def ip(*words: str) -> Any:
    """What `ip -json` answers: usually a list of objects. Raises UnifleetError."""
    said = _run(["ip", "-json", *words], "")
    try:
        return json.loads(said) if said.strip() else []
    except ValueError as error:
        raise UnifleetError(f"ip {' '.join(words)} answered what is no JSON: {said[:200]!r}") from error


def nft(commands: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Carry out commands of libnftables-json(5), all or none of them, and return what they list. Raises UnifleetError."""
    said = _run(["nft", "-j", "-f", "-"], json.dumps({"nftables": list(commands)}))
    try:
        return list(json.loads(said)["nftables"]) if said.strip() else []
    except (ValueError, KeyError) as error:
        raise UnifleetError(f"nft answered what is no JSON: {said[:200]!r}") from error


def nft_file(path: Path) -> None:
    """Carry out a file of commands in nft's own language, all or none of them. Raises UnifleetError."""
    _run(["nft", "-f", str(path)], "")


def iptables(*words: str) -> list[str]:
    """The lines that iptables answers. Raises UnifleetError."""
    return _run(["iptables", "-w", "30", *words], "").splitlines()


def iptables_restore(text: str) -> None:
    """Add what iptables-save would have written to what there is. Raises UnifleetError."""
    _run(["iptables-restore", "-w", "30", "--noflush"], text)


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise UnifleetError(f"the program {command[0]} is not on this host", f"install {_PACKAGES[command[0]]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise UnifleetError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        why = " ".join((done.stderr or done.stdout).split())[:400]
        raise UnifleetError(f"{' '.join(command)}: {why or f'exit code {done.returncode}'}")
    return done.stdout
