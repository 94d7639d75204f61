# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node half of the agent against a real control plane: joining, labels, heartbeats, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.agent_process import AgentProcess, Launcher, cluster, condition, launch, renew_time, wait_for
from tests.system.local_cluster import LocalCluster

__all__ = ["cluster", "launch"]

pytestmark = pytest.mark.system


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


def test_the_api_server_agrees_about_the_labels_that_a_node_may_set_and_may_not(launch: Launcher) -> None:
    allowed = (
        "node.kubernetes.io/x",
        "sub.node.kubernetes.io/x",
        "kubelet.kubernetes.io/x",
        "topology.kubernetes.io/zone",
        "example.com/a",
        "plain",
    )
    agent = launch("agrees", "--node-labels", ",".join(f"{key}=x" for key in allowed))
    wait_for(agent.ready)
    labels = agent.node()["metadata"]["labels"]
    assert {key: labels.get(key) for key in allowed} == dict.fromkeys(allowed, "x")
    for key in (
        "node-role.kubernetes.io/iot",
        "kubernetes.io/role",
        "a.b.node-restriction.kubernetes.io/x",
        "foo.k8s.io/x",
        "topology.kubernetes.io/rack",
    ):
        answer = as_node(agent, "label", "node", "agrees", f"{key}=x")
        assert answer.returncode != 0, key
        assert "is not allowed to modify labels" in answer.stderr
        assert agent.once("--check-config", "--node-labels", f"{key}=x").returncode == 78, key


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
    time.sleep(12)  # a heartbeat of the lease and more
    assert agent.node()["metadata"]["resourceVersion"] == before


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
