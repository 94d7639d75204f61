# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After all stories: the cluster is as its inventory says, hosts are bare again when they are reset, and the machine when the lab goes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ROOT, Cluster, eventually
from footprint import footprint

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.timeout(1500)]

HOSTS = ("cp1", "kvm1", "pi1", "worker1")
REMAINS = (
    "ls -d /etc/unifleet /var/lib/unifleet /usr/local/lib/unifleet /usr/local/bin/* /opt/kubernetes /etc/kubernetes /var/lib/kubelet/*"
    " /var/lib/etcd/kubernetes /var/lib/docker-registry/* /var/lib/containerd/* /run/netns/* /var/log/pods 2>/dev/null;"
    " ls /sys/class/net | grep -vx -e lo -e eth0;"
    " ps -eo args= | grep -e qemu-system -e runu- -e containerd-shim -e kubelet -e kube- | grep -v -e 'ls -d /etc' -e grep;"
    " SYSTEMD_COLORS=0 systemctl list-units --plain --no-legend 'unifleet-*' 'kube*' etcd.service virtual-kubelet.service"
    " | grep -v unifleet-lab;"
    " nft list ruleset 2>/dev/null | grep -i -e unifleet -e KUBE- -e CNI-; ip route show proto 117 2>/dev/null; true"
)
"""Shell: what site and the pods make of a host. /usr/local/bin is empty on a bare one."""


def test_verify_finds_nothing_wrong_in_the_end(lab_cluster: Cluster) -> None:
    lab_cluster.playbook("verify")
    print({host: lab_cluster.ssh(host, "systemctl --failed --no-legend --no-pager", check=False).strip() for host in HOSTS})


def test_reset_asks_for_the_word_before_it_touches_anything(lab_cluster: Cluster) -> None:
    refused = lab_cluster.playbook("reset", check=False)
    assert refused.returncode != 0
    assert "reset_confirmed=true" in refused.output
    assert refused.changed() == {}
    assert lab_cluster.ready("kvm1") == "True"


def test_a_host_that_is_reset_alone_leaves_the_cluster_and_nothing_of_it_stays_behind(lab_cluster: Cluster) -> None:
    sensor = {"name": "main", "image": "10.77.9.11:5000/sensor:latest", "args": ["--sensor", "humidity"]}
    spec = {"nodeName": "kvm1", "tolerations": [{"operator": "Exists"}], "containers": [sensor]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "last"}, "spec": spec}
    lab_cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    eventually(lambda: lab_cluster.kubectl("logs", "last", check=False), 90, "a reading of a virtual machine on kvm1")
    lab_cluster.playbook("reset", "--limit", "kvm1", "-e", "reset_confirmed=true")
    assert lab_cluster.ssh("kvm1", REMAINS).strip() == ""
    assert set(lab_cluster.kubectl("get", "nodes", "-o", "name").split()) == {"node/pi1", "node/worker1"}


def test_reset_makes_all_hosts_bare_and_a_second_run_changes_nothing(lab_cluster: Cluster) -> None:
    lab_cluster.playbook("reset", "-e", "reset_confirmed=true")
    for host in HOSTS:
        assert lab_cluster.ssh(host, REMAINS).strip() == "", host
    assert not lab_cluster.kubeconfig.exists()
    again = lab_cluster.playbook("reset", "-e", "reset_confirmed=true")
    assert again.changed() == {}, again.output[-6000:]


@pytest.mark.wide
def test_site_makes_a_cluster_again_of_hosts_that_were_reset(lab_cluster: Cluster) -> None:
    if lab_cluster.kubeconfig.exists():
        lab_cluster.playbook("reset", "-e", "reset_confirmed=true")
    lab_cluster.playbook("site")
    lab_cluster.playbook("verify")
    # By kubectl, which reads the kubeconfig anew: this is another cluster, with another authority.
    ready = lab_cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
    assert ready.split() == ["True"] * 3


@pytest.fixture
def machine_to_itself() -> Iterator[None]:
    """Without the neighbours that `make test` runs beside this: `make contract` and `make loopback` hold the lock (Makefile)."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build/neighbours.lock").open("a") as lock:

        def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        eventually(taken, 1000, "an end of contract and loopback tests", every=1)
        yield


@pytest.mark.usefixtures("machine_to_itself")
def test_lab_down_leaves_the_machine_as_it_was(bare_lab: Cluster, before: frozenset[str]) -> None:
    bare_lab.playbook("lab_down")
    left = footprint() - before
    assert not left, f"left behind: {sorted(left)}"
    assert not (Path(bare_lab.directory) / "hosts").exists()
