# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine's architecture is called in OCI images. By itself, for runu asks at each start of a container, also of an ordinary one."""

from __future__ import annotations

_OCI_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}


def oci_architecture(machine: str) -> tuple[str, str]:
    """uname's machine in OCI terms: (architecture, variant), as in image indexes. An unknown machine stays as it is."""
    return _OCI_ARCHITECTURES.get(machine, (machine, ""))
