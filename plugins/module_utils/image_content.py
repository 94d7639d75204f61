# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user says of an image, in the words of the module unikernel_image, to what is packed.

The module and the command unikernel-image say it in the same words, so both give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, read_files
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import profile_from

COMPRESSIONS = ("gzip", "none")


def content_of(said: Mapping[str, Any]) -> ImageContent:
    """The image that is described. Raises UnifleetError naming what is wrong.

    said: kernels (target -> file), family, and if wanted initrd (file), initrds (target -> file), files (path in the image -> file),
    fixed_args, args, env, labels, memory, stop, network, hardware, exit, family_version, parameters, tender, split,
    compression.
    """
    sources: list[tuple[str, Path, bool]] = []
    kernels, initrds = {}, {}
    for target, file in sorted((said.get("kernels") or {}).items()):
        kernels[target] = _path_of(target)
        sources.append((kernels[target], _file(file), True))
    for target, file in sorted((said.get("initrds") or {}).items()):
        initrds[target] = f"/boot/initrd-{target.replace('/', '-')}"
        sources.append((initrds[target], _file(file), False))
    document: dict[str, Any] = {"version": 1, "family": said.get("family") or "plain", "kernels": kernels}
    document.update(network=bool(said.get("network")), initrds=initrds)
    if said.get("initrd"):
        document["initrd"] = "/boot/initrd"
        sources.append(("/boot/initrd", _file(said["initrd"]), False))
    for key in ("memory", "stop", "hardware", "family_version", "parameters", "tender"):
        if said.get(key):
            document[key] = said[key]
    if said.get("exit"):
        codes = said["exit"].get("codes")
        document["exit"] = {
            **said["exit"],
            **({"codes": {str(key): code for key, code in codes.items()}} if isinstance(codes, dict) else {}),
        }
    profile = profile_from(document)
    for path, file in sorted((said.get("files") or {}).items()):
        source = _file(file)
        sources.append((path, source, os.access(source, os.X_OK)))
    return ImageContent(
        profile=profile,
        files=read_files(sources),
        fixed_args=tuple(said.get("fixed_args") or ()),
        args=tuple(said.get("args") or ()),
        env=tuple(sorted((str(name), str(value)) for name, value in (said.get("env") or {}).items())),
        labels={str(name): str(value) for name, value in (said.get("labels") or {}).items()},
        compression=said.get("compression") or "gzip",
        split=bool(said.get("split")),
    )


def _path_of(target: str) -> str:
    return f"/{'bin' if target.startswith('process/') else 'boot'}/{target.replace('/', '-')}"


def _file(value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise UnifleetError(f"{value!r} is not the path of a file", "name a file for each kernel, initrd and file")
    return Path(os.path.expandvars(str(value))).expanduser()
