# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unikernel images that others packed, read into our own profile: urunc's /urunc.json, and kraft's well-known paths.

An image with /unikernel.json needs none of this. What such an image does not say (the architecture; for kraft the hypervisor too) is told
from its kernel file. What it asks for and cannot be given here (a block device, the container's file system) is refused by name.

Sources: urunc's pkg/unikontainers/annotations.go and config.go (values are base64; bunny also writes b64: in front, and plain text);
kraftkit's oci/well_known.go.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kernel_file import KernelFile, examine_file
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import BYTES_MOST, PROFILE_PATH, Profile, profile_from

URUNC_PATH = "urunc.json"
KRAFT_KERNEL, KRAFT_INITRD = "/unikraft/bin/kernel", "/unikraft/bin/initrd"

_PREFIX = "com.urunc.unikernel."
_FAMILIES = ("unikraft", "mirage", "linux")
_MONITORS = {"qemu": "kvm", "cloud-hypervisor": "kvm", "hvt": "process", "spt": "process"}


@dataclass(frozen=True)
class Foreign:
    """What such an image says: its profile, and the words that it runs with when neither pod nor image config has any."""

    profile: Profile
    command: tuple[str, ...] = ()


def read_foreign(root: Path) -> Optional[Foreign]:
    """The image unpacked at root, or None when it is in neither layout. Raises UnifleetError that names the file and the key."""
    urunc = resolve_in_root(root, URUNC_PATH)
    if urunc.is_file():
        with urunc.open("rb") as file:
            return _urunc(file.read(BYTES_MOST + 1), root)
    kernel = resolve_in_root(root, KRAFT_KERNEL)
    return _kraft(root, kernel) if kernel.is_file() else None


# -- kraft -------------------------------------------------------------------------------------------------------------------------


def _kraft(root: Path, path: Path) -> Foreign:
    kernel = examine_file(path)
    document: dict[str, Any] = {"version": 1, "family": kernel.family or "unikraft", "network": True}
    document["kernels"] = {f"{kind}/{kernel.architecture}": KRAFT_KERNEL for kind in _hypervisors(kernel, KRAFT_KERNEL)}
    if resolve_in_root(root, KRAFT_INITRD).is_file():
        document["initrd"] = KRAFT_INITRD
    return Foreign(_profile(document, KRAFT_KERNEL[1:]))


# -- urunc -------------------------------------------------------------------------------------------------------------------------


def _urunc(content: bytes, root: Path) -> Foreign:
    values = _urunc_values(content)
    family, monitor = values.get("unikernelType", ""), values.get("hypervisor", "")
    if family not in _FAMILIES:
        raise _wrong("unikernelType", family, f"Unifleet runs {', '.join(_FAMILIES)}")
    if monitor not in _MONITORS:
        raise _wrong("hypervisor", monitor, f"Unifleet runs images for {', '.join(_MONITORS)}")
    for key in ("block", "blkMntPoint"):
        if values.get(key):
            raise _wrong(key, values[key], "Unifleet gives unikernels no block device; build the image with an initrd")
    if values.get("mountRootfs", "") not in ("", "0", "false", "False"):
        raise _wrong("mountRootfs", values["mountRootfs"], "Unifleet does not mount the image in the guest; build it with an initrd")
    path = _in_image(values, "binary")
    kernel = examine_file(_file(root, path, "binary"))
    kinds = _hypervisors(kernel, path)
    if _MONITORS[monitor] not in kinds:
        raise _wrong("hypervisor", monitor, f"the kernel {path} is for {' and '.join(kinds)}")
    words = _words(values.get("cmdline", ""))
    document: dict[str, Any] = {"version": 1, "family": family, "network": _MONITORS[monitor] != "process"}
    document["kernels"] = {f"{_MONITORS[monitor]}/{kernel.architecture}": path}
    if values.get("unikernelVersion"):
        document["family_version"] = values["unikernelVersion"]
    if values.get("initrd"):
        document["initrd"] = _in_image(values, "initrd")
        _file(root, document["initrd"], "initrd")
    if family == "linux" and words:
        # urunc's first word is the program that Linux starts, ours begin after it.
        document["parameters"] = [f"{'rdinit' if 'initrd' in document else 'init'}={words[0]}"]
        words = words[1:]
    return Foreign(_profile(document, URUNC_PATH), words)


def _urunc_values(content: bytes) -> dict[str, str]:
    """The file's strings by the last part of their keys, decoded. Keys of which nothing is known are left alone, as urunc does."""
    try:
        document = json.loads(content[: BYTES_MOST + 1].decode("utf-8")) if len(content) <= BYTES_MOST else None
    except (ValueError, RecursionError) as error:
        raise UnifleetError(f"the image's /{URUNC_PATH} is not JSON: {error}", "build the image anew") from error
    if not isinstance(document, dict):
        raise UnifleetError(f"the image's /{URUNC_PATH} is no JSON object of at most {BYTES_MOST} bytes", "build the image anew")
    values = {}
    for key, value in document.items():
        if key.startswith(_PREFIX) and value is not None:
            if not isinstance(value, str):
                raise _wrong(key[len(_PREFIX) :], value, "write a string")
            values[key[len(_PREFIX) :]] = _decoded(value)
    return values


def _decoded(value: str) -> str:
    """Base64, or what is no base64 of any text as it is."""
    marked = value.startswith("b64:")
    try:
        return base64.b64decode(value[4:] if marked else value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        if marked:
            raise UnifleetError(f"the image's /{URUNC_PATH} has the value {value[:60]!r}, which is no base64", "build it anew") from error
        return value


def _in_image(values: Mapping[str, str], key: str) -> str:
    path = values.get(key, "")
    if not path:
        raise _wrong(key, path, "write the path of a file in the image")
    return path if path.startswith("/") else f"/{path}"


def _file(root: Path, path: str, key: str) -> Path:
    found = resolve_in_root(root, path)
    if not found.is_file() or found.is_symlink():
        raise _wrong(key, path, "there is no such file in the image")
    return found


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise _wrong("cmdline", text, f"it cannot be cut into words: {error}") from error


def _hypervisors(kernel: KernelFile, path: str) -> tuple[str, ...]:
    if not kernel.hypervisors:
        raise UnifleetError(
            f"the image's kernel {path} boots by {' or '.join(kernel.boots)} alone, which no host here does", "build it anew"
        )
    return kernel.hypervisors


def _profile(document: Mapping[str, Any], path: str) -> Profile:
    try:
        return profile_from(document)
    except UnifleetError as error:
        raise UnifleetError(error.message.replace(f"/{PROFILE_PATH}", f"/{path}"), error.hint) from error


def _wrong(key: str, value: object, hint: str) -> UnifleetError:
    return UnifleetError(f"the image's /{URUNC_PATH} has {key} {str(value)[:60]!r}", hint)
