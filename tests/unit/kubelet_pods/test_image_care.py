# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images beside the pods: one pull for many, nobody waits for a prefetch, what a container has is never collected, what a node lists."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import Collected, CollectLimits
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Image, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.registry_settings import registry_settings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import Curve
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_care import ImageCare, node_images
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_settings import ImagesConfig
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import default_pull_policy
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import ContainerRuntime, StepError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.simulated_images import SimulatedImages
from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import Behaviour, SimulatedHost, SimulatedMachines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from tests.unit.kubelet_pods.pods import container, raw_pod
from tests.unit.kubelet_pods.test_pod_controller import RecordingApi, Rig, until

A, B = (RegistryCredentials("u", password, "r.example") for password in ("a", "b"))


class SlowImages(SimulatedImages):
    """A pull of "slow" ends when a test says so; collect() says what it was told."""

    def __init__(self, missing: Collection[str] = ()) -> None:
        super().__init__(missing=set(missing))
        self.gate = threading.Event()
        self.asked: list[tuple[str, str, tuple[RegistryCredentials, ...]]] = []
        self.told: list[Collection[str]] = []
        self.missing_bytes = 0

    def pull(self, reference: str, policy: str, credentials: Sequence[RegistryCredentials] = ()) -> Image:
        self.asked.append((reference, policy, tuple(credentials)))
        if reference == "slow":
            assert self.gate.wait(10)
        return super().pull(reference, policy, credentials)

    def collect(
        self, limits: CollectLimits, in_use: Collection[str], keep: Collection[str] = (), since: Optional[float] = None
    ) -> Collected:
        self.told.append(in_use)
        return Collected(100, self.missing_bytes)


def runtime(images: Any) -> ContainerRuntime:
    machines = SimulatedMachines(SimulatedHost(lambda spec: Behaviour()), "simulated")
    return ContainerRuntime(machines, images, None, lambda family: None, PodSettings(pulls=2))  # type: ignore[arg-type, return-value]


async def test_the_same_image_with_the_same_logins_is_pulled_once_and_takes_one_thread() -> None:
    images = SlowImages()
    shared = runtime(images)
    same = [asyncio.create_task(shared.pull("slow", "Always", (A,))) for _number in range(5)]
    await asyncio.sleep(0.05)
    other = await asyncio.wait_for(shared.pull("other", "Always", ()), 5)
    assert other.image.reference == "other"
    same[0].cancel()
    images.gate.set()
    found = await asyncio.gather(*same, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len({bootable.image.digest for bootable in found[1:]}) == 1  # type: ignore[union-attr]
    assert images.asked == [("slow", "Always", (A,)), ("other", "Always", ())]
    await shared.pull("slow", "Always", (A,))
    assert len(images.asked) == 3
    shared.close()


async def test_other_logins_or_another_policy_are_another_pull() -> None:
    images = SlowImages()
    shared = runtime(images)
    images.gate.set()
    await asyncio.gather(*(shared.pull("x", policy, login) for policy in ("Always", "IfNotPresent") for login in ((A,), (B,), ())))
    assert len(images.asked) == 6
    shared.close()


async def test_who_shares_a_pull_that_fails_is_told_the_same() -> None:
    images = SlowImages(missing={"slow"})
    shared = runtime(images)
    tasks = [asyncio.create_task(shared.pull("slow", "Always", ())) for _number in range(3)]
    await asyncio.sleep(0.05)
    images.gate.set()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, StepError)
        assert result.reason == "ErrImagePull"
    shared.close()


