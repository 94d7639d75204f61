# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file of an image a host boots or runs, and why.

An image with /unikernel.json names its kernels by hypervisor and architecture. One without it is an ordinary Linux image: the process
provider runs its entrypoint, a hypervisor has nothing to boot.
"""

from __future__ import annotations

from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image, ImageError, Profile
from ansible_collections.unifleet.hybrid.plugins.host.images.layers import resolve_in_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

UNUSABLE = "ErrImagePull"
"""kubelet's reason for an image that was fetched and cannot be used."""


def choose_bootable(image: Image, hypervisor: str, architecture: str) -> Bootable:
    """What of the image a host runs. Raises ImageError saying what the image offers instead."""
    if image.profile is None:
        return _plain_linux(image, hypervisor, architecture)
    profile = image.profile
    target = f"{hypervisor}/{architecture}"
    path = profile.kernels.get(target)
    why = f"/unikernel.json has a kernel for {target}"
    if path is None and hypervisor == "simulated":
        target, path = sorted(profile.kernels.items())[0]
        why = f"a simulated machine takes any kernel; {target} is the first in /unikernel.json"
    if path is None:
        raise ImageError(
            UNUSABLE,
            f"image {image.reference} has no kernel for {target}; it has {', '.join(sorted(profile.kernels))}",
            "build the image for this host too, or keep the pod off it with a nodeSelector",
        )
    return Bootable(
        image=image,
        hypervisor=hypervisor,
        architecture=architecture,
        kernel=_file(image, path),
        family=profile.family,
        initrd=_initrd(image, profile),
        memory_bytes=profile.memory_bytes,
        can_shut_down=profile.can_shut_down,
        network=profile.network,
        why=why,
    )


def _plain_linux(image: Image, hypervisor: str, architecture: str) -> Bootable:
    if hypervisor not in ("process", "simulated"):
        raise ImageError(
            UNUSABLE,
            f"image {image.reference} has no /unikernel.json, so there is no kernel in it for {hypervisor}/{architecture}",
            "this node runs unikernels; run an ordinary container image on a worker node",
        )
    return Bootable(
        image=image,
        hypervisor=hypervisor,
        architecture=architecture,
        kernel=image.root,
        family="",
        why="the image has no /unikernel.json: its entrypoint runs as a Linux program",
    )


def _initrd(image: Image, profile: Profile) -> Path | None:
    return None if profile.initrd is None else _file(image, profile.initrd)


def _file(image: Image, path: str) -> Path:
    try:
        found = resolve_in_root(image.root, path)
    except UnifleetError as error:
        raise ImageError(UNUSABLE, f"image {image.reference}: /unikernel.json names {path}: {error.message}", error.hint) from error
    if not found.is_file() or found.is_symlink():
        raise ImageError(
            UNUSABLE, f"image {image.reference}: /unikernel.json names {path}, which is no file in the image", "rebuild the image"
        )
    return found
