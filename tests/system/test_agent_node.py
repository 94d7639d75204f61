# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node half of the agent against a real control plane: joining, labels, heartbeats, certificates, and what a crash leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.system.local_cluster import LocalCluster

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
AGENT = "ansible_collections.unifleet.hybrid.plugins.host.kubelet"
OWNED = "unifleet.io/agent-labels"


def wait_for(what: Callable[[], Any], seconds: float = 60.0, every: float = 0.1) -> Any:
    """What what() gives once it is true; the last AssertionError or a plain one when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = what()
            if result:
                return result
        except (AssertionError, subprocess.CalledProcessError, KeyError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(every)


@dataclass
class AgentProcess:
    """One virtual-kubelet with its own directory; started and killed at will."""

    cluster: LocalCluster
    directory: Path
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    extra: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    process: Optional[subprocess.Popen[bytes]] = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "token").write_text(self.cluster.bootstrap_token())
        self.write_labels(self.labels)
        lines = [
            'provider = "simulated"',
            f'node_name = "{self.name}"',
            f'api_server = "{self.cluster.server}"',
            f'cluster_ca = "{self.cluster.ca}"',
            f'bootstrap_token_file = "{self.directory}/token"',
            f'labels_file = "{self.labels_file}"',
            *(f'{kind}_directory = "{self.directory}/{kind}"' for kind in ("state", "run", "log")),
            self.extra,
            "[server]",
            "port = 0",
            "[timing]",
            "labels_poll = 0.2",
        ]
        self.config.write_text("\n".join(lines))

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def labels_file(self) -> Path:
        return self.directory / "labels.json"

    @property
    def certificate(self) -> Path:
        return self.directory / "state" / "pki" / "client.pem"

    @property
    def log(self) -> str:
        return (self.directory / "log.txt").read_text()

    def write_labels(self, labels: dict[str, Any]) -> None:
        fresh = self.labels_file.with_suffix(".new")
        fresh.write_text(json.dumps(labels))
        fresh.replace(self.labels_file)

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", AGENT, "--config", str(self.config), *flags]

    def start(self, *flags: str) -> AgentProcess:
        with (self.directory / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(self.command(*flags), stdout=log, stderr=log, env=self.env(), cwd=ROOT)
        return self

    def once(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*flags), capture_output=True, text=True, timeout=30, env=self.env(), cwd=ROOT, check=False)

    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "collections"), **self.environment}

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def node(self) -> dict[str, Any]:
        return get_node(self.cluster, self.name)

    def ready(self) -> bool:
        return bool(condition(self.node(), "Ready")["status"] == "True")


def get_node(cluster: LocalCluster, name: str) -> dict[str, Any]:
    node: dict[str, Any] = json.loads(cluster.kubectl("get", "node", name, "-o", "json"))
    return node


def condition(node: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in node["status"]["conditions"] if entry["type"] == kind)


def renew_time(cluster: LocalCluster, name: str) -> str:
    return cluster.kubectl("-n", "kube-node-lease", "get", "lease", name, "-o", "jsonpath={.spec.renewTime}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as running:
        # The controllers that sign requests are up once they have made this one.
        wait_for(lambda: running.kubectl("-n", "default", "get", "serviceaccount", "default", "-o", "name"), 60)
        yield running


Launcher = Callable[..., AgentProcess]


@pytest.fixture
def launch(cluster: LocalCluster, tmp_path: Path) -> Iterator[Launcher]:
    """Make agents; those still alive at the end are killed and their nodes removed."""
    made: list[AgentProcess] = []

    def make(name: str, *flags: str, start: bool = True, **settings: Any) -> AgentProcess:
        agent = AgentProcess(cluster, tmp_path / name, name, **settings)
        made.append(agent)
        return agent.start(*flags) if start else agent

    yield make
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            cluster.kubectl("delete", "node", agent.name, "--ignore-not-found")


def test_a_host_joins_with_a_token_and_is_ready_within_seconds(launch: Launcher, cluster: LocalCluster) -> None:
    started = time.monotonic()
    agent = launch(
        "joins", "--node-labels", "site=cellar", labels={"site": "attic", "sensor": "temperature"}, environment={"LABELS": "rack=r1"}
    )
    wait_for(agent.ready)
    seconds = time.monotonic() - started
    node = agent.node()
    labels = node["metadata"]["labels"]
    assert (labels["sensor"], labels["site"], labels["rack"]) == ("temperature", "cellar", "r1")
    assert labels["type"] == "virtual-kubelet"
    assert labels["kubernetes.io/arch"] == {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert {"key": "virtual-kubelet.io/provider", "value": "unikernel", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert int(node["status"]["capacity"]["cpu"]) > 0
    assert node["status"]["nodeInfo"]["kernelVersion"] == os.uname().release
    assert {"type": "Hostname", "address": "joins"} in node["status"]["addresses"]
    assert wait_for(lambda: renew_time(cluster, "joins"))
    owner = json.loads(cluster.kubectl("-n", "kube-node-lease", "get", "lease", "joins", "-o", "json"))["metadata"]["ownerReferences"][0]
    assert owner["uid"] == node["metadata"]["uid"]
    assert oct(agent.certificate.stat().st_mode & 0o777) == "0o600"
    print(f"start to Ready: {seconds:.1f} s")
    assert seconds < 60
    assert not agent.directory.joinpath("token").exists(), "a token that did its work is not left lying about"


def test_taints_of_the_configuration_are_there_from_the_first_moment(launch: Launcher) -> None:
    agent = launch("tainted", extra='[taints]\n"dedicated:NoExecute" = "iot"')
    wait_for(agent.ready)
    assert {"key": "dedicated", "value": "iot", "effect": "NoExecute"} in agent.node()["spec"]["taints"]


def test_labels_that_the_api_server_would_refuse_stop_the_start_with_all_of_them_named(launch: Launcher, cluster: LocalCluster) -> None:
    bad = {
        "node-role.kubernetes.io/iot": "",
        "x.node-restriction.kubernetes.io/a": "b",
        "kubernetes.io/role": "agent",
        "ok": "yes",
        "sp ace": "x",
    }
    agent = launch("refused", start=False, labels=bad)
    done = agent.once()
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    for key in set(bad) - {"ok"}:
        assert [line for line in lines if key in line and str(agent.labels_file) in line], key
    assert not [line for line in lines if "'ok'" in line]
    assert "refused" not in cluster.kubectl("get", "nodes")


@pytest.mark.parametrize(
    "key",
    [
        "node-role.kubernetes.io/iot",
        "kubernetes.io/role",
        "a.b.node-restriction.kubernetes.io/x",
        "foo.k8s.io/x",
        "topology.kubernetes.io/rack",
    ],
)
def test_the_api_server_agrees_that_a_node_may_not_set_this_label(launch: Launcher, cluster: LocalCluster, key: str) -> None:
    agent = launch("agrees")
    wait_for(agent.ready)
    answer = as_node(agent, "label", "node", "agrees", f"{key}=x")
    assert answer.returncode != 0
    assert "is not allowed to modify labels" in answer.stderr
    assert agent.once("--check-config", "--node-labels", f"{key}=x").returncode == 78


@pytest.mark.parametrize(
    "key",
    [
        "node.kubernetes.io/x",
        "sub.node.kubernetes.io/x",
        "kubelet.kubernetes.io/x",
        "topology.kubernetes.io/zone",
        "example.com/a",
        "plain",
    ],
)
def test_the_api_server_agrees_that_a_node_may_set_this_label(launch: Launcher, key: str) -> None:
    agent = launch("allows", "--node-labels", f"{key}=x")
    assert wait_for(lambda: agent.node()["metadata"]["labels"].get(key) == "x")


def as_node(agent: AgentProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl with the credentials of the node itself."""
    kubectl = Path(sys.executable).parent / "kubectl"
    argv = [str(kubectl), f"--kubeconfig={agent.directory}/state/pki/kubeconfig", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_a_changed_labels_file_is_taken_over_and_a_foreign_label_stays(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("relabels", labels={"sensor": "temperature", "site": "attic"})
    wait_for(agent.ready)
    cluster.kubectl("label", "node", "relabels", "owner=somebody")
    cluster.kubectl("annotate", "node", "relabels", "note=mine")
    assert agent.process is not None
    pid = agent.process.pid
    agent.write_labels({"sensor": "humidity"})
    wait_for(lambda: agent.node()["metadata"]["labels"].get("sensor") == "humidity")
    node = agent.node()
    assert "site" not in node["metadata"]["labels"]
    assert node["metadata"]["labels"]["owner"] == "somebody"
    assert node["metadata"]["annotations"]["note"] == "mine"
    assert agent.process.poll() is None
    assert agent.process.pid == pid


def test_a_label_dropped_while_the_agent_was_down_disappears_when_it_is_back(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("drops", labels={"sensor": "temperature", "site": "attic"})
    wait_for(agent.ready)
    agent.end(signal.SIGKILL)
    cluster.kubectl("label", "node", "drops", "foreign=yes")
    agent.write_labels({"sensor": "temperature"})
    agent.start()
    wait_for(lambda: "site" not in agent.node()["metadata"]["labels"])
    assert agent.node()["metadata"]["labels"]["foreign"] == "yes"


def test_a_label_that_somebody_else_overwrote_is_set_back(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("setback", labels={"sensor": "temperature"})
    wait_for(agent.ready)
    cluster.kubectl("label", "node", "setback", "sensor=wrong", "--overwrite")
    wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "temperature")


def test_a_bad_labels_file_changes_nothing_and_is_told_in_an_event(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("badfile", labels={"sensor": "temperature"})
    wait_for(agent.ready)
    agent.write_labels({"sensor": "humidity", "kubernetes.io/role": "x"})

    def told() -> bool:
        events = cluster.kubectl("get", "events", "--field-selector=involvedObject.name=badfile,type=Warning", "-o", "json")
        return any("kubernetes.io/role" in event["message"] for event in json.loads(events)["items"])

    wait_for(told)
    assert agent.node()["metadata"]["labels"]["sensor"] == "temperature"
    agent.write_labels({"sensor": "pressure"})
    wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "pressure")


def test_a_node_deleted_under_the_agent_is_made_again(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("deleted", labels={"sensor": "temperature"})
    wait_for(agent.ready)
    before = agent.node()["metadata"]["uid"]
    cluster.kubectl("delete", "node", "deleted")
    node = wait_for(lambda: next(iter([agent.node()] if agent.ready() else []), None))
    assert node["metadata"]["uid"] != before
    assert node["metadata"]["labels"]["sensor"] == "temperature"


def test_conditions_of_others_survive_a_status_write(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("foreign")
    wait_for(agent.ready)
    stamp = "2026-01-01T00:00:00Z"
    extra = {
        "type": "DiskIsPurple",
        "status": "True",
        "reason": "Paint",
        "message": "",
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": stamp,
    }
    with cluster.api() as api:
        api.patch("/api/v1/nodes/foreign/status", {"status": {"conditions": [extra]}}, "application/strategic-merge-patch+json")
    agent.end(signal.SIGTERM)
    cluster.kubectl("label", "node", "foreign", "kubernetes.io/hostname=else", "--overwrite")
    agent.start()
    wait_for(lambda: agent.node()["metadata"]["labels"]["kubernetes.io/hostname"] == "foreign")
    assert condition(agent.node(), "DiskIsPurple")["reason"] == "Paint"


def test_a_quiet_node_writes_its_status_only_now_and_then(launch: Launcher) -> None:
    agent = launch("quiet")
    wait_for(agent.ready)
    time.sleep(2)
    before = agent.node()["metadata"]["resourceVersion"]
    time.sleep(25)
    assert agent.node()["metadata"]["resourceVersion"] == before


def test_an_agent_killed_at_once_after_its_start_joins_without_littering_requests(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("littering", start=False)
    for moment in (0.6, 0.8, 1.0, 1.2):
        agent.start()
        time.sleep(moment)
        agent.end(signal.SIGKILL)
    agent.start()
    wait_for(agent.ready)
    pending = agent.directory / "state" / "pki" / "client.pem.pending"
    assert not pending.exists()
    requests = json.loads(cluster.kubectl("get", "csr", "-o", "json"))["items"]
    serving = [item for item in requests if item["spec"]["username"] == "system:node:littering"]
    assert len(serving) <= 1


def test_the_serving_certificate_replaces_the_self_signed_one_once_it_is_approved(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("serves")
    wait_for(agent.ready)

    def waiting() -> list[str]:
        items = json.loads(cluster.kubectl("get", "csr", "-o", "json"))["items"]
        return [item["metadata"]["name"] for item in items if item["spec"]["username"] == "system:node:serves"]

    names = wait_for(waiting)
    own = agent.directory / "state" / "pki" / "serving-self-signed.pem"
    issued = agent.directory / "state" / "pki" / "serving.pem"
    assert own.exists()
    assert not issued.exists()
    agent.end(signal.SIGKILL)
    agent.start()
    time.sleep(2)
    assert waiting() == names
    cluster.kubectl("certificate", "approve", names[0])
    wait_for(issued.exists)
    text = subprocess.run(["openssl", "x509", "-in", str(issued), "-noout", "-text"], capture_output=True, text=True, check=True).stdout
    assert "DNS:serves" in text
    assert "IP Address:127.0.0.1" in text


def test_the_agent_survives_an_api_server_that_goes_away(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("outage", labels={"sensor": "temperature"})
    wait_for(agent.ready)
    cluster.kill("kube-apiserver")
    agent.write_labels({"sensor": "humidity"})
    time.sleep(5)
    cluster.restart("kube-apiserver")
    wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "humidity")
    assert agent.process is not None
    assert agent.process.poll() is None
    before = renew_time(cluster, "outage")
    wait_for(lambda: renew_time(cluster, "outage") != before)


def test_ending_the_agent_is_quick_and_clean_and_leaves_the_node(launch: Launcher) -> None:
    agent = launch("ends")
    wait_for(agent.ready)
    started = time.monotonic()
    assert agent.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10
    assert agent.node()["metadata"]["name"] == "ends"
    assert "Traceback" not in agent.log


def test_the_client_certificate_is_renewed_by_itself_and_taken_over_without_a_break(launch: Launcher, cluster: LocalCluster) -> None:
    # Kubernetes 1.20 dates every certificate back by 5 minutes: of 375 seconds 75 are left.
    controller = cluster._programs["kube-controller-manager"]
    before = list(controller.argv)
    controller.argv.append("--cluster-signing-duration=375s")
    cluster.kill("kube-controller-manager")
    cluster.restart("kube-controller-manager")
    try:
        agent = launch("renews", labels={"sensor": "temperature"})
        wait_for(agent.ready)
        first = agent.certificate.read_text()
        wait_for(lambda: agent.certificate.read_text() != first, 120, 0.5)
        time.sleep(30)
        agent.write_labels({"sensor": "humidity"})
        wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "humidity")
        assert "401" not in agent.log
        agent.end(signal.SIGKILL)
        agent.directory.joinpath("token").write_text("gone")
        agent.start()
        agent.write_labels({"sensor": "pressure"})
        wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "pressure")
    finally:
        controller.argv[:] = before
        cluster.kill("kube-controller-manager")
        cluster.restart("kube-controller-manager")


def test_a_token_that_the_api_server_refuses_is_said_and_a_fresh_one_taken_over(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("token", start=False)
    token = agent.directory / "token"
    good = token.read_text()
    token.write_text("abcdef.0123456789abcdef")
    agent.start()
    wait_for(lambda: "does not accept the bootstrap token" in agent.log)
    token.write_text(good)
    wait_for(agent.ready)
