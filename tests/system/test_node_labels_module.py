# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module node_labels, run by ansible against a real control plane, beside an agent that labels its own node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.agent_process import AgentProcess, get_node, wait_for
from tests.system.local_cluster import LocalCluster

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "stock", "labels": {"foreign": "yes", "kubernetes.io/hostname": "stock"}}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as running:
        wait_for(lambda: running.get("/api/v1/namespaces/default/serviceaccounts/default"), 60)
        running.kubectl("create", "-f", "-", stdin=json.dumps(NODE))
        yield running


@pytest.fixture(scope="module")
def agent(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    process = AgentProcess(cluster, tmp_path_factory.mktemp("agent"), "virtual", labels={"sensor": "temperature"}).start()
    wait_for(process.ready)
    yield process
    process.end()


def run(cluster: LocalCluster, nodes: dict[str, Any], *flags: str, **options: Any) -> dict[str, Any]:
    """One run; the module's result, with "failed" when it failed."""
    configuration = cluster.directory / "ansible.cfg"
    configuration.write_text("[defaults]\n")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    arguments = {"kubeconfig": str(cluster.kubeconfig), "nodes": nodes, **options}
    program = Path(sys.executable).with_name("ansible")
    argv = [str(program), "localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    argv += ["-m", "unifleet.hybrid.node_labels", "-a", json.dumps(arguments), *flags]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert "=> {" in done.stdout, done.stdout + done.stderr
    start = done.stdout.index("=> {") + 3
    result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
    result["failed"] = done.returncode != 0
    result["text"] = done.stdout
    return result


def test_a_stock_node_gets_all_labels_and_taints_and_a_second_run_changes_nothing(cluster: LocalCluster) -> None:
    wish = {"stock": {"labels": {"rack": "r1", "node-role.kubernetes.io/iot": ""}, "taints": {"dedicated:NoSchedule": "iot"}}}
    foretold = run(cluster, wish, "--check", "--diff")
    assert foretold["changed"]
    assert "dedicated=iot:NoSchedule" in foretold["text"]
    assert "rack" not in get_node(cluster, "stock")["metadata"]["labels"]
    assert run(cluster, wish)["changed_nodes"] == ["stock"]
    node = get_node(cluster, "stock")
    assert node["metadata"]["labels"]["rack"] == "r1"
    assert node["metadata"]["labels"]["foreign"] == "yes"
    assert {"key": "dedicated", "value": "iot", "effect": "NoSchedule"} in node["spec"]["taints"]
    again = run(cluster, wish)
    assert not again["changed"]
    assert get_node(cluster, "stock")["metadata"]["resourceVersion"] == node["metadata"]["resourceVersion"]


def test_what_the_inventory_drops_goes_and_what_others_set_stays(cluster: LocalCluster) -> None:
    run(cluster, {"stock": {"labels": {"a": "1", "b": "2"}, "taints": {"x:NoSchedule": "", "y:NoExecute": "1"}}})
    cluster.kubectl("taint", "node", "stock", "theirs=1:NoSchedule")
    cluster.kubectl("label", "node", "stock", "theirs=1")
    assert run(cluster, {"stock": {"labels": {"a": "1"}, "taints": {"y:NoExecute": "1"}}})["changed"]
    node = get_node(cluster, "stock")
    assert "b" not in node["metadata"]["labels"]
    assert node["metadata"]["labels"]["theirs"] == "1"
    keys = {taint["key"] for taint in node["spec"]["taints"]}
    assert {"y", "theirs"} <= keys
    assert "x" not in keys


def test_the_agent_keeps_its_labels_and_the_module_adds_what_nodes_may_not_set(cluster: LocalCluster, agent: AgentProcess) -> None:
    wish = {"virtual": {"labels": {"sensor": "temperature", "node-role.kubernetes.io/iot": ""}, "taints": {"gpu:NoSchedule": ""}}}
    assert run(cluster, wish)["changed"]
    node = agent.node()
    assert node["metadata"]["labels"]["node-role.kubernetes.io/iot"] == ""
    assert {"virtual-kubelet.io/provider", "gpu"} <= {taint["key"] for taint in node["spec"]["taints"]}
    assert not run(cluster, wish)["changed"]
    agent.write_labels({"sensor": "humidity"})
    wish["virtual"]["labels"] = {"sensor": "humidity"}
    assert run(cluster, wish)["changed_nodes"] == ["virtual"]
    labels = agent.node()["metadata"]["labels"]
    assert labels["sensor"] == "humidity"
    assert "node-role.kubernetes.io/iot" not in labels


def test_an_agent_that_does_not_take_a_label_over_is_named(cluster: LocalCluster, agent: AgentProcess) -> None:
    result = run(cluster, {"virtual": {"labels": {"nowhere": "x"}}}, timeout=1)
    assert result["failed"]
    assert "node virtual: its agent has not taken over nowhere=x" in result["msg"]


def test_a_missing_node_fails_is_ignored_or_waited_for(cluster: LocalCluster) -> None:
    wish = {"ghost": {"labels": {"a": "1"}}, "stock": {"labels": {"done": "anyway"}}}
    failed = run(cluster, wish)
    assert failed["failed"]
    assert "node ghost does not exist" in failed["msg"]
    assert get_node(cluster, "stock")["metadata"]["labels"]["done"] == "anyway"
    ignored = run(cluster, wish, missing="ignore")
    assert not ignored["failed"]
    assert ignored["missing"] == ["ghost"]
    assert run(cluster, wish, missing="wait", timeout=1)["failed"]
    assert not run(cluster, wish, "--check")["failed"]


def test_bad_labels_of_any_node_are_all_named_before_any_node_is_touched(cluster: LocalCluster) -> None:
    before = get_node(cluster, "stock")["metadata"]["labels"]
    wish = {
        "stock": {"labels": {"fine": "x", "gpu": True}},
        "other": {"labels": {"sp ace": "x"}, "taints": {"a:Never": ""}},
        "Bad_Name": {},
    }
    result = run(cluster, wish)
    assert result["failed"]
    for part in ("'gpu' has a value that is the boolean true", "'sp ace'", "Bad_Name"):
        assert part in result["msg"]
    assert get_node(cluster, "stock")["metadata"]["labels"] == before
