# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin shell in a process of its own: workers over simulated machines, an API that records, agents that die at any moment."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Profile
from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import Curve
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_controller import PodController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_network import PodNetwork
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.simulated_images import SimulatedImages
from ansible_collections.unifleet.hybrid.plugins.host.machines.console_log import ConsoleLog
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Kernel, MachineSpec, Phase
from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import Behaviour, SimulatedHost, SimulatedMachines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from tests.unit.kubelet_pods.pods import UID, container, raw_pod

NODE = {"spec": {"podCIDR": "10.9.8.0/29"}, "status": {"allocatable": {"cpu": "4", "memory": "1Gi", "pods": "9"}}}


class RecordingApi:
    """What a worker says to the API server; objects it may get; an outage on demand. (The real one is in tests/system.)"""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = {raw["metadata"]["uid"]: raw for raw in pods}
        self.events: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.away = False
        self.feed: asyncio.Queue[Any] = asyncio.Queue()
        token = {"type": "kubernetes.io/service-account-token", "data": {"token": base64.b64encode(b"t").decode()}}
        self.objects: dict[str, Any] = {"/api/v1/nodes/n": NODE, "/api/v1/namespaces/default/secrets/default-token-zxr2g": token}

    def _here(self) -> None:
        if self.away:
            raise ApiError("away", 0, "Unreachable")

    async def get(self, path: str) -> Any:
        self._here()
        if path not in self.objects:
            raise ApiError(f"GET {path}: 404", 404, "NotFound")
        return self.objects[path]

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._here()
        assert path.endswith("/events")
        self.events.append(body)
        return body

    async def patch(self, path: str, body: Any, kind: str = "merge") -> dict[str, Any]:
        self._here()
        if path.endswith("/status"):
            raw = self.pods.get(body["metadata"]["uid"])
            if raw is None:
                raise ApiError("gone", 404, "NotFound")
            raw["status"] = {**raw["status"], **body["status"]}
        return {}

    async def delete(self, path: str, *, uid: Optional[str] = None, grace_seconds: Optional[int] = None) -> None:
        self._here()
        assert grace_seconds == 0
        assert uid
        self.pods.pop(uid, None)
        self.deleted.append(uid)

    async def watch(self, path: str, *, field_selector: str = "") -> AsyncIterator[Any]:
        assert field_selector == "spec.nodeName=n"
        yield SimpleNamespace(type="SYNCED", object=None, items=list(self.pods.values()))
        while True:
            yield await self.feed.get()

    def say(self, kind: str, raw: dict[str, Any]) -> None:
        self.feed.put_nowait(SimpleNamespace(type=kind, object=raw, items=None))

    def state(self, uid: str = UID) -> dict[str, Any]:
        found: dict[str, Any] = (self.pods[uid]["status"].get("containerStatuses") or [{}])[0]
        return found

    def reasons(self) -> set[str]:
        return {event["reason"] for event in self.events}


class RecordingBridge:
    """A host's bridge, which may be impossible to make."""

    name = "br0"

    def __init__(self) -> None:
        self.networks: list[tuple[str, ...]] = []
        self.trouble = ""

    def ensure(self, networks: Sequence[str]) -> bool:
        if self.trouble:
            raise UnifleetError(self.trouble)
        self.networks.append(tuple(networks))
        return True


class RecordingFirewall:
    """What the firewall was told last."""

    rules: Any = None

    def apply(self, rules: Any, *, look: bool = False) -> bool:
        self.rules = rules
        return True


