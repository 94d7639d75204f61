# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's agent is configured to do with images, for a command that is to do the same. Reads the agent's TOML file, if there is one.

A file that this cannot read is not an error here: the agent itself says what is wrong with its configuration.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistrySettings
from ansible_collections.unifleet.hybrid.plugins.host.images.registry_settings import registry_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import DOCKER_HUB
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import from_toml

CONFIG = Path("/etc/unifleet/virtual-kubelet.toml")


@dataclass(frozen=True)
class NodeSettings:
    """provider: "" where there is no agent. image_directory: the agent's cache."""

    provider: str = ""
    default_registry: str = DOCKER_HUB
    insecure_registries: tuple[str, ...] = ()
    image_directory: Path = Path("/var/lib/unifleet/images")
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)


@functools.lru_cache(maxsize=1)
def node_settings() -> NodeSettings:
    """This machine's."""
    return read_settings(Path(os.environ.get("UNIFLEET_AGENT_CONFIG") or CONFIG))


def read_settings(path: Path) -> NodeSettings:
    """What is in the file."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else from_toml(text)
    except (OSError, ValueError, UnifleetError):
        return NodeSettings()
    if not isinstance(document, dict):
        return NodeSettings()
    said = document.get("images")
    images = said if isinstance(said, dict) else {}
    registry, insecure = images.get("default_registry", DOCKER_HUB), images.get("insecure_registries", [])
    return NodeSettings(
        provider=str(document.get("provider", "")),
        default_registry=registry if isinstance(registry, str) else DOCKER_HUB,
        insecure_registries=tuple(str(entry) for entry in insecure) if isinstance(insecure, list) else (),
        image_directory=Path(str(images.get("directory") or Path(str(document.get("state_directory", "/var/lib/unifleet")), "images"))),
        registries=_registries(images.get("registries", {})),
    )


def _registries(table: Any) -> Mapping[str, RegistrySettings]:
    try:
        return registry_settings(table)
    except UnifleetError:
        return {}
