# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify lists, and what it does not."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.cluster_state import (
    host_problems,
    node_problems,
    program_problems,
    route_problems,
)


def node(name: str = "pi1", ready: str = "True", labels: Optional[dict[str, str]] = None, **extra: Any) -> dict[str, Any]:
    taints = [{"key": "virtual-kubelet.io/provider", "value": "unikernel", "effect": "NoSchedule"}, *extra.get("taints", [])]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **(labels or {})}, "annotations": extra.get("annotations", {})},
        "spec": {"taints": taints, "unschedulable": extra.get("cordoned", False)},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Why", "message": "because"}]},
    }


def info(**changes: Any) -> dict[str, Any]:
    certificate = {"exists": True, "problem": "", "not_after": 1.0, "days_left": 300.0, "days_total": 365.0, "valid": True}
    certificate.update(changes.pop("certificate", {}))
    unit = {"active": "active", "sub": "running", "enabled": "enabled", **changes.pop("unit", {})}
    return {"certificates": {"/c.pem": certificate}, "units": {"a.service": unit}, "failed_units": [], **changes}


WANTED = {"pi1": {"labels": {"sensor": "humidity"}, "taints": {"dedicated:NoSchedule": "iot"}}}
GOOD = {"labels": {"sensor": "humidity"}, "taints": [{"key": "dedicated", "value": "iot", "effect": "NoSchedule"}]}


def test_a_cluster_as_the_inventory_says_has_no_problems() -> None:
    assert node_problems(WANTED, [node(**GOOD)]) == []


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([], "node pi1 is not in the cluster"),
        ([node(**GOOD), node("old")], "node old is in the cluster but not in the inventory"),
        ([node(**GOOD, ready="False")], "node pi1 is not Ready: Why because"),
        ([node(**GOOD, ready="Unknown")], "node pi1 is not Ready: Why because"),
        ([node(**GOOD, cordoned=True)], "node pi1 is cordoned"),
        ([node(**{**GOOD, "labels": {}})], "node pi1 lacks label sensor=humidity"),
        ([node(**{**GOOD, "labels": {"sensor": "x"}})], "node pi1 has label sensor=x instead of humidity"),
        ([node(**{**GOOD, "taints": []})], "node pi1 lacks taint dedicated:NoSchedule"),
        (
            [node(**{**GOOD, "labels": {**GOOD["labels"], "gone": "x"}}, annotations={"unifleet.io/agent-labels": '["gone","sensor"]'})],
            "node pi1 still has label gone=x, which the inventory no longer names",
        ),
        (
            [node(**{**GOOD, "taints": [*GOOD["taints"], {"key": "odd", "effect": "NoExecute"}]})],
            "node pi1 has taint odd:NoExecute, which the inventory does not name",
        ),
    ],
)
def test_every_difference_of_a_node_is_told(nodes: list[dict[str, Any]], told: str) -> None:
    assert node_problems(WANTED, nodes) == [told]


def test_labels_of_others_and_taints_of_kubernetes_itself_are_no_difference() -> None:
    foreign = node(
        labels={"sensor": "humidity", "their": "own"},
        taints=[*GOOD["taints"], {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}],
    )
    assert node_problems(WANTED, [foreign]) == []


def test_a_node_that_has_not_reported_is_told() -> None:
    silent = node(**GOOD)
    silent["status"] = {}
    assert node_problems(WANTED, [silent]) == ["node pi1 has not reported yet"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"unreachable": True, "msg": "no route"}, "host pi1 cannot be reached: no route"),
        ({"failed": True, "msg": "no python"}, "host pi1 cannot be examined: no python"),
        (info(certificate={"problem": "it has expired"}), "host pi1: certificate /c.pem: it has expired"),
        (info(certificate={"days_left": 20.0}), "host pi1: certificate /c.pem ends in 20.0 days"),
        (info(certificate={"days_left": 0.1, "days_total": 1.0}), "host pi1: certificate /c.pem ends in 0.1 days"),
        (info(unit={"active": "failed", "sub": "failed"}), "host pi1: a.service is failed (failed)"),
        (info(unit={"enabled": "disabled"}), "host pi1: a.service does not start at boot (disabled)"),
        (info(failed_units=["x.service"]), "host pi1: x.service has failed"),
    ],
)
def test_what_is_wrong_on_a_host_is_told(found: dict[str, Any], told: str) -> None:
    assert host_problems("pi1", found, 30) == [told]


@pytest.mark.parametrize("certificate", [{}, {"days_left": 0.3, "days_total": 1.0}])
def test_a_certificate_that_is_not_due_is_no_problem(certificate: dict[str, float]) -> None:
    assert host_problems("pi1", info(certificate=certificate), 30) == []


def test_programs_of_another_version_are_told() -> None:
    assert program_problems("pi1", {"reason": "", "version": "2", "previous": "2"}) == []
    told = program_problems("pi1", {"reason": "not installed", "version": "2", "previous": "1"})
    assert told == ["host pi1: programs are version 1, should be 2: not installed"]
    assert "cannot be examined: boom" in program_problems("pi1", {"failed": True, "msg": "boom"})[0]
    assert program_problems("pi1", {"unreachable": True}) == []


NODES = [
    {"metadata": {"name": "kvm1"}, "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"]}},
    {"metadata": {"name": "pi1"}, "spec": {"podCIDR": "10.244.2.0/24"}},
    {"metadata": {"name": "new"}, "spec": {}},
]


@pytest.mark.parametrize(
    ("routes", "missing"),
    [
        ([], ["pi1 (10.244.2.0/24)"]),
        (["10.244.2.0/24"], []),
        (["10.244.0.0/16"], []),
        (["10.244.2.0/25", "10.244.1.0/24"], ["pi1 (10.244.2.0/24)"]),
        (None, []),
    ],
    ids=["none", "its own", "a wider one", "a part", "not asked for"],
)
def test_a_route_to_another_nodes_pods_that_is_missing_is_told(routes: Any, missing: list[str]) -> None:
    found = route_problems("kvm-host", info(routes=routes) if routes is not None else info(), NODES, {"kvm1": "kvm-host", "pi1": "pi-host"})
    assert found == [f"host kvm-host has no route to the pods of node {which}" for which in missing]


def test_the_control_planes_host_which_is_no_node_needs_all_routes() -> None:
    assert len(route_problems("cp1", info(routes=[]), NODES, {"kvm1": "kvm1", "pi1": "pi1"})) == 2
