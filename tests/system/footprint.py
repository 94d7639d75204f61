# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab could leave on a machine: namespaces, links, mounts, firewall tables, binfmt entries, control groups, processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

LAB_PROGRAMS = ("systemd-nspawn", "supervise.py", "qemu-system-x86_64", "/usr/libexec/qemu-binfmt")


def footprint() -> frozenset[str]:
    """One string for every such thing that there is now; compare two of these."""
    found = {f"namespace {line.split()[0]}" for line in _lines("ip", "netns", "list") if line}
    found |= {f"link {line.split(': ')[1].split('@')[0]}" for line in _lines("ip", "-o", "link") if ": " in line}
    found |= {f"mount {line}" for line in _lines("findmnt", "-rno", "TARGET")}
    found |= {f"nft {line.strip()}" for line in _lines("nft", "list", "tables")}
    binfmt = Path("/proc/sys/fs/binfmt_misc")
    found |= {f"binfmt {entry.name}" for entry in binfmt.iterdir()} if binfmt.is_dir() else set()
    found |= {f"ip_forward {Path('/proc/sys/net/ipv4/ip_forward').read_text(encoding='ascii').strip()}"}
    found |= {f"cgroup {path}" for top in Path("/sys/fs/cgroup").glob("*") if top.is_dir() for path in top.glob("*") if path.is_dir()}
    return frozenset(found | _processes())


def _processes() -> set[str]:
    found = set()
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if any(program in command for program in LAB_PROGRAMS):
            found.add(f"process {proc.name} {command[:120]}")
    return found


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
