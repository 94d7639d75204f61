# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules about images have in common: the options that say how to reach a registry, and skopeo run as modules run programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import ImageRegistry, Login

REGISTRY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "validate_certs": {"type": "bool", "default": True},
    "username": {"type": "str", "fallback": (env_fallback, ["UNIFLEET_REGISTRY_USERNAME"])},
    "password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["UNIFLEET_REGISTRY_PASSWORD"])},
}


def registry_of(module: AnsibleModule, work: Path) -> ImageRegistry:
    """skopeo on this host, with the module's login. work: a private directory."""
    skopeo = ""

    def run(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes, str]:
        nonlocal skopeo
        skopeo = skopeo or module.get_bin_path("skopeo", required=True)
        variables = {"LC_ALL": "C", **environment}
        code, out, err = module.run_command([skopeo, *arguments], environ_update=variables, encoding=None)
        return int(code), bytes(out), os.fsdecode(bytes(err))

    login = Login(module.params["username"], module.params["password"] or "") if module.params["username"] else None
    return ImageRegistry(run, work, validate_certs=module.params["validate_certs"], login=login)
