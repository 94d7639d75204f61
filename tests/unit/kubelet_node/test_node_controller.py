# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node's whole life against an API server in memory that keeps NodeRestriction's rules."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kube.watch import WatchEvent
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config, TimingConfig
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import NodeLabels, builtin_labels
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node import NodeController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import HostFacts, Readings
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import node_refusal
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import AGENT_LABELS, INVENTORY_TAINTS, Taint

FACTS = HostFacts("h", "amd64", "6.1", "Debian", "m", "b", ("10.0.0.7",))
PLENTY = Readings(1 << 40, 1 << 40, 90.0, 90.0, 90.0)
TIMING = TimingConfig(lease_renew=0.05, lease_duration=40, status_check=0.05, status_report=30.0, health_timeout=0.5, labels_poll=0.02)


class Api:
    """Nodes and leases in memory; down makes every call fail; writes counts them by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.down = False
        self.writes: list[str] = []
        self.queue: asyncio.Queue[WatchEvent] = asyncio.Queue()

    @property
    def node(self) -> Optional[dict[str, Any]]:
        return self.objects.get("/api/v1/nodes/n1")

    def labels(self) -> dict[str, str]:
        return dict(self.node["metadata"]["labels"]) if self.node else {}

    def ready(self) -> str:
        found = [entry for entry in (self.node or {}).get("status", {}).get("conditions", ()) if entry["type"] == "Ready"]
        return str(found[0]["status"]) if found else ""

    def leases(self) -> int:
        return len([path for path in self.writes if "/leases" in path])

    async def get(self, path: str) -> dict[str, Any]:
        self.check()
        if path not in self.objects:
            raise ApiError("none", 404, "NotFound")
        return copy.deepcopy(self.objects[path])

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.check()
        where = f"{path}/{body['metadata']['name']}"
        if where in self.objects:
            raise ApiError("there", 409, "AlreadyExists")
        self.restrict(body["metadata"].get("labels", {}))
        stored = copy.deepcopy(body)
        stored["metadata"]["uid"] = f"uid-{self.version}"
        return self.store(path, where, stored, "ADDED")

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.check()
        if path not in self.objects:
            raise ApiError("none", 404, "NotFound")
        return self.store(path, path, copy.deepcopy(body), "MODIFIED")

    async def patch(self, path: str, body: dict[str, Any], kind: str = "merge") -> dict[str, Any]:
        self.check()
        where = path.replace("/status", "")
        if where not in self.objects:
            raise ApiError("none", 404, "NotFound")
        stored = copy.deepcopy(self.objects[where])
        if kind == "strategic":
            status = copy.deepcopy(body["status"])
            assert status["addresses"].pop(0) == {"$patch": "replace"}
            merged = {entry["type"]: entry for entry in stored.get("status", {}).get("conditions", ())}
            merged.update({entry["type"]: entry for entry in status.pop("conditions")})
            stored["status"] = {**stored.get("status", {}), **status, "conditions": list(merged.values())}
        else:
            self.restrict(body["metadata"].get("labels", {}))
            for part, entries in body["metadata"].items():
                target = stored["metadata"].setdefault(part, {})
                for key, value in entries.items():
                    if value is None:
                        target.pop(key, None)
                    else:
                        target[key] = value
        return self.store(path, where, stored, "MODIFIED")

    async def watch(self, path: str, *, field_selector: str = "", label_selector: str = "") -> AsyncIterator[WatchEvent]:
        assert field_selector == "metadata.name=n1"
        yield WatchEvent("SYNCED", {}, (copy.deepcopy(self.node),) if self.node else ())
        while True:
            yield await self.queue.get()

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Somebody else writes the Node."""
        assert self.node is not None
        change(self.node)
        self.queue.put_nowait(WatchEvent("MODIFIED", copy.deepcopy(self.node)))

    def remove(self) -> None:
        """Somebody else deletes the Node."""
        self.queue.put_nowait(WatchEvent("DELETED", self.objects.pop("/api/v1/nodes/n1")))

    def store(self, path: str, where: str, stored: dict[str, Any], kind: str) -> dict[str, Any]:
        self.version += 1
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[where] = stored
        self.writes.append(path)
        if "/nodes" in where:
            self.queue.put_nowait(WatchEvent(kind, copy.deepcopy(stored)))
        return copy.deepcopy(stored)

    def check(self) -> None:
        if self.down:
            raise ApiError("away", 0, "Unreachable")

    @staticmethod
    def restrict(labels: dict[str, Any]) -> None:
        if any(node_refusal(key) for key in labels):
            raise ApiError("not allowed to modify labels", 403, "Forbidden")


