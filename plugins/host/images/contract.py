# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is once it is on disk, and what a host would run of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Profile:
    """An image's /unikernel.json, validated.

    kernels: "HYPERVISOR/ARCH" (kvm/amd64, xen/amd64, process/arm64, ...) -> path inside the image.
    memory_bytes: the least that the guest boots with. can_shut_down: overrides the family's answer.
    network: whether the guest drives a network interface.
    """

    family: str
    kernels: Mapping[str, str]
    initrd: Optional[str] = None
    memory_bytes: int = 0
    can_shut_down: Optional[bool] = None
    network: bool = False


@dataclass(frozen=True)
class Image:
    """A pulled image. root: the unpacked file system; config: the OCI image config's "config" object, validated."""

    reference: str
    digest: str
    root: Path
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_directory: str = "/"
    user: str = ""
    profile: Optional[Profile] = None


@dataclass(frozen=True)
class Bootable:
    """What of an image a host with this hypervisor and architecture runs; why says how it was chosen."""

    image: Image
    hypervisor: str
    architecture: str
    kernel: Path
    family: str
    initrd: Optional[Path] = None
    memory_bytes: int = 0
    can_shut_down: Optional[bool] = None
    network: bool = False
    why: str = ""


@dataclass(frozen=True)
class RegistryCredentials:
    """One registry's login, from an imagePullSecret."""

    username: str = ""
    password: str = field(default="", repr=False)
