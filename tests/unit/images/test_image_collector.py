# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images go: kubelet's thresholds as arithmetic, and a real cache that is never left with half an image."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage, ImageCache
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import CollectLimits, Disk, plan
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import pack
from tests.unit.images.test_store import DirectoryRegistry, content, store

NOW = 1_000_000.0
FULL = CollectLimits(high_percent=0.0, low_percent=0.0, minimum_age=0.0)
"""Everything that may go goes."""


def cached(name: str, size: int = 10, age: float = 1000.0) -> CachedImage:
    return CachedImage(name, size, NOW - age)


def going(*images: CachedImage, used: int, in_use: tuple[str, ...] = (), **limits: Any) -> tuple[list[str], int]:
    """What may go in which order, and how many bytes should, on a disk of 100 bytes."""
    decided = plan(images, in_use, Disk(100, 100 - used), CollectLimits(**limits), NOW)
    return [image.digest for image in (*decided.too_old, *decided.removable)], decided.wanted


def test_below_the_high_mark_nothing_is_wanted_and_from_it_on_down_to_the_low_one() -> None:
    assert going(cached("a"), used=84)[1] == 0
    assert going(cached("a"), used=85)[1] == 5
    assert going(cached("a"), used=99)[1] == 19


def test_the_least_recently_used_goes_first_what_is_young_or_in_use_never() -> None:
    images = (cached("new", age=200), cached("old", age=900), cached("young", age=100), cached("busy", age=2000))
    assert going(*images, used=95, in_use=("busy",)) == (["old", "new"], 15)


def test_a_bound_in_bytes_counts_the_cache_alone() -> None:
    assert going(cached("a", 40), cached("b", 20), used=10, high_bytes=50) == (["a", "b"], 20)
    assert going(cached("a", 40), cached("b", 20), used=10, high_bytes=60, low_bytes=10)[1] == 50
    assert going(cached("a", 40), used=10, high_bytes=50)[1] == 0


def test_what_nobody_used_for_the_maximum_age_goes_in_any_case_but_what_is_in_use() -> None:
    decided = plan(
        [cached("a", age=500), cached("b", age=700), cached("c", age=700)], ("c",), Disk(100, 90), CollectLimits(maximum_age=600), NOW
    )
    assert [image.digest for image in decided.too_old] == ["b"]
    assert decided.wanted == 0


IMAGES = st.lists(
    st.builds(cached, st.text("abcdef", min_size=1, max_size=2), st.integers(0, 50), st.floats(0, 5000)), unique_by=lambda i: i.digest
)


@given(IMAGES, st.integers(0, 100), st.sets(st.text("abcdef", min_size=1, max_size=2)), st.integers(0, 60), st.floats(0, 3000))
def test_no_state_of_a_disk_takes_an_image_that_is_used_or_young(
    images: list[CachedImage], used: int, in_use: set[str], high_bytes: int, minimum_age: float
) -> None:
    decided = plan(
        images, in_use, Disk(100, 100 - used), CollectLimits(high_bytes=high_bytes, minimum_age=minimum_age, maximum_age=4000), NOW
    )
    for image in (*decided.too_old, *decided.removable):
        assert image.digest not in in_use
        assert NOW - image.used_at >= minimum_age
    assert decided.wanted <= max(100, sum(image.size for image in images))


@pytest.fixture
def registry() -> DirectoryRegistry:
    made = DirectoryRegistry()
    for number in range(3):
        made.layouts[f"lab:5000/i{number}:latest"] = pack(content(bytes([number]) * 50_000))
    return made


def aged(images: ImageStore, directory: Path, seconds: float) -> None:
    """As if everything had been used so long ago."""
    for file in (directory / "store/images").glob("*/image.json"):
        os.utime(file, (time.time() - seconds, time.time() - seconds))
    assert all(image.used_at < time.time() - seconds + 5 for image in images.images())


