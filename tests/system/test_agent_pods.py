# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods on a real API server with real node credentials; only the machines are simulated, so that they fail when a test wants it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import Curve
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.simulated_images import SimulatedImages
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import MachineSpec
from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import Behaviour, SimulatedHost
from tests.system.agent import SimulatedAgent
from tests.system.local_cluster import LocalCluster

pytestmark = pytest.mark.system

BEHAVIOURS = {
    "quiet": Behaviour(),
    "talker": Behaviour(output=b"one\ntwo\nthree\n"),
    "crash": Behaviour(run_seconds=0.2, exit_code=3, output=b"last words\n"),
    "done": Behaviour(run_seconds=0.2, output=b"all done\n"),
    "deaf": Behaviour(stop_seconds=None),
    "stubborn": Behaviour(ignores_stop=True),
    "slow": Behaviour(start_seconds=0.3, prepare_seconds=0.3),
}


def behaviour(spec: MachineSpec) -> Behaviour:
    """By the image's tag, which a pod chooses."""
    return BEHAVIOURS.get(spec.metadata["image"].rpartition(":")[2], BEHAVIOURS["quiet"])


class Cluster:
    """A user's view: objects in, objects out."""

    def __init__(self, cluster: LocalCluster, agent: SimulatedAgent) -> None:
        self.cluster = cluster
        self.agent = agent

    def apply(self, name: str, behave: str = "quiet", *, container: Optional[dict[str, Any]] = None, **spec: Any) -> None:
        main = {"name": "main", "image": f"registry.example/unit:{behave}", **(container or {})}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [main], "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 3, **spec},
        }
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def pod(self, name: str) -> dict[str, Any]:
        return self.cluster.get(f"/api/v1/namespaces/default/pods/{name}")

    def state(self, name: str) -> dict[str, Any]:
        statuses = self.pod(name)["status"].get("containerStatuses") or [{}]
        first: dict[str, Any] = statuses[0]
        return first

    def phase(self, name: str) -> str:
        return str(self.pod(name)["status"]["phase"])

    def events(self, name: str) -> dict[str, str]:
        listed = self.cluster.get("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={name}")
        return {event["reason"]: event["message"] for event in listed["items"]}

    def delete(self, name: str, *options: str) -> float:
        begun = time.monotonic()
        self.cluster.kubectl("delete", "pod", name, "--wait=true", *options)
        return time.monotonic() - begun


