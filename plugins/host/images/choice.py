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
from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ALSO_RUNS, Hardware

UNUSABLE = "ErrImagePull"
"""kubelet's reason for an image that was fetched and cannot be used."""


def choose_bootable(image: Image, hypervisor: str, architecture: str) -> Bootable:
    """What of the image a host runs. Raises ImageError saying what the image offers instead."""
    if image.profile is None:
        return _plain_linux(image, hypervisor, architecture)
    profile = image.profile
    target, why = _target(profile, hypervisor, architecture)
    if not target:
        raise ImageError(
            UNUSABLE,
            f"image {image.reference} has no kernel for {hypervisor}/{architecture}; it has {', '.join(sorted(profile.kernels))}",
            "build the image for this host too, or keep the pod off it with a nodeSelector",
        )
    kernel = _file(image, profile.kernels[target])
    tender, devices = _tender(image, profile, kernel) if target.startswith("process/") else ("", ())
    return Bootable(
        image=image,
        hypervisor=hypervisor,
        architecture=architecture,
        kernel=kernel,
        family=profile.family,
        initrd=_initrd(image, profile, target),
        memory_bytes=profile.memory_bytes,
        can_shut_down=profile.can_shut_down,
        network=profile.network,
        why=why,
        target=target,
        hardware=profile.hardware.get(target, Hardware()),
        exit_rule=profile.exit_rule,
        family_version=profile.family_version,
        parameters=profile.parameters,
        tender=tender,
        devices=devices,
    )


def _target(profile: Profile, hypervisor: str, architecture: str) -> tuple[str, str]:
    """Which of the kernels, and why; ("", "") when none fits."""
    target = f"{hypervisor}/{architecture}"
    if target in profile.kernels:
        return target, f"/unikernel.json has a kernel for {target}"
    if hypervisor == "process":
        for other in ALSO_RUNS.get(architecture, ()):
            if f"process/{other}" in profile.kernels:
                return f"process/{other}", f"/unikernel.json has no kernel for {target}, but one for process/{other}, which runs here too"
    if hypervisor == "simulated":
        first = min(profile.kernels)
        return first, f"a simulated machine takes any kernel; {first} is the first in /unikernel.json"
    return "", ""


def _tender(image: Image, profile: Profile, kernel: Path) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The tender of a Solo5 unikernel and what its manifest asks for; ("", ()) for a program."""
    if profile.family != "mirage":
        return "", ()
    from ansible_collections.unifleet.hybrid.plugins.module_utils.kernel_file import examine_file  # only Solo5 kernels are looked into

    try:
        found = examine_file(kernel)
    except UnifleetError as error:
        raise ImageError(UNUSABLE, f"image {image.reference}: {error.message}", error.hint) from error
    kinds = [way for way in found.boots if way in ("solo5-hvt", "solo5-spt")]
    if not kinds:
        return "", ()
    if profile.tender is None:
        raise ImageError(
            UNUSABLE,
            f"image {image.reference}: its unikernel runs under {kinds[0]}, and the image names no tender",
            f"put {kinds[0]} into the image and its path as tender into /unikernel.json",
        )
    _file(image, profile.tender)
    return profile.tender, found.devices


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


def _initrd(image: Image, profile: Profile, target: str) -> Path | None:
    path = profile.initrd_of(target)
    return None if path is None else _file(image, path)


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
