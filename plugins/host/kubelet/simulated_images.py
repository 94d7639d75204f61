# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for the simulated provider: every reference is there at once, but for those that a test wants to be missing.

The simulated provider measures and tests the agent with thousands of machines that cost nothing; a registry would be the only
real thing in it. Never used by another provider.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import Collected, CollectLimits
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image, Profile, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


class MissingImageError(UnifleetError):
    """There is no such image; reason as kubelet names it."""

    reason = "ErrImagePull"


@dataclass
class SimulatedImages:
    """missing: references that cannot be pulled. seconds: how long a pull takes. profiles: reference -> what /unikernel.json says.

    pulls counts what was pulled, and found are the references that were.
    """

    missing: set[str] = field(default_factory=set)
    seconds: float = 0.0
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    pulls: int = 0
    found: set[str] = field(default_factory=set)

    def pull(self, reference: str, policy: str, credentials: Sequence[RegistryCredentials] = ()) -> Image:
        """As ImageStore.pull; policy and credentials change nothing."""
        del policy, credentials
        self.pulls += 1
        if self.seconds:
            time.sleep(self.seconds)
        if reference in self.missing:
            raise MissingImageError(f"image {reference}: not found")
        self.found.add(reference)
        return self._image(reference)

    def find(self, reference: str) -> Optional[Image]:
        """As ImageStore.find."""
        return self._image(reference) if reference in self.found else None

    def images(self) -> list[CachedImage]:
        """As ImageStore.images."""
        return [CachedImage(self._image(name).digest, 1, 0.0, (name,)) for name in sorted(self.found)]

    def collect(
        self, limits: CollectLimits, in_use: Collection[str], keep: Collection[str] = (), since: Optional[float] = None
    ) -> Collected:
        """As ImageStore.collect; these take no room, so none ever goes."""
        del limits, in_use, keep, since
        return Collected()

    def _image(self, reference: str) -> Image:
        digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        return Image(reference, digest, Path("/nonexistent"), entrypoint=("/simulated",), profile=self.profiles.get(reference))

    def resolve(self, image: Image, hypervisor: str, architecture: str) -> Bootable:
        """As ImageStore.resolve."""
        profile = image.profile
        return Bootable(
            image,
            hypervisor,
            architecture,
            image.root / "simulated",
            profile.family if profile else "plain",
            memory_bytes=profile.memory_bytes if profile else 0,
            network=bool(profile and profile.network),
            why="simulated",
        )
