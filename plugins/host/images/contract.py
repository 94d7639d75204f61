# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is once it is on disk, and what a host would run of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ExitRule, Hardware, Profile

__all__ = ["Bootable", "Image", "ImageError", "Profile", "RegistryCredentials", "RegistrySettings"]


class ImageError(UnifleetError):
    """An image that cannot be had or used; reason is the Kubernetes container reason: InvalidImageName, ErrImageNeverPull, ErrImagePull."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


@dataclass(frozen=True)
class Image:
    """A pulled image. root: the unpacked file system; the rest is the OCI image config's, validated. size: bytes on disk."""

    reference: str
    digest: str
    root: Path
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_directory: str = "/"
    user: str = ""
    profile: Profile | None = None
    size: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Bootable:
    """What of an image a host with this hypervisor and architecture runs; why says how it was chosen.

    kernel, initrd: absolute paths of regular files on the host, inside image.root, no symbolic link in them. target: which of the
    image's kernels it is ("" without /unikernel.json). hardware, exit_rule: what the image says of its machine and of its end.
    family_version, parameters: as in /unikernel.json. tender: the path in the image of the program that runs the kernel, "" when the
    kernel is a program itself; devices: (kind, name) of what the kernel's Solo5 manifest asks for.
    """

    image: Image
    hypervisor: str
    architecture: str
    kernel: Path
    family: str
    initrd: Path | None = None
    memory_bytes: int = 0
    can_shut_down: bool | None = None
    network: bool = False
    why: str = ""
    target: str = ""
    hardware: Hardware = field(default_factory=Hardware)
    exit_rule: ExitRule | None = None
    family_version: str = ""
    parameters: tuple[str, ...] = ()
    tender: str = ""
    devices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RegistryCredentials:
    """One login, from an imagePullSecret. registry: HOST[:PORT][/PATH] that it is for, see logins.py; "" for any."""

    username: str = ""
    password: str = field(default="", repr=False)
    registry: str = ""


@dataclass(frozen=True)
class RegistrySettings:
    """What a host is told of one registry.

    mirrors: HOST[:PORT][/PREFIX] that are asked before it, in order. ca: PEM text of the authority that its certificate must come from,
    "" for the host's own. insecure: it speaks plain HTTP, or its certificate is not checked.
    """

    mirrors: tuple[str, ...] = ()
    ca: str = ""
    insecure: bool = False
