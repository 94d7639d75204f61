# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From bare hosts to a labelled hybrid cluster, rung by rung, as a user goes.

The rungs are one story: each starts from what the one before left, so after a rung that failed the rest do not run.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import worker_pods
import yaml
from cluster import ROOT, Cluster, eventually
from ladder import failed_elsewhere, rungs_below_held
from worker_pods import container, push_busybox, unikernel

__all__ = ["failed_elsewhere", "rungs_below_held"]

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.timeout(2400)]

HOSTS = ("cp1", "kvm1", "pi1", "worker1")
NODES = {"kvm1": "amd64", "pi1": "arm64"}
WORKER_ADDRESS = "10.77.9.14"
REGISTRY = "10.77.9.11:5000"
EXAMPLES = ROOT / "docs/examples"
DAEMONSET = (EXAMPLES / "humidity-daemonset.yml").read_text(encoding="utf-8")


@pytest.fixture
def cluster(bare_lab: Cluster) -> Cluster:
    return bare_lab


def edit_host(cluster: Cluster, host: str, labels: dict[str, object]) -> None:
    """Change a host's node_labels in the inventory; a value of None takes the label out of the file."""
    file = cluster.inventory / "hosts.yml"
    inventory = yaml.safe_load(file.read_text(encoding="utf-8"))
    variables = inventory["virtual_kubelets"]["hosts"][host]
    merged = {**variables.get("node_labels", {}), **labels}
    variables["node_labels"] = {key: value for key, value in merged.items() if value is not None}
    file.write_text(yaml.safe_dump(inventory, sort_keys=False), encoding="utf-8")


def readings(cluster: Cluster, pod: str, *options: str) -> list[int]:
    """The sequence numbers of a sensor pod's readings, in the order of its log."""
    return [int(seq) for seq in re.findall(r"seq=(\d+)", cluster.kubectl("logs", pod, *options))]


def test_site_in_check_mode_does_not_fail_on_bare_hosts_and_changes_nothing(cluster: Cluster) -> None:
    cluster.playbook("site", "--check", "--diff")
    assert "virtual-kubelet" not in cluster.ssh("pi1", "ls /usr/local/lib /etc /usr/local/bin")


def test_site_makes_a_cluster_of_bare_hosts(cluster: Cluster) -> None:
    run = cluster.playbook("site")
    for host in HOSTS:
        assert run.tasks(host) < 40, f"{host}: {run.tasks(host)} tasks"
    print({host: run.tasks(host) for host in run.recap})


def test_site_again_by_its_name_in_the_collection_changes_nothing(cluster: Cluster) -> None:
    run = cluster.playbook("unifleet.hybrid.site")
    assert run.changed() == {}, run.output[-6000:]
    for host in HOSTS:
        assert run.tasks(host) < 15, f"{host}: {run.tasks(host)} tasks"
    print({host: run.tasks(host) for host in run.recap})


def test_check_mode_afterwards_has_an_empty_diff(cluster: Cluster) -> None:
    run = cluster.playbook("site", "--check", "--diff")
    assert run.changed() == {}, run.output[-6000:]
    assert "+++" not in run.output


def test_verify_by_its_name_in_the_collection_finds_nothing_wrong(cluster: Cluster) -> None:
    run = cluster.playbook("unifleet.hybrid.verify")
    assert run.changed() == {}


def test_nodes_are_ready_with_labels_from_the_inventory_and_what_they_really_are(cluster: Cluster) -> None:
    for node, architecture in NODES.items():
        assert cluster.ready(node) == "True"
        found = cluster.node(node)
        assert found["status"]["nodeInfo"]["architecture"] == architecture
        assert {"key": "virtual-kubelet.io/provider", "value": "unikernel", "effect": "NoSchedule"} in found["spec"]["taints"]
    assert (
        cluster.labels("pi1").items() >= {"location": "germany", "sensor": "humidity", "os": "raspbian", "type": "virtual-kubelet"}.items()
    )
    assert cluster.labels("kvm1").items() >= {"location": "france", "sensor": "temperature", "type": "virtual-kubelet"}.items()
    assert cluster.labels("kvm1")["unifleet.io/accelerator"] in ("kvm", "tcg")


