# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's Debian 13 server becomes a worker: `site`, over ssh, onto a host with a kernel, control groups and a firewall of its own.

cgroup version 2 with the systemd driver from the kubelet down to runu, containerd 1.7, and a real kube-proxy. The control plane is a real
one outside of the host, which is emulated, so that all of it takes minutes: `make cgroup2` runs it, `make test` does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import eventually
from debian_node import BUSYBOX, GATEWAY, GUEST, ROOT, UNIKERNEL, import_images, inside, network, node
from local_cluster import LocalCluster, find_programs
from worker_pods import container, service, spec

from ansible_collections.unifleet.hybrid.tools.debian_host.host import DebianHost

pytestmark = [pytest.mark.system, pytest.mark.cgroup2, pytest.mark.timeout(1500)]

NAME = "debian13"
MIB = 1 << 20
GET = "python3 -c 'import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())'"


def sensor(name: str, mebibytes: int) -> dict[str, Any]:
    """The unikernel, a reading every other second."""
    limits = {"memory": f"{mebibytes}Mi", "cpu": "500m"}
    return {"name": name, "image": UNIKERNEL, "args": ["--sensor", "humidity", "--period", "2"], "resources": {"limits": limits}}


def pod(name: str, containers: list[dict[str, Any]], runtime_class: str, annotations: dict[str, str]) -> str:
    """The manifest of a pod of images that are on the host already."""
    metadata = {"name": name, "labels": {"app": name}, "annotations": annotations}
    here = [{**entry, "imagePullPolicy": "Never"} for entry in containers]
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(here, runtime_class)})


@dataclass
class Worker:
    """The host, the cluster that it joined, and the play that did it."""

    host: DebianHost
    cluster: LocalCluster
    inventory: Path

    def site(self) -> dict[str, dict[str, int]]:
        """Run the playbook on the host; the counts of its recap."""
        play = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory), "--limit", NAME, "playbooks/site.yml"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
        done = subprocess.run(play, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=900)
        print(done.stdout)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{NAME} "))
        return {NAME: {key: int(value) for key, value in (word.split("=") for word in line.split() if "=" in word)}}

    def kubectl(self, *arguments: str) -> str:
        """Its output; AssertionError when it fails, as it does while a kubelet starts anew."""
        try:
            return self.cluster.kubectl(*arguments)
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr) from error

    def create(self, manifest: str) -> None:
        self.cluster.kubectl("create", "-f", "-", stdin=manifest)

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "pod", name, "-o", "json"))
        return found

    def wait_running(self, name: str) -> None:
        def running() -> bool:
            found = self.pod(name)["status"].get("containerStatuses", [])
            return bool(found) and all("running" in entry["state"] for entry in found)

        try:
            eventually(running, 180, f"pod {name} running", 2)
        except AssertionError as error:
            raise AssertionError(self.kubectl("describe", "pod", name)) from error

    def wait_ready(self) -> None:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        eventually(lambda: self.kubectl("get", "node", NAME, "-o", path) == "True", 120, "the node to be ready", 2)

    def scope(self, name: str, container_id: str) -> Path:
        """The directory of a container's control group, below its pod's slice."""
        uid = self.pod(name)["metadata"]["uid"].replace("-", "_")
        slices = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
        return Path("/sys/fs/cgroup", slices, f"cri-containerd-{container_id.partition('://')[2]}.scope")

    def commands(self, group: Path) -> set[str]:
        return set(self.host.run(f"for pid in $(cat {group}/cgroup.procs); do cat /proc/$pid/comm; done").split())

    def values(self, group: Path, *files: str) -> dict[str, str]:
        lines = self.host.run(f"cd {group} && for file in {' '.join(files)}; do echo $file $(cat $file); done").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def answer(self, url: str) -> str:
        """What a GET on the host says; its error where there is none."""
        return self.host.run(f"{GET} {url} 2>&1 || true")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with network() as net, node(net[1]) as host:  # pylint does not see that a pair's second is assigned by then
        host.run(f"ip address add {GUEST}/24 dev eth1 && ip link set eth1 up")
        with inside(net[0]), LocalCluster(address=GATEWAY, pod_networks=True) as cluster:
            inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
            inventory.write_text(yaml.safe_dump(hosts(host, cluster)))
            made = Worker(host, cluster, inventory)
            made.site()
            import_images(host, "k8s.io")
            made.wait_ready()
            yield made


def hosts(host: DebianHost, cluster: LocalCluster) -> dict[str, Any]:
    """The inventory: the worker, and the control plane, which is there already and is not touched."""
    # Ansible's usual path of the connection would be that of the host of an earlier run, in a namespace that is gone.
    ssh = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=auto -o ControlPersist=60"
    server = {
        "ansible_host": GUEST,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(host.image.key),
        "ansible_ssh_args": ssh,
        "ansible_control_path": str(host.directory / "ansible"),
        "node_labels": {"type": "worker"},
        "worker_node_ip": GUEST,
        "worker_api_server": cluster.server,
        "runu_emulation": True,
    }
    return {
        "all": {
            "vars": {
                "control_plane_admin_kubeconfig": str(cluster.kubeconfig),
                "kubernetes_binaries_source": "directory",
                "kubernetes_binaries_directory": str(find_programs()),
            }
        },
        "control_plane": {"hosts": {"elsewhere": {"ansible_host": GATEWAY}}},
        "workers": {"hosts": {NAME: server}},
    }