def until(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer; an AssertionError when none comes."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.1)


def running(cluster: Cluster, name: str) -> bool:
    return cluster.phase(name) == "Running"


def decided(cluster: Cluster, name: str) -> bool:
    return cluster.phase(name) != "Pending"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def agent(local: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAgent]:
    directory = tmp_path_factory.mktemp("agent")
    settings = PodSettings(
        log_directory=directory / "logs",
        token_directory=directory / "tokens",
        curve=Curve(initial=2.0, cap=8.0),
        hold_off=3.0,
        resync=2.0,
    )
    images = SimulatedImages(missing={"registry.example/unit:missing"})
    running = SimulatedAgent(local, directory, host=SimulatedHost(behaviour), images=images, settings=settings).start()
    running.approve_serving()
    yield running
    running.stop()


@pytest.fixture
def cluster(local: LocalCluster, agent: SimulatedAgent) -> Iterator[Cluster]:
    yield Cluster(local, agent)
    local.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=true")


def test_a_pod_runs_with_address_conditions_and_events_and_its_logs_are_read_through_the_api_server(cluster: Cluster) -> None:
    cluster.apply("p", "talker")
    until(lambda: cluster.phase("p") == "Running")
    pod = cluster.pod("p")
    said = pod["status"]["containerStatuses"][0]
    assert said["containerID"] == f"unifleet://{pod['metadata']['uid']}"
    assert "@sha256:" in said["imageID"]
    assert (said["ready"], said["started"], said["restartCount"]) == (True, True, 0)
    assert pod["status"]["podIP"] == pod["status"]["hostIP"] == "127.0.0.1"
    conditions = {condition["type"]: condition["status"] for condition in pod["status"]["conditions"]}
    assert conditions == {"Initialized": "True", "Ready": "True", "ContainersReady": "True", "PodScheduled": "True"}
    until(lambda: {"Pulling", "Pulled", "Created", "Started"} <= set(cluster.events("p")))
    logs = cluster.cluster.kubectl
    assert logs("logs", "p") == "one\ntwo\nthree\n"
    assert logs("logs", "p", "--tail=1") == "three\n"
    assert logs("logs", "p", "--tail=0") == ""
    assert logs("logs", "p", "--limit-bytes=5") == "one\nt"
    assert logs("logs", "p", "--since=1h") == "one\ntwo\nthree\n"
    assert logs("logs", "p", "--timestamps", "--tail=1").startswith("20")


def test_following_a_log_ends_when_the_container_does(cluster: Cluster) -> None:
    cluster.apply("p", "talker")
    until(lambda: cluster.phase("p") == "Running")
    follow = ["kubectl", f"--kubeconfig={cluster.cluster.kubeconfig}", "logs", "-f", "p"]
    process = subprocess.Popen(follow, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    assert process.poll() is None
    cluster.delete("p")
    assert process.communicate(timeout=10)[0] == "one\ntwo\nthree\n"


def test_the_service_account_token_is_there_as_real_files_for_root_alone(cluster: Cluster) -> None:
    cluster.apply("p")
    until(lambda: cluster.phase("p") == "Running")
    uid = cluster.pod("p")["metadata"]["uid"]
    folder = cluster.agent.settings.token_directory / uid
    [volume] = folder.iterdir()
    assert {path.name for path in volume.iterdir()} == {"ca.crt", "namespace", "token"}
    assert (volume / "namespace").read_text() == "default"
    assert cluster.agent.settings.token_directory.stat().st_mode & 0o077 == 0
    cluster.delete("p")
    until(lambda: not folder.exists())


def test_a_crash_is_restarted_with_back_off_and_the_previous_log_can_be_read(cluster: Cluster) -> None:
    cluster.apply("p", "crash")
    until(lambda: (cluster.state("p").get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff")
    said = cluster.state("p")
    ended = said["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert said["restartCount"] >= 1
    assert cluster.phase("p") == "Running"
    until(lambda: "BackOff" in cluster.events("p"))
    assert cluster.cluster.kubectl("logs", "p", "--previous") == "last words\n"
    count = said["restartCount"]
    until(lambda: cluster.state("p")["restartCount"] > count)


@pytest.mark.parametrize(("behave", "phase", "code"), [("done", "Succeeded", 0), ("crash", "Failed", 3)])
def test_a_pod_that_is_never_restarted_ends_in_the_phase_its_exit_code_says(cluster: Cluster, behave: str, phase: str, code: int) -> None:
    cluster.apply("p", behave, restartPolicy="Never")
    until(lambda: cluster.phase("p") == phase)
    assert cluster.state("p")["state"]["terminated"]["exitCode"] == code


def test_the_end_of_the_log_becomes_the_termination_message_when_asked_for(cluster: Cluster) -> None:
    cluster.apply("p", "crash", container={"terminationMessagePolicy": "FallbackToLogsOnError"}, restartPolicy="Never")
    until(lambda: cluster.phase("p") == "Failed")
    assert cluster.state("p")["state"]["terminated"]["message"] == "last words\n"


def test_an_unsupported_field_leaves_the_pod_pending_with_an_event_that_names_it(cluster: Cluster) -> None:
    cluster.apply("p", container={"livenessProbe": {"exec": {"command": ["true"]}}})
    until(lambda: cluster.events("p").get("UnsupportedField"))
    assert "spec.containers[0].livenessProbe.exec" in cluster.events("p")["UnsupportedField"]
    assert cluster.phase("p") == "Pending"
    assert cluster.state("p")["state"]["waiting"]["reason"] == "UnsupportedField"
    assert cluster.delete("p") < 5


def test_an_image_that_is_missing_is_told_and_the_pod_can_still_be_deleted(cluster: Cluster) -> None:
    cluster.apply("p", "missing")
    until(lambda: cluster.state("p").get("state", {}).get("waiting", {}).get("reason") == "ErrImagePull")
    until(lambda: "Failed" in cluster.events("p"))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cluster.cluster.kubectl("logs", "p")
    assert "is waiting to start: ErrImagePull" in caught.value.stderr
    assert cluster.delete("p") < 5


def test_a_deaf_guest_is_deleted_at_once_and_a_stubborn_one_after_its_grace(cluster: Cluster) -> None:
    for name in ("deaf", "stubborn"):
        cluster.apply(name, name)
        until(partial(running, cluster, name))
    assert cluster.delete("deaf") < 3
    assert 2.5 < cluster.delete("stubborn") < 8
    assert "Killing" in cluster.events("stubborn")


def test_a_forced_deletion_kills_the_machine(cluster: Cluster) -> None:
    cluster.apply("p", "stubborn", terminationGracePeriodSeconds=600)
    until(lambda: cluster.phase("p") == "Running")
    key = cluster.pod("p")["metadata"]["uid"]
    cluster.delete("p", "--force", "--grace-period=0")
    until(lambda: key not in cluster.agent.host.machines, 5)


def test_a_pod_that_is_made_again_under_the_same_name_at_once_is_another_one(cluster: Cluster) -> None:
    keys = set()
    for _number in range(4):
        cluster.apply("p", "talker")
        until(lambda: cluster.phase("p") == "Running")
        keys.add(cluster.pod("p")["metadata"]["uid"])
        cluster.delete("p", "--force", "--grace-period=0")
    assert len(keys) == 4
    until(lambda: not keys & set(cluster.agent.host.machines), 10)


def test_two_processes_that_need_the_same_port_of_the_node_cannot_both_be_here(cluster: Cluster) -> None:
    for name in ("p", "q"):
        cluster.apply(name, container={"ports": [{"containerPort": 7777}]}, nodeName="sim1")
        until(partial(decided, cluster, name))
    assert cluster.pod("q")["status"]["reason"] == "HostPortConflict"
    assert "default/p" in cluster.pod("q")["status"]["message"]


def test_a_pod_too_big_for_the_node_is_turned_away_as_kubelet_does(cluster: Cluster) -> None:
    cluster.apply("p", container={"resources": {"requests": {"cpu": "4000"}}}, nodeName="sim1")
    until(lambda: cluster.phase("p") == "Failed")
    assert cluster.pod("p")["status"]["reason"] == "OutOfcpu"


def test_a_pod_past_its_deadline_fails_with_that_reason(cluster: Cluster) -> None:
    cluster.apply("p", activeDeadlineSeconds=2)
    until(lambda: cluster.phase("p") == "Failed")
    assert cluster.pod("p")["status"]["reason"] == "DeadlineExceeded"
    assert cluster.state("p")["state"]["terminated"]["exitCode"] == 0


def test_init_containers_run_before_the_rest(cluster: Cluster) -> None:
    first = {"name": "first", "image": "registry.example/unit:done"}
    cluster.apply("p", "talker", initContainers=[first], restartPolicy="Never")
    until(lambda: cluster.phase("p") == "Running")
    init = cluster.pod("p")["status"]["initContainerStatuses"][0]
    assert init["state"]["terminated"]["reason"] == "Completed"
    assert cluster.cluster.kubectl("logs", "p", "-c", "first") == "all done\n"


def test_an_agent_that_was_killed_adopts_what_runs_and_starts_nothing_twice(cluster: Cluster) -> None:
    agent = cluster.agent
    cluster.apply("steady", "talker")
    cluster.apply("crash", "crash")
    until(lambda: cluster.phase("steady") == "Running" and cluster.state("crash").get("restartCount", 0) >= 1)
    before = cluster.pod("steady")["status"]["containerStatuses"][0]
    for name in ("slow-1", "slow-2", "slow-3"):
        cluster.apply(name, "slow")
    time.sleep(0.4)  # some are being made at this very moment
    count = cluster.state("crash")["restartCount"]
    agent.stop()
    agent.host.calls.clear()
    agent.start()
    until(lambda: all(cluster.phase(name) == "Running" for name in ("slow-1", "slow-2", "slow-3")))
    after = cluster.pod("steady")["status"]["containerStatuses"][0]
    assert after == before
    assert cluster.cluster.kubectl("logs", "steady") == "one\ntwo\nthree\n"
    assert cluster.state("crash")["restartCount"] >= count
    key = cluster.pod("steady")["metadata"]["uid"]
    assert {name for name, called in agent.host.calls if called == key} <= {"state"}
    for machine in list(agent.host.machines.values()):
        assert machine.starts <= 1


def test_a_machine_of_a_pod_that_is_no_more_is_left_alone_for_the_hold_off_and_then_stopped(cluster: Cluster) -> None:
    agent = cluster.agent
    cluster.apply("p")
    until(lambda: cluster.phase("p") == "Running")
    uid = cluster.pod("p")["metadata"]["uid"]
    agent.stop()
    cluster.cluster.kubectl("delete", "pod", "p", "--force", "--grace-period=0")
    agent.start()
    time.sleep(1)
    assert uid in agent.host.machines
    until(lambda: uid not in agent.host.machines, 15)


def test_a_machine_that_was_made_by_something_else_is_never_touched(cluster: Cluster) -> None:
    machines = cluster.agent.pods.runtime.machines  # type: ignore[union-attr]
    key = str(uuid.uuid4())
    from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Program

    foreign = MachineSpec(key, "foreign", Program(Path("/"), ("x",)), cluster.agent.directory / "foreign", {"image": "x:quiet"})
    machines.prepare(foreign)
    machines.start(key)
    time.sleep(5)
    assert key in cluster.agent.host.machines
    machines.remove(key)


def test_nobody_is_anonymous_and_a_stranger_is_told_what_he_may_not_do(cluster: Cluster) -> None:
    url = f"https://127.0.0.1:{cluster.agent.port}"
    context = ssl.create_default_context(cafile=str(cluster.cluster.ca))

    def ask(path: str, token: str = "") -> tuple[int, str]:
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    secrets = json.loads(cluster.cluster.kubectl("get", "secrets", "-o", "json"))["items"]
    import base64

    stranger = next(base64.b64decode(s["data"]["token"]).decode() for s in secrets if s["type"].endswith("service-account-token"))
    assert ask("/pods")[0] == ask("/healthz")[0] == ask("/exec/x")[0] == 401
    assert ask("/pods", "nonsense")[0] == 401
    status, text = ask("/pods", stranger)
    assert (status, "user=system:serviceaccount:default:default" in text, "nodes" in text) == (403, True, True)
    cluster.cluster.kubectl("create", "clusterrole", "peek", "--verb=get", "--resource=nodes/proxy")
    cluster.cluster.kubectl("create", "clusterrolebinding", "peek", "--clusterrole=peek", "--serviceaccount=kube-system:default")
    friend_secret = json.loads(cluster.cluster.kubectl("-n", "kube-system", "get", "secrets", "-o", "json"))["items"]
    friend = next(
        base64.b64decode(s["data"]["token"]).decode()
        for s in friend_secret
        if s["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == "default"
    )
    assert ask("/healthz", friend) == (200, "ok")
    cluster.apply("p", "talker")
    until(lambda: cluster.phase("p") == "Running")
    assert [pod["metadata"]["name"] for pod in json.loads(ask("/pods", friend)[1])["items"]] == ["p"]
    assert ask("/containerLogs/default/p/main?tailLines=-1", friend)[0] == 400
    assert ask("/containerLogs/default/p/main?tailLines=1", friend) == (200, "three\n")
    assert ask("/containerLogs/default/nope/main", friend)[0] == 404
    status, text = ask("/stats/summary", friend)
    assert (status, "not supported" in text) in ((403, False), (501, True))


def test_old_tls_is_refused(cluster: Cluster) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", cluster.agent.port), 5) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw)


def test_thirty_pods_come_and_go(cluster: Cluster) -> None:
    """Says how long it took; the bound is for a loaded machine of two cores."""
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "d"}},
            "template": {
                "metadata": {"labels": {"a": "d"}},
                "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "main", "image": "registry.example/unit:quiet"}]},
            },
        },
    }
    cluster.cluster.kubectl("create", "-f", "-", stdin=json.dumps(deployment))

    def ready(wanted: int) -> bool:
        pods = json.loads(cluster.cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/pods?labelSelector=a%3Dd"))["items"]
        return len(pods) == wanted and all(pod["status"]["phase"] == "Running" for pod in pods)

    cluster.agent.host.calls.clear()
    for wanted in (30, 0):
        begun = time.monotonic()
        cluster.cluster.kubectl("scale", "deployment/d", f"--replicas={wanted}")
        until(partial(ready, wanted), 60)
        print(f"to {wanted} pods in {time.monotonic() - begun:.1f} s")
    starts = [key for name, key in cluster.agent.host.calls if name == "start"]
    assert len(starts) == len(set(starts)) == 30
    cluster.cluster.kubectl("delete", "deployment", "d")


def test_the_api_server_may_be_away_while_a_container_ends(cluster: Cluster) -> None:
    cluster.apply("p", "done", restartPolicy="Never")
    cluster.cluster.kill("kube-apiserver")
    time.sleep(2)
    cluster.cluster.restart("kube-apiserver")
    until(lambda: cluster.phase("p") == "Succeeded", 60)