def test_the_worker_is_an_ordinary_node_that_says_whether_unikernels_may_come(cluster: Cluster) -> None:
    assert cluster.ready("worker1") == "True"
    found = cluster.node("worker1")
    assert found["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert "taints" not in found["spec"]
    assert cluster.labels("worker1").items() >= {"type": "worker", "location": "germany", "unifleet.io/runu": "true"}.items()
    runtime = json.loads(cluster.kubectl("get", "runtimeclass", "runu", "-o", "json"))
    assert runtime["scheduling"]["nodeSelector"] == {"unifleet.io/runu": "true"}
    assert runtime["overhead"]["podFixed"]["memory"] == "32Mi"


def test_a_daemonset_lands_a_unikernel_on_just_the_hosts_that_match(cluster: Cluster) -> None:
    cluster.playbook("demo_image")
    started = time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=DAEMONSET)
    pod = eventually(lambda: cluster.pods("app=humidity").get("pi1"), 30, "a humidity pod on pi1")
    eventually(lambda: readings(cluster, pod["metadata"]["name"]), 60, "a reading in the log of the pod on pi1")
    print(f"DaemonSet created -> first reading in kubectl logs on pi1: {time.monotonic() - started:.1f} s")
    assert set(cluster.pods("app=humidity")) == {"pi1"}


def test_a_label_changed_in_the_inventory_moves_the_unikernel(cluster: Cluster) -> None:
    edit_host(cluster, "kvm1", {"sensor": "humidity"})
    edit_host(cluster, "pi1", {"sensor": "pressure"})
    cluster.playbook("labels")
    started = time.monotonic()
    eventually(lambda: set(cluster.pods("app=humidity")) == {"kvm1"}, 60, "the pod to move from pi1 to kvm1")
    pod = cluster.pods("app=humidity")["kvm1"]["metadata"]["name"]
    eventually(lambda: readings(cluster, pod), 60, "a reading in the log of the virtual machine")
    print(f"labels changed -> first reading on kvm1: {time.monotonic() - started:.1f} s")
    edit_host(cluster, "pi1", {"sensor": "humidity"})
    cluster.playbook("labels")
    eventually(lambda: set(cluster.pods("app=humidity")) == {"kvm1", "pi1"}, 60, "a pod on both hosts")


def test_one_image_is_a_process_on_the_raspberry_pi_and_a_virtual_machine_on_the_server(cluster: Cluster) -> None:
    edit_host(cluster, "kvm1", {"location": "germany", "os": "raspbian"})
    cluster.playbook("labels")
    cluster.kubectl("apply", "-f", str(EXAMPLES / "green-daemon.yml"))
    eventually(lambda: set(cluster.pods("app=green")) == {"kvm1", "pi1"}, 60, "a green pod on both hosts")
    for pod in cluster.pods("app=green").values():
        log = eventually(lambda name=pod["metadata"]["name"]: cluster.kubectl("logs", name), 90, "a reading of the green daemon")
        assert re.match(r"sensor=humidity value=\S+ seq=1 uptime=\S+ tag=GREEN\n", log)
    edit_host(cluster, "kvm1", {"location": "france", "os": None})


