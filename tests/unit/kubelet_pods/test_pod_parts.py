# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small pure parts: admission, addresses, pull secrets, who may ask, what machines remember, events, the [pods] table."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet import pull_secrets
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.addresses import AddressPool
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.admission import Room, admit, room_of
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.events import EventRecorder, Subject
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Ended, Run, from_machine, to_metadata
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_status import image_id
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import LogPaths, LogSweeper
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server_auth import (
    Reviewer,
    User,
    bearer_token,
    request_for,
    user_of_certificate,
)
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import pod_settings
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, MachineState, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from tests.unit.kubelet_pods.pods import container, pod

ROOM = Room(2000, 1 << 30, 3)


def needing(cpu: str = "0", memory: str = "0", port: int = 0, **more: Any) -> Any:
    ports = [{"containerPort": port}] if port else []
    return pod(containers=[container(resources={"requests": {"cpu": cpu, "memory": memory}}, ports=ports)], **more)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (needing("500m", "100Mi"), None),
        (needing("1500m"), "OutOfcpu"),
        (needing("0", "1Gi"), "OutOfmemory"),
        (needing(port=80), "HostPortConflict"),
        (needing(port=81), None),
    ],
)
def test_a_pod_is_admitted_when_it_fits_beside_the_others(new: Any, reason: Optional[str]) -> None:
    other = needing("1", "512Mi", 80, name="other")
    rejection = admit(new, [other], ROOM, shared_network=True)
    assert (rejection.reason if rejection else None) == reason
    full = admit(new, [other] * 3, ROOM, shared_network=True)
    assert full is not None
    assert full.reason == "OutOfpods"


def test_vms_have_ports_of_their_own() -> None:
    assert admit(needing(port=80), [needing(port=80)], ROOM, shared_network=False) is None


def test_two_containers_of_a_pod_cannot_share_a_port_either() -> None:
    both = pod(containers=[container(name, ports=[{"containerPort": 80}]) for name in "ab"])
    rejection = admit(both, [], ROOM, shared_network=True)
    assert rejection is not None
    assert "two of its containers" in rejection.message


def test_the_room_is_what_the_node_publishes() -> None:
    assert room_of({"status": {"allocatable": {"cpu": "3900m", "memory": "1Gi", "pods": "20"}}}) == Room(3900, 1 << 30, 20)
    assert room_of({"status": {}}) is None


@given(st.integers(24, 30), st.data())
def test_no_address_is_given_twice_nor_outside_the_range_nor_the_gateways(prefix: int, data: st.DataObject) -> None:
    pool = AddressPool(f"10.1.2.0/{prefix}")
    keys = data.draw(st.lists(st.sampled_from("abcdefghij"), max_size=30))
    for key in keys:
        if key in pool.given and data.draw(st.booleans()):
            pool.release(key)
            continue
        try:
            address = pool.take(key)
        except UnifleetError:
            assert len(pool.given) == 2 ** (32 - prefix) - 3
            continue
        assert address == pool.take(key)
        assert int(address.rpartition(".")[2]) in range(2, 2 ** (32 - prefix) - 1)
    assert len(set(pool.given.values())) == len(pool.given)


def secret(auths: Any, kind: str = ".dockerconfigjson") -> dict[str, Any]:
    body = {"auths": auths} if kind == ".dockerconfigjson" else auths
    return {"metadata": {"name": "s"}, "data": {kind: base64.b64encode(json.dumps(body).encode()).decode()}}


def test_a_secret_of_either_kind_says_its_logins_in_order() -> None:
    auth = base64.b64encode(b"u:p:q").decode()
    hub = "https://index.docker.io/v1/"
    known = pull_secrets.logins(secret({hub: {"username": "hub"}, "r.example:5000": {"auth": auth.rstrip("=")}}))
    assert [(login.registry, login.username, login.password) for login in known] == [(hub, "hub", ""), ("r.example:5000", "u", "p:q")]
    assert pull_secrets.logins(secret({"*.b.example": {"username": "w"}}, ".dockercfg"))[0].registry == "*.b.example"


@pytest.mark.parametrize("data", [{}, {".dockerconfigjson": "!!"}, {".dockerconfigjson": "e30="}, {".dockercfg": "WzFd"}])
def test_a_secret_without_logins_is_named_and_never_quoted(data: dict[str, str]) -> None:
    with pytest.raises(UnifleetError, match="secret s: it holds no registry logins"):
        pull_secrets.logins({"metadata": {"name": "s"}, "data": data})


