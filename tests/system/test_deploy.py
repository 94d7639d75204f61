# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet in deploy/ brings runu to a node that Ansible did not set up for it, upgrades it under a running unikernel, and goes again.

The node is a lab worker from which runu_enabled: false took all that is of runu.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import worker_pods
import yaml
from cluster import ROOT, Cluster, eventually

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.wide, pytest.mark.timeout(1200)]

REGISTRY = "10.77.9.11:5000"
CONFIG = "/etc/containerd/config.toml"


@pytest.fixture(scope="module")
def cluster(lab_cluster: Cluster) -> Cluster:
    file = lab_cluster.inventory / "hosts.yml"
    inventory = yaml.safe_load(file.read_text(encoding="utf-8"))
    inventory["workers"]["hosts"]["worker1"]["runu_enabled"] = False
    file.write_text(yaml.safe_dump(inventory, sort_keys=False), encoding="utf-8")
    lab_cluster.kubectl("delete", "pods,deployments,daemonsets", "--all", timeout=120)
    lab_cluster.playbook("site")
    return lab_cluster


def publish(root: Path, tag: str, scratch: Path) -> str:
    """Pack the installer's image from a checkout and push it; its name."""
    name = f"{REGISTRY}/unifleet/runu-node:{tag}"
    packed = scratch / f"{tag}.tar"
    subprocess.run([sys.executable, str(root / "tools/deploy_image.py"), name, str(packed)], check=True)
    push = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{packed}", f"docker://{name}"]
    subprocess.run(push, check=True, capture_output=True)
    return name


def apply(cluster: Cluster, manifest: str, image: str) -> None:
    text = (ROOT / "deploy" / manifest).read_text(encoding="utf-8").replace("unifleet/runu-node:latest", image)
    cluster.kubectl("apply", "-f", "-", stdin=text)


def rolled_out(cluster: Cluster, name: str) -> None:
    cluster.kubectl("-n", "kube-system", "rollout", "status", f"daemonset/{name}", "--timeout=120s", timeout=130)


def said(cluster: Cluster, container: str) -> str:
    """What the installer said on the node, as the kubelet keeps it."""
    return cluster.ssh("worker1", f"cat /var/log/pods/kube-system_*/{container}/*.log")


def readings(cluster: Cluster) -> list[int]:
    return [int(seq) for seq in re.findall(r"seq=(\d+)", cluster.kubectl("logs", "uni"))]


def test_a_node_gets_runu_keeps_it_over_an_upgrade_and_loses_every_trace_of_it(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.ssh("worker1", f"cat {CONFIG}")
    assert "unifleet.io/runu" not in cluster.labels("worker1")

    apply(cluster, "runu.yml", publish(ROOT, "1", tmp_path))
    rolled_out(cluster, "unifleet-runu")
    eventually(lambda: cluster.labels("worker1").get("unifleet.io/runu") == "true", 30, "the node's label")
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.pod("uni", [worker_pods.unikernel(REGISTRY)], "runu"))
    eventually(lambda: readings(cluster), 60, "a reading of a unikernel")

    newer = tmp_path / "newer"
    shutil.copytree(ROOT / "plugins", newer / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("deploy", "tools", "guest/build"):
        shutil.copytree(ROOT / name, newer / name, ignore=shutil.ignore_patterns("objects"))
    shutil.copy(ROOT / "galaxy.yml", newer)
    (newer / "collections/ansible_collections/unifleet").mkdir(parents=True)
    (newer / "collections/ansible_collections/unifleet/hybrid").symlink_to(newer)
    with (newer / "plugins/host/runu/logfile.py").open("a", encoding="utf-8") as source:
        source.write("# another version\n")
    image = publish(newer, "2", tmp_path)
    apply(cluster, "runu.yml", image)
    rolled_out(cluster, "unifleet-runu")
    versions = cluster.ssh("worker1", "ls /opt/unifleet/runu").split()
    assert len([name for name in versions if name not in ("current", "previous")]) == 2
    last = readings(cluster)[-1]
    eventually(lambda: readings(cluster)[-1] > last + 2, 30, "readings after the upgrade, of the unikernel from before")
    assert json.loads(cluster.kubectl("get", "pod", "uni", "-o", "json"))["status"]["containerStatuses"][0]["restartCount"] == 0

    cluster.kubectl("-n", "kube-system", "delete", "daemonset", "unifleet-runu")
    apply(cluster, "uninstall.yml", image)
    eventually(lambda: "delete their pods first" in said(cluster, "uninstall"), 60, "the node refusing while a unikernel runs")
    assert readings(cluster)
    cluster.kubectl("delete", "pod", "uni")
    rolled_out(cluster, "unifleet-runu-uninstall")
    assert "unifleet.io/runu" not in cluster.labels("worker1")
    assert cluster.ssh("worker1", f"cat {CONFIG}").split() == before.split()
    assert cluster.ssh("worker1", "ls -d /opt/unifleet /run/unifleet-runu /etc/unifleet/runu.json 2>/dev/null || true").strip() == ""