def test_callers_on_both_kinds_of_host_fetch_from_a_service_on_another_host(cluster: Cluster) -> None:
    deployment = (EXAMPLES / "caller-deployment.yml").read_text(encoding="utf-8").replace("10.77.0.", "10.77.9.")
    cluster.kubectl("apply", "-f", "-", stdin=deployment)
    eventually(lambda: set(cluster.pods("app=caller")) == {"kvm1", "pi1"}, 60, "a caller on both hosts")
    for node, pod in cluster.pods("app=caller").items():
        name = pod["metadata"]["name"]
        eventually(lambda n=name: "status=200" in cluster.kubectl("logs", n), 90, f"an answer in the log of the caller on {node}")
    vm = eventually(lambda: cluster.pods("app=caller")["kvm1"]["status"].get("podIP"), 30, "the virtual machine's address")
    assert vm not in ("10.77.9.12", "10.77.9.13")
    fetch = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{vm}:8080/\", timeout=10).read().decode())'"
    for host in ("kvm1", "pi1"):
        assert json.loads(cluster.ssh(host, fetch))["status"] == 200, f"the virtual machine's own service, asked from {host}"
    cluster.kubectl("delete", "deployment", "caller")


def ask(cluster: Cluster, url: str) -> str:
    """What a web server says to a program on worker1."""
    return cluster.ssh("worker1", f"python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}\", timeout=5).read().decode())'")


def machines_on_worker(cluster: Cluster) -> int:
    """How many virtual machines run on worker1."""
    return int(cluster.ssh("worker1", "pgrep -c runu-qemu || true").strip())


def running(cluster: Cluster, name: str) -> dict[str, Any]:
    """A pod's status, once all its containers run."""

    def found() -> dict[str, Any]:
        status: dict[str, Any] = json.loads(cluster.kubectl("get", "pod", name, "-o", "json"))["status"]
        containers = status.get("containerStatuses") or []
        return status if containers and all("running" in entry["state"] for entry in containers) else {}

    answer: dict[str, Any] = eventually(found, 90, f"all containers of {name} running")
    return answer


def test_an_ordinary_container_runs_on_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    image = push_busybox(REGISTRY, tmp_path)
    started = time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.pod("web", [container(image)]))
    address = running(cluster, "web")["podIP"]
    print(f"ordinary pod created -> running on worker1: {time.monotonic() - started:.1f} s")
    assert eventually(lambda: cluster.kubectl("logs", "web"), 30, "a line of the container") == "web serves\n"
    assert cluster.kubectl("exec", "web", "--", "hostname") == "web\n"
    assert eventually(lambda: ask(cluster, f"http://{address}/"), 30, "the page").strip() == "page of web"
    assert machines_on_worker(cluster) == 0


def test_a_pod_of_the_runtime_class_is_a_virtual_machine_under_the_stock_kubelet(cluster: Cluster) -> None:
    started = time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.pod("uni", [unikernel(REGISTRY)], "runu"))
    eventually(lambda: readings(cluster, "uni"), 90, "a reading of the unikernel")
    print(f"runu pod created -> first reading in kubectl logs: {time.monotonic() - started:.1f} s")
    status = running(cluster, "uni")
    assert status["hostIP"] == WORKER_ADDRESS
    assert json.loads(ask(cluster, f"http://{status['podIP']}/"))["sensor"] == "humidity"
    assert machines_on_worker(cluster) == 1


def test_a_unikernel_and_an_ordinary_container_share_a_pod(cluster: Cluster) -> None:
    both = [unikernel(REGISTRY), container(f"{REGISTRY}/busybox:1", "side", 8080)]
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.pod("mixed", both, "runu"))
    running(cluster, "mixed")
    eventually(lambda: readings(cluster, "mixed", "-c", "sensor"), 60, "a reading of the unikernel in the mixed pod")
    assert eventually(lambda: cluster.kubectl("logs", "mixed", "-c", "side"), 30, "a line of the sidecar") == "side serves\n"
    assert cluster.kubectl("exec", "mixed", "-c", "side", "--", "hostname") == "mixed\n"
    assert machines_on_worker(cluster) == 2