def test_images_go_with_their_names_and_what_is_used_kept_or_young_stays(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    digests = [images.pull(f"i{number}").digest for number in range(3)]
    known = {image.digest: image for image in images.images()}
    assert known[digests[0]].references == ("lab:5000/i0:latest",)
    assert 50_000 < known[digests[0]].size < 1_000_000
    assert images.collect(CollectLimits(high_percent=0.0, low_percent=0.0), ()).removed == ()
    aged(images, tmp_path, 300)
    done = images.collect(CollectLimits(high_percent=0.0, low_percent=0.0), {digests[0]}, keep=["i1"])
    assert done.removed == (digests[2],)
    assert done.freed == known[digests[2]].size
    assert done.missing > 0
    assert images.find("i2") is None
    assert [images.pull(f"i{number}", "Never").digest for number in (0, 1)] == digests[:2]
    assert images.pull("i2").digest == digests[2]


def test_an_image_that_is_found_while_others_are_collected_stays(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    images.pull("i0")
    aged(images, tmp_path, 300)
    since = time.time()
    assert images.find("i0") is not None
    assert images.collect(FULL, (), since=since).removed == ()
    aged(images, tmp_path, 300)
    assert len(images.collect(FULL, (), since=since).removed) == 1


def test_pulling_and_collecting_at_once_never_gives_an_image_that_is_not_whole(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    troubles: list[str] = []
    ends = time.monotonic() + 2

    def pull() -> None:
        while time.monotonic() < ends:
            began = time.time()
            image = images.pull("i0")
            try:
                whole = (image.root / "boot/kvm-amd64").stat().st_size == 50_015
            except FileNotFoundError:
                whole = False
            if not whole and time.time() - began < 0.2:
                troubles.append("an image that was just used is not whole")
            time.sleep(0.25)

    pullers = [threading.Thread(target=pull) for _number in range(2)]
    for thread in pullers:
        thread.start()
    removed = 0
    while time.monotonic() < ends:
        removed += len(images.collect(FULL, (), since=time.time() - 0.2).removed)
    for thread in pullers:
        thread.join()
    assert removed > 1
    assert registry.fetched >= removed
    assert not troubles
    assert list((tmp_path / "store/work").iterdir()) == []


def test_a_crash_while_an_image_is_removed_leaves_no_half_of_it(
    tmp_path: Path, registry: DirectoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = store(tmp_path, registry)
    images.pull("i0")
    aged(images, tmp_path, 300)
    module = "ansible_collections.unifleet.hybrid.plugins.host.images.cache.remove_tree"
    with monkeypatch.context() as crash:
        crash.setattr(module, lambda path: (path / "removed/root/boot/kvm-amd64").unlink())
        assert len(images.collect(FULL, ()).removed) == 1
    assert list((tmp_path / "store/work").iterdir())
    again = store(tmp_path, registry)
    assert again.images() == []
    assert again.find("i0") is None
    assert list((tmp_path / "store/work").iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"digest": 1}'])
def test_an_image_whose_record_a_power_cut_took_is_pulled_anew(tmp_path: Path, registry: DirectoryRegistry, damage: str) -> None:
    images = store(tmp_path, registry)
    image = images.pull("i0")
    (image.root.parent / "image.json").write_text(damage)
    assert images.images() == []
    assert images.find("i0") is None
    assert (images.pull("i0").root / "boot/kvm-amd64").is_file()
    assert registry.fetched == 2


def test_an_unreadable_record_is_swept_with_its_image(tmp_path: Path, registry: DirectoryRegistry) -> None:
    image = store(tmp_path, registry).pull("i0")
    (image.root.parent / "image.json").write_text("")
    store(tmp_path, registry)
    assert list((tmp_path / "store/images").iterdir()) == []


def test_a_clock_that_was_set_back_keeps_nothing_for_ever(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    image = images.pull("i0")
    os.utime(image.root.parent / "image.json", (time.time() + 10**8,) * 2)
    assert images.images()[0].used_at <= time.time()
    aged(images, tmp_path, 300)
    assert images.collect(FULL, ()).removed == (image.digest,)


def test_an_image_that_does_not_fit_on_the_disk_is_not_even_fetched(
    tmp_path: Path, registry: DirectoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = store(tmp_path, registry)
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real[:4], 0, *real[5:])))
    with pytest.raises(Exception, match="make room on this host") as caught:
        images.pull("i0")
    assert getattr(caught.value, "reason", "") == "ErrImagePull"
    assert registry.fetched == 0


def test_there_are_never_more_locks_than_the_first_byte_of_a_digest_has_values(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    for number in range(600):
        with cache.lock(f"sha256:{number:064x}"):
            pass
    assert len(list((tmp_path / "locks").iterdir())) <= 258