class Provider:
    kind = "scripted"

    def __init__(self) -> None:
        self.trouble = ""

    def health(self) -> None:
        if self.trouble:
            raise UnifleetError(self.trouble)

    def capacity(self) -> Capacity:
        return Capacity(4, 8 << 30, 110)


class Scene:
    """A node controller that runs, and all around it."""

    def __init__(self, directory: Path) -> None:
        self.api = Api()
        self.provider = Provider()
        self.file = directory / "labels.json"
        self.write({"sensor": "temperature", "site": "attic"})
        self.told: list[tuple[str, str, str]] = []
        self.taints = Config.taints
        self.task: Optional[asyncio.Task[None]] = None

    def write(self, labels: dict[str, Any]) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(labels))
        fresh.replace(self.file)

    def start(self) -> NodeController:
        config = Config(node_name="n1", timing=TIMING, taints=self.taints)
        labels = NodeLabels(builtin_labels("n1", "amd64", "process"), {}, self.file, {}, ())
        controller = NodeController(
            self.api,  # type: ignore[arg-type]
            config,
            FACTS,
            self.provider,  # type: ignore[arg-type]
            labels,
            port=10250,
            tell=lambda *event: self.told.append(event),
            readings=lambda: PLENTY,
        )
        self.task = asyncio.ensure_future(controller.run())
        return controller

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    async def until(self, what: Callable[[], Any], seconds: float = 5.0) -> None:
        for _try in range(int(seconds / 0.01)):
            if what():
                return
            assert self.task is None or not self.task.done(), "the controller ended"
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come true")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    yield made
    await made.stop()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_new_node_has_labels_taints_and_status_from_its_first_moment(scene: Scene) -> None:
    scene.taints = (*Config.taints, Taint("dedicated", "NoSchedule", "iot"))
    controller = scene.start()
    await scene.until(controller.registered.is_set)
    first = scene.api.writes[0]
    assert first == "/api/v1/nodes"
    node = scene.api.node
    assert node is not None
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["virtual-kubelet.io/provider", "dedicated"]
    assert scene.api.labels()["sensor"] == "temperature"
    assert json.loads(node["metadata"]["annotations"][INVENTORY_TAINTS]) == ["dedicated:NoSchedule"]
    assert scene.api.ready() == "True"
    assert node["status"]["capacity"]["cpu"] == "4"
    await scene.until(lambda: scene.api.leases() > 2)
    lease = scene.api.objects["/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"]
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_an_existing_node_is_adopted_with_what_others_put_on_it(scene: Scene) -> None:
    old = {AGENT_LABELS: '["dropped"]', "note": "mine"}
    metadata = {"name": "n1", "labels": {"dropped": "x", "foreign": "y"}, "annotations": old}
    conditions = [{"type": "DiskIsPurple", "status": "True"}]
    await scene.api.create("/api/v1/nodes", {"metadata": metadata, "spec": {"taints": []}, "status": {"conditions": conditions}})
    scene.start()
    await scene.until(lambda: scene.api.ready() == "True")
    node = scene.api.node
    assert node is not None
    assert "dropped" not in scene.api.labels()
    assert scene.api.labels()["foreign"] == "y"
    assert node["metadata"]["annotations"]["note"] == "mine"
    assert [event[1] for event in scene.told] == ["ProviderTaintMissing"]
    assert "DiskIsPurple" in [entry["type"] for entry in node["status"]["conditions"]]


