# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Node says of its host, and when the API server hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import PressureConfig, ReserveConfig
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import (
    Health,
    HostFacts,
    Readings,
    conditions,
    node_status,
    parse_meminfo,
    pod_cidr,
    status_differs,
    status_patch,
    take_readings,
    timestamp,
)
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity

FACTS = HostFacts("h", "arm64", "6.1", "Debian", "m", "b", ("10.0.0.7",))
PLENTY = Readings(memory_available=1 << 32, disk_total=1 << 40, disk_percent=50.0, inode_percent=50.0, pid_percent=90.0)
LIMITS = PressureConfig()
NOW = 1_800_000_000.0
FOUR_CORES = Capacity(4, 8 << 30, 110)
WELL = Health()


def by_type(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entry in found}


def status(
    now: float = NOW, readings: Readings = PLENTY, capacity: Optional[Capacity] = FOUR_CORES, health: Health = WELL
) -> dict[str, Any]:
    found = conditions((), health, readings, LIMITS, now)
    return node_status(FACTS, capacity, readings, reserve=ReserveConfig(500, 1 << 30, 0), conditions=found, port=10250, node_name="pi1")


def test_a_host_with_plenty_is_ready_and_without_pressure() -> None:
    found = by_type(conditions((), Health(), PLENTY, LIMITS, NOW))
    assert {kind: entry["status"] for kind, entry in found.items()} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"memory_available": 1}, "MemoryPressure"),
        ({"disk_percent": 9.9}, "DiskPressure"),
        ({"inode_percent": 4.9}, "DiskPressure"),
        ({"pid_percent": 9.0}, "PIDPressure"),
    ],
)
def test_what_the_host_runs_out_of_is_its_pressure(change: dict[str, Any], kind: str) -> None:
    found = by_type(conditions((), Health(), Readings(**{**PLENTY.__dict__, **change}), LIMITS, NOW))
    assert [entry["type"] for entry in found.values() if entry["status"] == "True"] == [kind, "Ready"]


def test_pressure_is_held_for_some_minutes_and_then_let_go() -> None:
    low = Readings(**{**PLENTY.__dict__, "memory_available": 1})
    first = conditions((), Health(), low, LIMITS, NOW)
    assert by_type(conditions(first, Health(), PLENTY, LIMITS, NOW + 60))["MemoryPressure"]["status"] == "True"
    assert by_type(conditions(first, Health(), PLENTY, LIMITS, NOW + 301))["MemoryPressure"]["status"] == "False"


def test_a_transition_time_changes_only_with_the_status() -> None:
    first = conditions((), Health(), PLENTY, LIMITS, NOW)
    later = by_type(conditions(first, Health("libvirtd is away"), PLENTY, LIMITS, NOW + 100))
    assert later["MemoryPressure"]["lastTransitionTime"] == timestamp(NOW)
    assert later["MemoryPressure"]["lastHeartbeatTime"] == timestamp(NOW + 100)
    assert later["Ready"]["lastTransitionTime"] == timestamp(NOW + 100)


def test_the_pod_network_is_a_condition_of_nodes_that_have_tried_to_make_one() -> None:
    bad = by_type(conditions((), Health(), PLENTY, LIMITS, NOW, network=Health("no bridge")))["NetworkUnavailable"]
    assert (bad["status"], bad["reason"], bad["message"]) == ("True", "PodNetworkFailed", "no bridge")
    good = by_type(conditions([bad], Health(), PLENTY, LIMITS, NOW + 5, network=Health()))["NetworkUnavailable"]
    assert (good["status"], good["reason"], good["lastTransitionTime"]) == ("False", "PodNetworkReady", timestamp(NOW + 5))


def test_a_sick_provider_makes_the_node_not_ready_in_its_own_words() -> None:
    ready = by_type(conditions((), Health("libvirtd is away"), PLENTY, LIMITS, NOW))["Ready"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "ProviderUnhealthy", "libvirtd is away")


def test_allocatable_is_capacity_without_the_reserve() -> None:
    found = status()
    assert found["capacity"]["cpu"] == "4"
    assert found["allocatable"]["cpu"] == "3500m"
    assert found["capacity"]["memory"] == f"{8 << 20}Ki"
    assert found["allocatable"]["memory"] == f"{7 << 20}Ki"
    assert found["addresses"] == [{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "pi1"}]


def test_a_capacity_that_the_provider_has_not_told_is_not_made_up() -> None:
    assert "capacity" not in status(capacity=None)


def test_a_reserve_above_the_capacity_leaves_nothing_and_not_less() -> None:
    found = node_status(
        FACTS, Capacity(1, 1 << 20, 5), PLENTY, reserve=ReserveConfig(9000, 1 << 40, 1 << 50), conditions=[], port=1, node_name="n"
    )
    assert {found["allocatable"][key] for key in ("cpu", "memory", "ephemeral-storage")} == {"0", "0Ki"}


def test_a_heartbeat_alone_is_no_difference() -> None:
    assert not status_differs(status(NOW + 50), status(NOW))


def test_the_api_servers_spelling_of_quantities_is_no_difference() -> None:
    theirs = status()
    theirs["capacity"] = {**theirs["capacity"], "memory": "8Gi", "pods": "110", "example.com/dongle": "1"}
    theirs["nodeInfo"] = {key: value for key, value in theirs["nodeInfo"].items() if value}
    theirs["images"] = []
    assert not status_differs(status(), theirs)


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": {}},
        {"addresses": []},
        {"conditions": []},
        {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}},
        {"nodeInfo": {}},
    ],
)
def test_whatever_else_differs_is_told(change: dict[str, Any]) -> None:
    assert status_differs(status(), {**status(), **change})


def test_a_patch_replaces_addresses_and_merges_the_rest() -> None:
    assert status_patch(status())["status"]["addresses"][0] == {"$patch": "replace"}


def test_meminfo_is_read_in_bytes() -> None:
    assert parse_meminfo("MemTotal:  2 kB\nHugePages_Total: 3\nodd\n") == {"MemTotal": 2048, "HugePages_Total": 3}


def test_the_readings_of_this_machine_make_sense(tmp_path: Path) -> None:
    readings = take_readings(tmp_path / "not" / "yet")
    assert readings.memory_available > 0
    assert readings.disk_total > 0
    assert 0 <= readings.disk_percent <= 100
    assert 0 < readings.pid_percent <= 100


@pytest.mark.parametrize(
    ("spec", "network"), [({}, None), ({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}, "10.1.0.0/24"), ({"podCIDRs": ["a"]}, "a")]
)
def test_the_pod_network_is_what_the_control_plane_gave(spec: dict[str, Any], network: Any) -> None:
    assert pod_cidr({"spec": spec}) == network