def care(images: SlowImages, in_use: Any = None, **config: Any) -> tuple[ImageCare, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []

    async def nothing() -> set[str]:
        return set()

    return ImageCare(runtime(images), ImagesConfig(**config), in_use or nothing, lambda *said: told.append(said)), told


async def test_a_prefetch_never_keeps_a_pod_waiting_and_is_shared_with_it() -> None:
    images = SlowImages()
    cared, _told = care(images, prefetch=("slow", "later:1"))
    task = asyncio.create_task(cared.run())
    await asyncio.sleep(0.05)
    shared = cared._runtime
    assert (await asyncio.wait_for(shared.pull("later:1", "IfNotPresent", ()), 5)).image.reference == "later:1"
    assert (await asyncio.wait_for(shared.pull("third", "IfNotPresent", ()), 5)).image.reference == "third"
    images.gate.set()
    await asyncio.sleep(0.1)
    assert [reference for reference, _policy, _login in images.asked] == ["slow", "later:1", "third", "later:1"]
    assert images.asked[0][1] == "Always"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    shared.close()


async def test_a_prefetch_that_fails_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_care.RETRY", Curve(0.02, 0.02))
    images = SlowImages(missing={"gone:1"})
    cared, told = care(images, prefetch=("gone:1", "here:1"))
    task = asyncio.create_task(cared.run())
    await until(lambda: images.pulls >= 4)
    assert [said[1] for said in told] == ["PrefetchFailed"]
    images.missing.clear()
    await until(lambda: "gone:1" in images.found)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_disk_that_cannot_be_freed_is_told_in_kubelets_words_and_once() -> None:
    images = SlowImages()
    cared, told = care(images)
    images.missing_bytes = 50
    await cared.collect()
    await cared.collect()
    text = "Failed to garbage collect required amount of images. Attempted to free 150 bytes, but only found 100 bytes eligible to free."
    assert told == [("Warning", "FreeDiskSpaceFailed", text)]
    images.missing_bytes = 0
    await cared.collect()
    images.missing_bytes = 1
    await cared.collect()
    assert len(told) == 2


async def test_nothing_is_collected_while_nobody_can_say_what_is_in_use() -> None:
    images = SlowImages()

    async def unknown() -> set[str]:
        raise UnifleetError("the pods of this node are not known yet")

    cared, told = care(images, unknown)
    await cared.collect()
    assert images.told == []
    assert told[0][1] == "ImageGCFailed"


async def test_every_container_that_runs_ran_or_waits_to_be_restarted_keeps_its_image(tmp_path: Path) -> None:
    api = RecordingApi(
        raw_pod(containers=[container("main", image="a:1")]),
        raw_pod(uid="11111111-2222-3333-4444-555555555555", name="crashing", containers=[container("main", image="b:1")]),
    )
    host = SimulatedHost(lambda spec: Behaviour(run_seconds=0.02, exit_code=1) if spec.metadata["image"] == "b:1" else Behaviour())
    async with Rig(tmp_path, api, host, curve=Curve(60, 60)) as rig:
        with pytest.raises(UnifleetError, match="not known yet"):
            await rig.controller.images_in_use()
        await until(lambda: len(rig.images.found) == 2)
        await until(lambda: any(run.exit for worker in rig.controller.workers.values() for run in worker.runs.values()))
        digests = {image.digest for image in rig.images.images()}
        assert len(digests) == 2
        assert digests <= await rig.controller.images_in_use()


def test_a_node_lists_its_largest_fifty_images_by_digest_and_tag() -> None:
    names = ("docker.io/library/a:1", "docker.io/library/a:2", "r.example/b@sha256:" + "1" * 64)
    images = [CachedImage("sha256:" + f"{size:064x}", size, 0.0, names) for size in range(1, 61)]
    listed = node_images([*images, CachedImage("sha256:" + "f" * 64, 999, 0.0)])
    assert [entry["sizeBytes"] for entry in listed] == list(range(60, 11, -1))
    digest = f"sha256:{60:064x}"
    assert listed[0]["names"] == [f"docker.io/library/a@{digest}", f"r.example/b@{digest}", *names[:2]]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:" + "0" * 64, "IfNotPresent"),
        ("Bad Name", "IfNotPresent"),
    ],
)
def test_the_policy_that_nobody_gave_depends_on_the_tag(image: str, policy: str) -> None:
    assert default_pull_policy(image) == policy


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ([], "is not a table"),
        ({"https://r.example": {}}, "is not a registry"),
        ({"r.example/x": {}}, "is not a registry"),
        ({"r.example": []}, "is not a table"),
        ({"r.example": {"mirror": []}}, "unknown key 'mirror'"),
        ({"r.example": {"mirrors": "m"}}, "mirrors must be a list"),
        ({"r.example": {"mirrors": ["https://m"]}}, "is not a mirror"),
        ({"r.example": {"mirrors": ["plain"]}}, "is not a mirror"),
        ({"r.example": {"mirrors": ["m.example/UP"]}}, "is not a mirror"),
        ({"r.example": {"insecure": 1}}, "insecure must be"),
        ({"r.example": {"ca": 1}}, "ca must be"),
        ({"r.example": {"ca": "text"}}, "holds no certificate"),
        ({"r.example": {"ca": "/nonexistent/ca.pem"}}, "ca cannot be read"),
    ],
)
def test_a_registry_that_cannot_be_is_told_by_name_and_key(table: Any, named: str) -> None:
    with pytest.raises(UnifleetError, match=named):
        registry_settings(table)


def test_registries_are_read_with_mirrors_and_authorities_from_text_or_file(tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(pem)
    read = registry_settings(
        {
            "docker.io": {"mirrors": ["m.example:5000/hub", "localhost"]},
            "m.example:5000": {"ca": pem, "insecure": True},
            "r.example": {"ca": str(tmp_path / "ca.pem")},
        }
    )
    assert read["docker.io"].mirrors == ("m.example:5000/hub", "localhost")
    assert read["m.example:5000"].ca == read["r.example"].ca == pem
    assert read["m.example:5000"].insecure
