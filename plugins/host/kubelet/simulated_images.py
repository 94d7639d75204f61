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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image, Profile, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


class MissingImageError(UnifleetError):
    """There is no such image; reason as kubelet names it."""

    reason = "ErrImagePull"


@dataclass
class SimulatedImages:
    """missing: references that cannot be pulled. seconds: how long a pull takes. profiles: reference -> what /unikernel.json says."""

    missing: set[str] = field(default_factory=set)
    seconds: float = 0.0
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def pull(self, reference: str, policy: str, credentials: Sequence[RegistryCredentials] = ()) -> Image:
        """As ImageStore.pull; policy and credentials change nothing."""
        del policy, credentials
        if self.seconds:
            time.sleep(self.seconds)
        if reference in self.missing:
            raise MissingImageError(f"image {reference}: not found")
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