def test_requests_have_kubelets_attributes() -> None:
    assert request_for("GET", "/containerLogs/ns/p/c").subresources == ("proxy",)
    assert request_for("GET", "/stats/summary").subresources == ("stats",)
    assert request_for("GET", "/logs/x").subresources == ("log",)
    assert request_for("GET", "/pods").subresources == ("pods", "proxy")
    assert (request_for("POST", "/exec/x").verb, request_for("GET", "/exec/x").verb) == ("create", "get")


def test_a_certificates_subject_is_a_user_and_groups() -> None:
    subject = ((("organizationName", "system:masters"),), (("organizationName", "b"),), (("commonName", "me"),))
    assert user_of_certificate({"subject": subject}) == User("me", ("system:masters", "b"))
    assert user_of_certificate({"subject": ()}) is None
    assert user_of_certificate({}) is user_of_certificate(None) is None


@pytest.mark.parametrize(("header", "token"), [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", "")])
def test_only_a_bearer_token_counts(header: str, token: str) -> None:
    assert bearer_token(header) == token


class ReviewApi:
    """Answers reviews and counts them."""

    def __init__(self, allowed: bool = True, fine: bool = True) -> None:
        self.allowed, self.fine, self.asked = allowed, fine, list[dict[str, Any]]()

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["spec"])
        if path.endswith("tokenreviews"):
            good = body["spec"]["token"] == "good"
            return {"status": {"authenticated": good, "user": {"username": "u", "groups": ["g"], "extra": {"k": ["v"]}}}}
        subresource = body["spec"]["resourceAttributes"]["subresource"]
        return {"status": {"allowed": self.allowed and (self.fine or subresource == "proxy")}}


async def test_answers_are_remembered_a_no_shorter_than_a_yes() -> None:
    now = 0.0
    api = ReviewApi()
    reviewer = Reviewer(api, "n", lambda: now)
    user = await reviewer.authenticate(None, "Bearer good")
    assert user == User("u", ("g",), "", (("k", ("v",)),))
    assert await reviewer.authenticate(None, "Bearer bad") is None
    assert await reviewer.authenticate(None, "") is None
    assert len(api.asked) == 2
    assert await reviewer.authorize(user, request_for("GET", "/containerLogs/a/b/c"))
    api.allowed = False
    now = 299.0
    assert await reviewer.authorize(user, request_for("GET", "/containerLogs/a/b/c"))
    now = 301.0
    assert not await reviewer.authorize(user, request_for("GET", "/containerLogs/a/b/c"))
    api.allowed = True
    now = 332.0
    assert await reviewer.authorize(user, request_for("GET", "/containerLogs/a/b/c"))
    assert api.asked[-1]["resourceAttributes"] == {"verb": "get", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": "n"}


async def test_the_finer_permission_is_enough_and_so_is_the_old_one() -> None:
    user = User("u")
    assert await Reviewer(ReviewApi(), "n").authorize(user, request_for("GET", "/pods"))
    assert await Reviewer(ReviewApi(fine=False), "n").authorize(user, request_for("GET", "/pods"))
    assert not await Reviewer(ReviewApi(allowed=False), "n").authorize(user, request_for("GET", "/pods"))


@given(
    number=st.integers(0, 10**6),
    backoff=st.floats(0, 300),
    code=st.integers(0, 255),
    message=st.text(max_size=600),
    at=st.floats(0, 4e9),
    text=st.text(max_size=50),
)
def test_what_a_machine_remembers_comes_back_as_it_was(number: int, backoff: float, code: int, message: str, at: float, text: str) -> None:
    last = Ended(Exit(code, "Error", at, message[:512]), at, number)
    run = Run(number, Phase.RUNNING, text, text, text, text, text, backoff, at, None, last)
    metadata = to_metadata(pod(), "main", run)
    assert all(isinstance(value, str) for value in metadata.values())
    assert from_machine(MachineState(pod().uid, Phase.RUNNING, metadata, at)) == run


def test_metadata_that_an_older_agent_wrote_less_of_is_read_all_the_same() -> None:
    assert from_machine(MachineState("k", Phase.CREATED, {"pod_uid": "u"})) == Run(0, Phase.CREATED)


def test_an_image_id_is_the_repository_with_the_digest() -> None:
    assert image_id("r.example:5000/a/b:1", "sha256:x") == "r.example:5000/a/b@sha256:x"
    assert image_id("r.example/b@sha256:y", "sha256:x") == "r.example/b@sha256:x"
    assert image_id("b", "") == ""


def test_only_the_current_and_the_previous_attempts_logs_are_kept(tmp_path: Path) -> None:
    paths, one = LogPaths(tmp_path), pod()
    for attempt in range(4):
        paths.raw(one, "main", attempt).mkdir(parents=True)
        paths.log(one, "main", attempt).write_text("")
    paths.log(one, "main", 1).with_name(".1.log.offsets").write_text("")
    paths.forget_before(one, "main", 4)
    assert sorted(path.name for path in paths.log(one, "main", 3).parent.iterdir()) == ["3.log", "3.raw"]


def test_logs_go_a_while_after_their_pod_and_a_kubelets_logs_never(tmp_path: Path) -> None:
    paths, one = LogPaths(tmp_path), pod()
    paths.raw(one, "main", 0).mkdir(parents=True)
    kubelets = tmp_path / "ns_p_00000000-0000-4000-8000-000000000001" / "c"
    kubelets.mkdir(parents=True)
    sweeper = LogSweeper(tmp_path)
    sweeper.sweep({one.uid}, 0.0)
    sweeper.sweep(set(), 100.0)
    sweeper.sweep(set(), 109.0)
    assert paths.raw(one, "main", 0).exists()
    sweeper.sweep(set(), 110.0)
    assert not paths.raw(one, "main", 0).exists()
    assert kubelets.exists()


class EventApi:
    """Keeps events as the API server would; forgets them when told to."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.writes = 0

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        self.kept[f"{path}/{body['metadata']['name']}"] = body
        return body

    async def patch(self, path: str, body: Any, kind: str = "merge") -> dict[str, Any]:
        self.writes += 1
        if path not in self.kept:
            raise ApiError("404", 404, "NotFound")
        self.kept[path].update(body)
        return {}


async def told(api: EventApi, recorder: EventRecorder) -> None:
    import asyncio

    task = asyncio.create_task(recorder.run())
    await recorder.drain()
    await asyncio.sleep(0.02)
    task.cancel()


async def test_an_event_that_repeats_is_counted_and_one_that_expired_is_told_anew() -> None:
    api = EventApi()
    recorder = EventRecorder(api, "n")
    subject = Subject("Pod", "p", "default", "u", "spec.containers{main}")
    for _number in range(3):
        recorder.emit(subject, "Warning", "BackOff", "again")
    await told(api, recorder)
    (event,) = list(api.kept.values())
    assert (event["count"], event["involvedObject"]["fieldPath"], event["source"]["host"]) == (3, "spec.containers{main}", "n")
    api.kept.clear()
    recorder.emit(subject, "Warning", "BackOff", "again")
    await told(api, recorder)
    assert [event["count"] for event in api.kept.values()] == [1]


async def test_an_object_that_talks_too_much_is_held_back_and_others_are_not() -> None:
    api = EventApi()
    recorder = EventRecorder(api, "n", clock=lambda: 1000.0)
    for number in range(100):
        recorder.emit(Subject("Pod", "loud", "default", "a"), "Normal", "X", str(number))
    recorder.emit(Subject("Pod", "quiet", "default", "b"), "Normal", "Y", "y")
    await told(api, recorder)
    reasons = [event["reason"] for event in api.kept.values()]
    assert (reasons.count("X"), reasons.count("Y")) == (25, 1)


def test_the_pods_table_is_read_strictly() -> None:
    made = pod_settings({"hold_off": 5, "restart_cap": 60, "runtime_classes": ["a"]})
    assert (made.hold_off, made.curve.cap, made.runtime_classes) == (5, 60.0, ("a",))
    for bad in ({"holdoff": 5}, {"hold_off": "5"}, {"hold_off": -1}, {"hold_off": True}, {"curve": 1}, {"cluster_dns": ["1.1.1.1"]}):
        with pytest.raises(UnifleetError, match=next(iter(bad))):
            pod_settings(bad)