class Rig:
    """A host, and agents on it that come and go."""

    def __init__(
        self, folder: Path, api: RecordingApi, host: SimulatedHost, kind: str = "process", bridge: Any = None, **changes: Any
    ) -> None:
        self.bridge, self.firewall = bridge, RecordingFirewall()
        self.api, self.host, self.kind = api, host, kind
        base = PodSettings(
            log_directory=folder / "logs", token_directory=folder / "tokens", curve=Curve(0.05, 0.2), hold_off=0.3, resync=0.3
        )
        self.settings = replace(base, **changes)
        self.images = SimulatedImages()
        self.controller: Any = None
        self.task: Optional[asyncio.Task[None]] = None

    async def __aenter__(self) -> Rig:
        self.consoles = ConsoleLog()
        machines = SimulatedMachines(self.host, self.kind)
        network = PodNetwork(self.bridge, self.firewall)
        self.controller = PodController(
            self.api, "n", "10.0.0.1", machines, self.images, self.settings, consoles=self.consoles, network=network
        )
        self.task = asyncio.create_task(self.controller.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.consoles.close()


async def until(check: Callable[[], Any], seconds: float = 8.0) -> Any:
    for _number in range(int(seconds / 0.01)):
        answer = check()
        if answer:
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError("this did not come true in time")


def running(api: RecordingApi, uid: str = UID) -> bool:
    return "running" in (api.state(uid).get("state") or {})


async def test_a_pod_whose_status_cannot_be_written_runs_all_the_same_and_is_told_later(tmp_path: Path) -> None:
    api, host = RecordingApi(raw_pod(volumes=[], containers=[container(volumeMounts=[])])), SimulatedHost()
    async with Rig(tmp_path, api, host):
        api.away = True
        await until(lambda: UID in host.machines and host.machines[UID].state.phase is Phase.RUNNING)
        assert "containerStatuses" not in api.pods[UID]["status"]
        api.away = False
        await until(lambda: running(api))


async def test_a_pod_that_is_deleted_while_its_image_is_being_pulled_goes_at_once(tmp_path: Path) -> None:
    api, host = RecordingApi(raw_pod()), SimulatedHost()
    rig = Rig(tmp_path, api, host)
    rig.images.seconds = 3.0
    async with rig:
        await until(lambda: rig.controller.workers and rig.controller.workers[UID].launches)
        api.say("MODIFIED", raw_pod(metadata={"deletionTimestamp": "2026-11-21T23:20:00Z", "deletionGracePeriodSeconds": 30}))
        await until(lambda: api.deleted == [UID], 1.5)
    assert not host.machines


async def test_a_provider_that_fails_to_define_is_tried_again_and_told(tmp_path: Path) -> None:
    api, host = RecordingApi(raw_pod()), SimulatedHost()
    host.failures["prepare"] = UnifleetError("no space left")
    async with Rig(tmp_path, api, host, retry=Curve(0.1, 0.2)):
        await until(lambda: (api.state().get("state") or {}).get("waiting", {}).get("reason") == "CreateContainerError")
        assert "no space left" in api.state()["state"]["waiting"]["message"]
        host.failures.clear()
        await until(lambda: running(api))
    assert "Failed" in api.reasons()


async def test_a_secret_that_is_no_token_is_a_failed_mount_not_a_file(tmp_path: Path) -> None:
    api, host = RecordingApi(raw_pod()), SimulatedHost()
    api.objects["/api/v1/namespaces/default/secrets/default-token-zxr2g"] = {"type": "Opaque", "data": {"x": "eA=="}}
    async with Rig(tmp_path, api, host):
        await until(lambda: "FailedMount" in api.reasons())
    assert not host.machines
    assert not list((tmp_path / "tokens").rglob("x"))


async def test_a_vm_runs_without_the_token_and_says_so(tmp_path: Path) -> None:
    api, specs = RecordingApi(raw_pod()), []
    host = SimulatedHost(lambda spec: specs.append(spec) or Behaviour())  # type: ignore[func-returns-value]
    async with Rig(tmp_path, api, host, kind="kvm"):
        await until(lambda: running(api))
        await until(lambda: "TokenNotMounted" in api.reasons())
    assert isinstance(specs[0].boot, Kernel)
    assert specs[0].interface is None
    assert not api.pods[UID]["status"].get("podIP")


async def test_vms_with_a_network_get_addresses_of_the_nodes_range_which_survive_the_agent(tmp_path: Path) -> None:
    uids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
    api = RecordingApi(*(raw_pod(uid=uid, name=f"p{uid[-1]}") for uid in uids))
    host = SimulatedHost()
    rig = Rig(tmp_path, api, host, kind="kvm", bridge=RecordingBridge())
    image = container()["image"]
    rig.images.profiles = {image: Profile("plain", {}, network=True)}
    async with rig:
        await until(lambda: all(running(api, uid) for uid in uids))
    before = {uid: api.pods[uid]["status"]["podIP"] for uid in uids}
    assert sorted(before.values()) == ["10.9.8.2", "10.9.8.3", "10.9.8.4"]
    late = raw_pod(uid="00000000-0000-4000-8000-000000000009", name="late")
    api.pods[late["metadata"]["uid"]] = late
    async with rig:
        await until(lambda: running(api, late["metadata"]["uid"]))
    assert late["status"]["podIP"] == "10.9.8.5"
    assert {uid: api.pods[uid]["status"]["podIP"] for uid in uids} == before


async def test_a_process_gets_its_argv_environment_and_token(tmp_path: Path) -> None:
    specs: list[MachineSpec] = []
    host = SimulatedHost(lambda spec: specs.append(spec) or Behaviour())  # type: ignore[func-returns-value]
    api = RecordingApi(raw_pod(containers=[container(args=["--name=$(N)"], env=[{"name": "N", "value": "x y"}])]))
    async with Rig(tmp_path, api, host):
        await until(lambda: running(api))
        [spec] = specs
        assert getattr(spec.boot, "argv", None) == ("/simulated", "--name=x y")
        assert getattr(spec.boot, "env", None) == (("N", "x y"),)
        assert (spec.mounts[0].source / "token").read_bytes() == b"t"
        assert spec.mounts[0].read_only


async def test_an_agent_that_comes_back_goes_on_with_the_log_at_once(tmp_path: Path) -> None:
    host, api = SimulatedHost(), RecordingApi(raw_pod())

    def write(text: str) -> None:
        (directory,) = (tmp_path / "logs").rglob("0.raw")
        with (directory / f"{UID}.stdout.raw").open("a", encoding="utf-8") as file:
            file.write(text)

    def written(text: str) -> bool:
        return any(text in path.read_text(encoding="utf-8") for path in (tmp_path / "logs").rglob("0.log"))

    async with Rig(tmp_path, api, host):
        await until(lambda: running(api))
        write("while it was there\n")
        await until(lambda: written("while it was there"))
    write("while it was away\n")
    async with Rig(tmp_path, api, host):
        await until(lambda: written("while it was away"))
        write("since it is back\n")
        await until(lambda: written("since it is back"))


async def test_a_worker_that_hits_a_defect_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api, host = RecordingApi(raw_pod()), SimulatedHost()
    host.failures["state"] = ZeroDivisionError("a defect")  # type: ignore[assignment]
    real = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: real(min(seconds, 0.05)))
    async with Rig(tmp_path, api, host):
        await real(0.3)
        host.failures.clear()
        await until(lambda: running(api))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(st.floats(0.0, 0.12), min_size=1, max_size=5))
