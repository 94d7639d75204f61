# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory must say, and how it is told when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.inventory_rules import HostEntry, problems

SPECS: dict[str, dict[str, Any]] = {
    "virtual_kubelet": {
        "virtual_kubelet_provider": {"type": "str", "choices": ["kvm", "process"], "required": True},
        "virtual_kubelet_keep_versions": {"type": "int"},
        "virtual_kubelet_node_name": {"type": "str"},
    }
}
COMMON = {"control_plane_admin_kubeconfig": "/tmp/admin.kubeconfig"}


def plane(name: str = "cp1", **variables: Any) -> HostEntry:
    return HostEntry(name, ("control_plane",), {**COMMON, "ansible_host": "10.0.0.1", **variables})


def node(
    name: str = "pi1", labels: Any = None, taints: Any = None, groups: tuple[str, ...] = ("virtual_kubelets",), **variables: Any
) -> HostEntry:
    own = {**COMMON, "ansible_host": "10.0.0.2", "provider": "process", **variables}
    return HostEntry(name, groups, own, labels or {}, taints or {})


def test_a_good_inventory_has_no_problems() -> None:
    assert problems([plane(), node(labels={"sensor": "humidity"}, taints={"dedicated:NoSchedule": "iot"})], SPECS) == []


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([node()], ["control_plane", "no host", "exactly one"]),
        ([plane(), plane("cp2", ansible_host="10.0.0.9"), node()], ["cp1, cp2", "exactly one"]),
        ([plane()], ["there would be no node"]),
        ([plane(), node(provider="docker")], ["pi1: provider is 'docker'", "kvm, process, simulated"]),
        ([plane(), node(provider=None)], ["pi1: provider is not set", "kvm, process, simulated"]),
        ([plane(), node(virtual_kubelet_provider="xen")], ["pi1", "virtual_kubelet_provider must be one of: kvm, process"]),
        ([plane(), node(virtual_kubelet_keep_versions="many")], ["pi1", "virtual_kubelet_keep_versions", "int"]),
        ([plane(), node(virtual_kubelet_kep_versions=2)], ["pi1", "is virtual_kubelet_keep_versions meant?"]),
        ([plane(), node(virtual_kubelet_zzz=2)], ["pi1: virtual_kubelet_zzz is no variable of role virtual_kubelet; there are"]),
        ([plane(), node("Pi_1")], ["Pi_1: node name 'Pi_1'"]),
        ([plane(), node(labels={"a b": "c"})], ["pi1", "node_labels", "'a b'"]),
        ([plane(), node(labels={"kubernetes.io/hostname": "x"})], ["pi1", "kubernetes.io/hostname"]),
        ([plane(), node(taints={"dedicated:Sometimes": "x"})], ["pi1", "node_taints", "dedicated:Sometimes"]),
        ([plane(), node(groups=("workers", "virtual_kubelets"))], ["pi1: is in both workers and virtual_kubelets"]),
        ([plane(), node(), node("pi2")], ["pi1, pi2: the address (ansible_host) 10.0.0.2:22"]),
        (
            [plane(), node(virtual_kubelet_node_name="a"), node("b", ansible_host="h", virtual_kubelet_node_name="a")],
            ["pi1, b: the node name a"],
        ),
        ([plane(), node(control_plane_admin_kubeconfig="")], ["control_plane_admin_kubeconfig is not set"]),
    ],
)
def test_a_fault_is_told_with_host_variable_and_allowed_values(hosts: list[HostEntry], words: list[str]) -> None:
    (told,) = problems(hosts, SPECS)
    for word in words:
        assert word in told


def test_all_faults_are_told_at_once_and_the_same_fault_of_many_hosts_once() -> None:
    hosts = [plane(), node(provider="docker"), node("pi2", ansible_host="10.0.0.3", provider="docker", labels={"-": "x"})]
    told = problems(hosts, SPECS)
    assert len(told) == 2
    assert told[0].startswith("pi1, pi2: provider is 'docker'")


def test_hosts_outside_the_cluster_are_not_judged() -> None:
    other = HostEntry("printer", ("office",), {"virtual_kubelet_zzz": 1}, {"-": "x"}, {})
    assert problems([plane(), node(), other], SPECS) == []


def test_a_variable_of_a_role_with_a_longer_name_is_no_misspelling() -> None:
    specs = {**SPECS, "virtual": {"virtual_size": {"type": "int"}}}
    assert problems([plane(), node(virtual_kubelet_keep_versions=2)], specs) == []


def test_a_node_may_serve_under_its_addresses_and_names() -> None:
    entry = node(node_addresses=["203.0.113.5"], virtual_kubelet_node_name="attic")
    assert entry.addresses == ["10.0.0.2", "203.0.113.5", "pi1"]
