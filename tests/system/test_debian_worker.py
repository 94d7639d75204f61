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
from debian_node import GATEWAY, GUEST, ROOT, inside, network, node
from local_cluster import LocalCluster, find_programs

from ansible_collections.unifleet.hybrid.tools.debian_host.host import DebianHost

pytestmark = [pytest.mark.system, pytest.mark.cgroup2, pytest.mark.timeout(1500)]

NAME = "debian13"


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


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with network() as (namespace, tap), node(tap) as host:
        host.run(f"ip address add {GUEST}/24 dev eth1 && ip link set eth1 up")
        with inside(namespace), LocalCluster(address=GATEWAY) as cluster:
            inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
            inventory.write_text(yaml.safe_dump(hosts(host, cluster)))
            made = Worker(host, cluster, inventory)
            made.site()
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
    eventually(
        lambda: "True" in worker.cluster.kubectl("get", "node", NAME, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"),
        60,
        "Ready",
    )
