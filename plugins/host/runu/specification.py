# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`runu spec`: from a description of a unikernel to a bundle's config.json with the runtime-spec's vm object (config-vm.md).

The description is an image's /unikernel.json (its paths are then below the bundle's rootfs), or --kernel and what goes with it. The
result is a whole config.json that `runu create` takes, and any runtime that heeds the vm object.
"""

from __future__ import annotations

import os
import platform

from ansible_collections.unifleet.hybrid.plugins.host.guests.families import family
from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.host.runu.unikernel import FAMILY, MEMORY, quantity
from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import parse_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command


def command(call: Command) -> None:
    """Write config.json into the bundle. Raises UnifleetError; an existing file is never overwritten, as with runc."""
    directory = os.path.abspath(call.options.get("bundle", "."))
    path = f"{directory}/config.json"
    text = document.dumps(config(call, directory))
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise UnifleetError(f"{path} exists", "remove it first") from None
    except OSError as error:
        raise UnifleetError(f"{path} cannot be written: {error.strerror}", "make the bundle's directory first") from error


def config(call: Command, directory: str) -> dict[str, Any]:
    """The config.json that the options ask for."""
    kernel, initrd = call.options.get("kernel", ""), call.options.get("initrd", "")
    kind, memory = call.options.get("family", "plain"), call.options.get("memory", "")
    if call.operands:
        if kernel:
            raise UnifleetError("spec got a unikernel.json and --kernel", "give one of them")
        with open(call.operands[0], "rb") as file:
            profile = parse_profile(file.read(1 << 20))
        target = f"kvm/{oci_architecture(platform.machine())[0]}"
        if target not in profile.kernels:
            raise UnifleetError(f"{call.operands[0]} has no kernel for {target}", f"it has {', '.join(sorted(profile.kernels))}")
        kernel = f"{directory}/rootfs{profile.kernels[target]}"
        initrd = f"{directory}/rootfs{profile.initrd}" if profile.initrd else ""
        kind, memory = profile.family, memory or (str(profile.memory_bytes) if profile.memory_bytes else "")
    if not kernel:
        raise UnifleetError("spec wants a unikernel", "name a unikernel.json, or a kernel with --kernel")
    family(kind)
    words = [word for word in call.options.get("arg", "").split("\0") if word]
    variables = [word for word in call.options.get("env", "").split("\0") if word]
    vm: dict[str, Any] = {"kernel": {"path": os.path.abspath(kernel)}}
    if initrd:
        vm["kernel"]["initrd"] = os.path.abspath(initrd)
    annotations = {FAMILY: kind}
    if memory:
        vm["hwConfig"] = {"memory": quantity("--memory", memory)}
        annotations[MEMORY] = memory
    return {
        "ociVersion": "1.1.0",
        "process": {"cwd": "/", "args": [os.path.basename(kernel), *words], "env": variables, "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runu",
        "mounts": [],
        "annotations": annotations,
        "linux": {"namespaces": [{"type": "network"}]},
        "vm": vm,
    }