def said_by(url: str, seconds: float = 5) -> str:
    """What a web server says to a program on this machine; "" when it says nothing."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_port_forward_reaches_unikernels_and_the_containers_beside_them(cluster: Cluster) -> None:
    for pod in ("uni", "mixed"):
        with cluster.forwarded(pod, 80) as (port, _said):
            for _again in range(3):
                assert json.loads(said_by(f"http://127.0.0.1:{port}/"))["sensor"] == "humidity"
    with cluster.forwarded("mixed", 8080) as (port, _said):
        assert said_by(f"http://127.0.0.1:{port}/").strip() == "page of side"
    with cluster.forwarded("uni", 81) as (port, said):
        assert not said_by(f"http://127.0.0.1:{port}/")
        eventually(lambda: "connection refused" in said(), 10, "kubectl to say, as for a container, that the port is closed")
    page = cluster.kubectl("exec", "mixed", "-c", "side", "--", "wget", "-q", "-O", "-", "http://127.0.0.1/")
    assert json.loads(page)["sensor"] == "humidity", "the sidecar finds the unikernel on the pod's localhost"


def test_a_service_spreads_requests_over_a_deployment_of_unikernels(cluster: Cluster) -> None:
    sensor = {**unikernel(REGISTRY), "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}}
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.deployment("unis", 3, [sensor], "runu"))
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.service("unis"))
    cluster.kubectl("rollout", "status", "deployment/unis", "--timeout=120s", timeout=130)
    address = cluster.kubectl("get", "service", "unis", "-o", "jsonpath={.spec.clusterIP}")
    fetch = f'import urllib.request as u; [print(u.urlopen("http://{address}/", timeout=5).read().decode().strip()) for i in range(24)]'
    answers = [json.loads(line) for line in cluster.ssh("worker1", f"python3 -c '{fetch}'").splitlines() if line.strip()]
    assert len(answers) == 24
    boots = {round(answer["seq"] - answer["uptime"]) for answer in answers}
    assert boots == {1}, "each reading is of its own second"
    count = "iptables-save -t nat | grep -c 'default/unis.* -j KUBE-SEP' || true"
    eventually(lambda: cluster.ssh("worker1", count).strip() == "3", 30, "kube-proxy to lead the service to all three")


def test_restarts_of_kubelet_containerd_and_kube_proxy_leave_everything_running(cluster: Cluster) -> None:
    before = {name: running(cluster, name)["containerStatuses"] for name in ("web", "uni", "mixed")}
    last = readings(cluster, "uni", "--tail=1")[-1]
    cluster.ssh("worker1", "systemctl restart containerd kubelet kube-proxy")
    eventually(lambda: readings(cluster, "uni", "--tail=1")[-1] > last + 5, 60, "readings newer than the restarts")
    eventually(lambda: cluster.ready("worker1") == "True", 90, "worker1 Ready")
    for name, statuses in before.items():
        now = running(cluster, name)["containerStatuses"]
        assert {entry["containerID"] for entry in now} == {entry["containerID"] for entry in statuses}
        assert all(entry["restartCount"] == 0 for entry in now)
    log = readings(cluster, "uni")
    assert log == list(range(log[0], log[0] + len(log))), f"readings lost or doubled: {log}"


def test_deleted_unikernels_end_at_once(cluster: Cluster) -> None:
    cluster.kubectl("delete", "deployment/unis", "service/unis", "pod/web", "pod/uni", "pod/mixed", "--wait=false")
    eventually(lambda: machines_on_worker(cluster) == 0, 30, "no virtual machine on worker1")


def test_a_label_dropped_from_the_inventory_disappears_and_a_foreign_one_stays(cluster: Cluster) -> None:
    cluster.kubectl("label", "node", "pi1", "example.com/foreign=stays")
    edit_host(cluster, "pi1", {"os": None})
    cluster.playbook("labels")
    eventually(lambda: "os" not in cluster.labels("pi1"), 30, "the dropped label to go")
    eventually(lambda: not cluster.pods("app=green"), 60, "the green daemon to leave both hosts")
    cluster.kubectl("delete", "daemonset", "green-daemon")
    assert cluster.labels("pi1")["example.com/foreign"] == "stays"
    again = cluster.playbook("labels")
    assert again.changed() == {}


def test_a_killed_agent_loses_nothing_and_starts_nothing_twice(cluster: Cluster) -> None:
    eventually(
        lambda: all(cluster.pods("app=humidity").get(n, {}).get("status", {}).get("phase") == "Running" for n in NODES),
        60,
        "both pods Running",
    )
    pods = cluster.pods("app=humidity")
    old = {node: pod["status"]["containerStatuses"][0] for node, pod in pods.items()}
    last = {node: readings(cluster, pod["metadata"]["name"], "--tail=1")[-1] for node, pod in pods.items()}
    for node in NODES:
        for _kill in range(2):
            main = "systemctl show --property MainPID --value virtual-kubelet.service"
            eventually(lambda n=node, ask=main: cluster.ssh(n, ask).strip() != "0", 30, f"the agent on {node} to run")
            cluster.ssh(node, "systemctl kill --kill-who=main --signal=KILL virtual-kubelet.service")
            time.sleep(2)
    for node, pod in pods.items():
        eventually(
            lambda p=pod, n=node: readings(cluster, p["metadata"]["name"], "--tail=1")[-1] > last[n] + 8,
            120,
            f"{node}: readings newer than the kills",
        )
    for node, pod in cluster.pods("app=humidity").items():
        status = pod["status"]["containerStatuses"][0]
        assert pod["metadata"]["uid"] == pods[node]["metadata"]["uid"]
        assert status["containerID"] == old[node]["containerID"]
        assert status["restartCount"] == old[node]["restartCount"] == 0
        assert status["state"]["running"]["startedAt"] == old[node]["state"]["running"]["startedAt"]
        log = readings(cluster, pod["metadata"]["name"])
        assert log == list(range(log[0], log[0] + len(log))), f"{node}: readings lost or doubled: {log}"


def test_pods_that_were_deleted_leave_nothing_on_the_worker(cluster: Cluster) -> None:
    eventually(lambda: "worker1" not in cluster.pods(""), 90, "no pod on worker1")
    left = "ls /run/netns; find /run/runu /run/containerd/runc/k8s.io -mindepth 1 -maxdepth 1; ip -o link | grep veth"
    assert eventually(
        lambda: cluster.ssh("worker1", f"({left}) 2>/dev/null | wc -l").strip() == "0", 60, "no namespace, state or link left"
    )
    groups = "find /sys/fs/cgroup/memory/kubepods -mindepth 2 -type d | wc -l"
    assert eventually(lambda: cluster.ssh("worker1", f"{groups}").strip() in ("0", "1", "2"), 60, "no pod's control group left")


def test_a_host_that_loses_power_shows_not_ready_and_comes_back(cluster: Cluster) -> None:
    before = cluster.pods("app=humidity")["pi1"]
    cluster.playbook("lab_up", "--limit", "pi1", "-e", "lab_host_state=killed")
    eventually(lambda: cluster.ready("pi1") != "True", 120, "pi1 NotReady after the power cut", every=2)
    verify = cluster.playbook("verify", check=False)
    assert verify.returncode != 0
    assert "pi1" in verify.output
    cluster.playbook("lab_up", "--limit", "pi1")
    eventually(lambda: cluster.ready("pi1") == "True", 120, "pi1 Ready again", every=2)

    def runs_again() -> str:
        pod = cluster.pods("app=humidity").get("pi1", before)
        status = (pod["status"].get("containerStatuses") or [{}])[0]
        another = pod["metadata"]["uid"] != before["metadata"]["uid"] or status.get("restartCount", 0) >= 1
        return str(pod["metadata"]["name"]) if another and "running" in status.get("state", {}) else ""

    pod = eventually(runs_again, 120, "the container on pi1 running again, its restart counted")
    eventually(lambda: readings(cluster, pod, "--tail=1"), 60, "readings from pi1 again")
