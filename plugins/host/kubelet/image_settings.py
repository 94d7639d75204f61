# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""[images] of the configuration file: where images come from, which are fetched beforehand, and when old ones go.

The gc_ keys are kubelet's imageGCHighThresholdPercent, imageGCLowThresholdPercent, imageMinimumGCAge and imageMaximumGCAge with its
defaults; gc_high_bytes and gc_low_bytes bound the cache itself, gc_period is the time between looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.collector import CollectLimits
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistrySettings
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference


@dataclass(frozen=True)
class ImagesConfig:
    """directory: of the digest cache (default: state_directory/images). default_registry: of names without one.

    insecure_registries, registries: see images/registry_settings.py. prefetch: references that are pulled at start and never collected;
    registries that need a login are not for these, as a node has none. Times are seconds.
    """

    directory: Optional[Path] = None
    default_registry: str = "docker.io"
    insecure_registries: tuple[str, ...] = ()
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    prefetch: tuple[str, ...] = ()
    gc_high_percent: float = 85.0
    gc_low_percent: float = 80.0
    gc_high_bytes: int = 0
    gc_low_bytes: int = 0
    gc_minimum_age: float = 120.0
    gc_maximum_age: float = 0.0
    gc_period: float = 300.0

    @property
    def limits(self) -> CollectLimits:
        """When images go."""
        return CollectLimits(
            self.gc_high_percent, self.gc_low_percent, self.gc_high_bytes, self.gc_low_bytes, self.gc_minimum_age, self.gc_maximum_age
        )


def check_images(config: ImagesConfig, where: str) -> None:
    """What must fit together. Raises UnifleetError that names the key."""
    if not 0 <= config.gc_low_percent <= config.gc_high_percent <= 100:
        raise UnifleetError(
            f"{where}: gc_low_percent {config.gc_low_percent:g} and gc_high_percent {config.gc_high_percent:g} do not fit together",
            "0 <= low <= high <= 100",
        )
    if config.gc_high_bytes and config.gc_low_bytes > config.gc_high_bytes:
        raise UnifleetError(f"{where}: gc_low_bytes {config.gc_low_bytes} is more than gc_high_bytes {config.gc_high_bytes}")
    if config.gc_maximum_age and config.gc_maximum_age < config.gc_minimum_age:
        raise UnifleetError(f"{where}: gc_maximum_age {config.gc_maximum_age:g} is less than gc_minimum_age {config.gc_minimum_age:g}")
    if config.gc_period < 1:
        raise UnifleetError(f"{where}: gc_period is {config.gc_period:g}", "look at most once a second")
    for reference in config.prefetch:
        try:
            parse_reference(reference, config.default_registry)
        except UnifleetError as error:
            raise UnifleetError(f"{where}: prefetch: {error.message}", error.hint) from error