def test_the_node_is_ready_and_as_the_inventory_says(worker: Worker) -> None:
    found = json.loads(worker.cluster.kubectl("get", "node", NAME, "-o", "json"))
    assert found["metadata"]["labels"]["type"] == "worker"
    assert found["metadata"]["labels"]["unifleet.io/runu"] == "true"
    info = found["status"]["nodeInfo"]
    assert info["containerRuntimeVersion"].startswith("containerd://1.7")
    assert worker.host.run("systemctl is-active kubepods-burstable.slice kubepods-besteffort.slice").split() == ["active", "active"]


def test_a_unikernel_and_an_ordinary_container_share_a_pod_below_systemds_slice(worker: Worker) -> None:
    containers = [sensor("sensor", 64), container(BUSYBOX, "side", 8080)]
    worker.create(pod("mixed", containers, "runu", {"io.unifleet.container-ports": "8080"}))
    worker.wait_running("mixed")
    status = worker.pod("mixed")["status"]
    assert {entry["name"]: entry["restartCount"] for entry in status["containerStatuses"]} == {"sensor": 0, "side": 0}
    scopes = {entry["name"]: worker.scope("mixed", entry["containerID"]) for entry in status["containerStatuses"]}
    assert worker.commands(scopes["sensor"]) == {"runu-monitor", "runu-qemu"}
    assert worker.commands(scopes["side"]) == {"httpd"}
    assert worker.values(scopes["sensor"], "memory.max", "cpu.max") == {"memory.max": str(96 * MIB), "cpu.max": "50000 100000"}
    assert worker.values(scopes["sensor"].parent, "memory.max") == {"memory.max": str((64 + 32 + 32) * MIB)}
    eventually(lambda: "value=" in worker.kubectl("logs", "mixed", "-c", "sensor"), 60, "the unikernel's lines")
    assert worker.kubectl("exec", "mixed", "-c", "side", "--", "echo", "hello") == "hello\n"
    address = status["podIP"]
    assert "sensor" in worker.answer(f"http://{address}/")
    assert worker.answer(f"http://{address}:8080/") == "page of side\n"


def test_a_service_leads_to_unikernels_by_the_nodes_own_kube_proxy(worker: Worker) -> None:
    worker.create(service("mixed"))
    address = worker.kubectl("get", "service", "mixed", "-o", "jsonpath={.spec.clusterIP}")
    eventually(lambda: worker.answer(f"http://{address}/").startswith('{"sensor"'), 90, "the unikernel behind its service", 3)


def test_what_the_kubelet_measures_of_a_unikernel_is_true(worker: Worker) -> None:
    def measured() -> Any:
        summary = json.loads(worker.kubectl("get", "--raw", f"/api/v1/nodes/{NAME}/proxy/stats/summary"))
        mine = [entry for entry in summary["pods"] if entry["podRef"]["name"] == "mixed"]
        return {entry["name"]: entry["memory"].get("workingSetBytes", 0) for entry in mine[0]["containers"]} if mine else {}

    found = eventually(lambda: (seen := measured()).get("sensor", 0) > 4 * MIB and seen, 120, "the unikernel's memory", 5)
    assert found["sensor"] < 96 * MIB


def test_nothing_is_lost_when_systemd_containerd_and_kubelet_start_anew(worker: Worker) -> None:
    before = worker.pod("mixed")["status"]["containerStatuses"]
    lines = worker.kubectl("logs", "mixed", "-c", "sensor").count("value=")
    worker.host.run("systemctl daemon-reexec && systemctl restart containerd && systemctl restart kubelet kube-proxy", seconds=180)
    worker.wait_ready()
    eventually(lambda: worker.kubectl("logs", "mixed", "-c", "sensor").count("value=") > lines, 120, "further lines", 2)
    after = worker.pod("mixed")["status"]["containerStatuses"]
    assert [(c["containerID"], c["restartCount"], c["state"]) for c in after] == [
        (c["containerID"], c["restartCount"], c["state"]) for c in before
    ]


def test_a_unikernel_that_the_kernel_kills_for_memory_is_oom_killed_and_starts_again(worker: Worker) -> None:
    status = next(entry for entry in worker.pod("mixed")["status"]["containerStatuses"] if entry["name"] == "sensor")
    # Less than QEMU has and more than its monitor, who is to tell of it: with that gone too, containerd may see the end before the reason.
    worker.host.run(f"echo {12 * MIB} > {worker.scope('mixed', status['containerID'])}/memory.max || true")

    def restarted() -> Any:
        now = next(entry for entry in worker.pod("mixed")["status"]["containerStatuses"] if entry["name"] == "sensor")
        return now["restartCount"] and "running" in now["state"] and now["lastState"].get("terminated")

    ended = eventually(restarted, 120, "the restart", 2)
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_deleted_pod_leaves_no_group_behind(worker: Worker) -> None:
    uid = worker.pod("mixed")["metadata"]["uid"].replace("-", "_")
    worker.kubectl("delete", "pod", "mixed", "--wait=false")
    eventually(lambda: not worker.kubectl("get", "pods", "-o", "name").strip(), 180, "the pod to be gone", 3)
    groups = f"find /sys/fs/cgroup -name '*{uid}*'"
    left = f"systemctl list-units --all --no-legend --plain 'cri-containerd-*'; {groups}; pgrep -l runu-; true"
    eventually(lambda: worker.host.run(left).strip() == "", 90, "nothing left of the pod", 3)


def test_a_second_site_changes_nothing(worker: Worker) -> None:
    assert worker.site()[NAME]["changed"] == 0