def test_an_agent_that_dies_at_any_moment_starts_nothing_twice_and_never_counts_back(
    lives: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def story() -> None:
        uids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
        api = RecordingApi(*(raw_pod(uid=uid, name=f"p{uid[-1]}") for uid in uids))
        attempts: dict[tuple[str, str], int] = {}
        counts: dict[str, int] = {}

        def script(spec: MachineSpec) -> Behaviour:
            attempts[spec.key, spec.metadata["attempt"]] = attempts.get((spec.key, spec.metadata["attempt"]), 0) + 1
            steady = spec.key in uids[:2]
            return Behaviour(prepare_seconds=0.01, start_seconds=0.01, run_seconds=None if steady else 0.03, exit_code=1)

        host = SimulatedHost(script)
        rig = Rig(tmp_path_factory.mktemp("story"), api, host)
        for seconds in lives:
            async with rig:
                await asyncio.sleep(seconds)
            for uid in uids:
                count = api.state(uid).get("restartCount", 0)
                assert count >= counts.get(uid, 0)
                counts[uid] = count
        async with rig:
            await until(lambda: all(running(api, uid) for uid in uids[:2]))
        for uid in uids[:2]:
            assert host.starts(uid) == 1
            assert api.state(uid)["restartCount"] == 0
        assert all(machine.starts <= 1 for machine in host.machines.values())

    asyncio.run(story())