async def test_a_quiet_node_is_not_written(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.leases() > 1)
    await asyncio.sleep(0.1)
    before = [path for path in scene.api.writes if "/nodes" in path]
    await asyncio.sleep(0.4)
    assert [path for path in scene.api.writes if "/nodes" in path] == before


async def test_a_changed_file_moves_labels_and_leaves_foreign_ones(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.ready() == "True")
    scene.api.edit(lambda node: node["metadata"]["labels"].update(foreign="yes", sensor="wrong"))
    await scene.until(lambda: scene.api.labels().get("sensor") == "temperature")
    scene.write({"sensor": "humidity"})
    await scene.until(lambda: scene.api.labels().get("sensor") == "humidity")
    assert "site" not in scene.api.labels()
    assert scene.api.labels()["foreign"] == "yes"


async def test_a_bad_file_is_told_once_and_changes_nothing(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.ready() == "True")
    scene.write({"sensor": "humidity", "kubernetes.io/role": "x", "node-role.kubernetes.io/y": ""})
    await scene.until(lambda: [event for event in scene.told if event[1] == "InvalidNodeLabels"])
    await asyncio.sleep(0.2)
    warnings = [event for event in scene.told if event[0] == "Warning"]
    assert len(warnings) == 2
    assert scene.api.labels()["sensor"] == "temperature"


async def test_a_deleted_node_comes_back_as_a_new_one_and_the_lease_follows(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.ready() == "True")
    assert scene.api.node is not None
    before = scene.api.node["metadata"]["uid"]
    scene.api.remove()
    await scene.until(lambda: scene.api.node and scene.api.node["metadata"]["uid"] != before)
    after = scene.api.node["metadata"]["uid"]
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
    await scene.until(lambda: path in scene.api.objects and scene.api.objects[path]["metadata"]["ownerReferences"][0]["uid"] == after)


async def test_a_sick_provider_stops_the_lease_and_says_why_and_a_well_one_starts_it_again(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.leases() > 1)
    scene.provider.trouble = "libvirtd is away"
    await scene.until(lambda: scene.api.ready() == "False")
    count = scene.api.leases()
    await asyncio.sleep(0.3)
    assert scene.api.leases() <= count + 1
    assert scene.api.node is not None
    ready = next(entry for entry in scene.api.node["status"]["conditions"] if entry["type"] == "Ready")
    assert ready["message"] == "libvirtd is away"
    scene.provider.trouble = ""
    await scene.until(lambda: scene.api.ready() == "True")
    await scene.until(lambda: scene.api.leases() > count + 2)


async def test_a_provider_that_is_sick_from_the_start_registers_a_node_that_is_not_ready(scene: Scene) -> None:
    scene.provider.trouble = "no libvirtd"
    scene.start()
    await scene.until(lambda: scene.api.ready() == "False")
    assert scene.api.node is not None
    assert "capacity" not in scene.api.node["status"]
    scene.provider.trouble = ""
    await scene.until(lambda: scene.api.ready() == "True")
    assert scene.api.node["status"]["capacity"]["cpu"] == "4"


async def test_an_outage_of_the_api_server_is_ridden_out(scene: Scene) -> None:
    scene.start()
    await scene.until(lambda: scene.api.ready() == "True")
    scene.api.down = True
    scene.write({"sensor": "humidity"})
    await asyncio.sleep(0.3)
    scene.api.down = False
    await scene.until(lambda: scene.api.labels().get("sensor") == "humidity")


async def test_the_pod_network_is_known_once_the_control_plane_gave_it(scene: Scene) -> None:
    controller = scene.start()
    await scene.until(controller.registered.is_set)
    assert controller.pod_cidr == ""
    scene.api.edit(lambda node: node["spec"].update(podCIDR="10.1.2.0/24"))
    await scene.until(lambda: controller.pod_cidr == "10.1.2.0/24")
