# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images to remove when the disk fills up, and which have not been used for too long: kubelet's rules, pure.

kubernetes pkg/kubelet/images/image_gc_manager.go: when the file system is used to high_percent or more, the least recently used images
go until it is used to low_percent; an image younger than minimum_age stays, so that one which was just pulled is still there when its
container starts; one that nothing used for maximum_age goes in any case. What a container uses never goes. Beside kubelet's share of the
file system the cache's own size may be bounded, for a host whose disk is for other things too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage


@dataclass(frozen=True)
class CollectLimits:
    """Percent of the file system; bytes of the cache (high_bytes 0: no bound; low_bytes 0: four fifths of it); seconds (0: no maximum)."""

    high_percent: float = 85.0
    low_percent: float = 80.0
    high_bytes: int = 0
    low_bytes: int = 0
    minimum_age: float = 120.0
    maximum_age: float = 0.0


@dataclass(frozen=True)
class Disk:
    """A file system: bytes that it has, and bytes that may still be written."""

    total: int
    available: int


@dataclass(frozen=True)
class CollectPlan:
    """What may go. too_old: in any case. removable: after those and in this order, until wanted bytes were freed in all."""

    too_old: tuple[CachedImage, ...] = ()
    removable: tuple[CachedImage, ...] = ()
    wanted: int = 0


def plan(images: Iterable[CachedImage], in_use: Collection[str], disk: Disk, limits: CollectLimits, now: float) -> CollectPlan:
    """What to remove. in_use: digests that containers have; now: seconds since the epoch."""
    images = sorted(images, key=lambda image: (image.used_at, image.digest))
    free = [image for image in images if image.digest not in in_use and now - image.used_at >= limits.minimum_age]
    too_old = tuple(image for image in free if limits.maximum_age and now - image.used_at > limits.maximum_age)
    rest = tuple(image for image in free if image not in too_old)
    return CollectPlan(too_old, rest, bytes_to_free(sum(image.size for image in images), disk, limits))


def bytes_to_free(cached: int, disk: Disk, limits: CollectLimits) -> int:
    """How much must go; cached: bytes of all images. 0 while neither bound is reached."""
    wanted = 0
    if disk.total > 0 and 100 * (disk.total - disk.available) >= limits.high_percent * disk.total:
        wanted = int(disk.total * (100 - limits.low_percent) / 100) - disk.available
    if limits.high_bytes and cached >= limits.high_bytes:
        wanted = max(wanted, cached - (limits.low_bytes or limits.high_bytes * 4 // 5))
    return max(0, wanted)


@dataclass(frozen=True)
class Collected:
    """What was removed: bytes, and bytes that should have gone too and could not; digests."""

    freed: int = 0
    missing: int = 0
    removed: tuple[str, ...] = ()
