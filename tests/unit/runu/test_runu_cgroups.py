# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: where a container's is, and what its limits are called in both versions; scopes' names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import cgroups, scopes
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit

V2 = cgroups.Tree(True, {"": "/sys/fs/cgroup"}, {"": "/system.slice/x.service"})
V1 = cgroups.Tree(
    False,
    {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory"},
    {"memory": "/own"},
)


def test_an_absolute_path_is_below_the_mount_and_another_below_our_own_group() -> None:
    assert V2.directories("/kubepods/pod1/abc", "abc") == ["/sys/fs/cgroup/kubepods/pod1/abc"]
    assert V2.directories("", "abc") == ["/sys/fs/cgroup/system.slice/x.service/abc"]
    assert V1.directories("/kubepods/abc", "abc") == ["/sys/fs/cgroup/cpu,cpuacct/kubepods/abc", "/sys/fs/cgroup/memory/kubepods/abc"]
    assert V1.directories("pod/abc", "abc")[1] == "/sys/fs/cgroup/memory/own/pod/abc"


@pytest.mark.parametrize("path", ["/", "..", "../x", "/..", "a/../../b"])
def test_no_path_leads_to_the_root_or_above(path: str) -> None:
    with pytest.raises(UnifleetError, match="no group of a container"):
        V2.directories(path, "abc")


def test_limits_have_their_names_in_both_versions() -> None:
    resources = {
        "memory": {"limit": 1000, "swap": 1500},
        "cpu": {"shares": 1024, "quota": 5, "period": 10, "cpus": "0-1"},
        "pids": {"limit": 7},
    }
    assert dict(cgroups.settings(resources, True, 100)) == {
        "memory.max": "1100",
        "memory.swap.max": "500",
        "cpu.weight": "39",
        "cpu.max": "5 10",
        "cpuset.cpus": "0-1",
        "pids.max": "39",
    }
    assert dict(cgroups.settings(resources, False, 100)) == {
        "memory.limit_in_bytes": "1100",
        "memory.memsw.limit_in_bytes": "1600",
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "10",
        "cpu.cfs_quota_us": "5",
        "cpuset.cpus": "0-1",
        "pids.max": "39",
    }
    assert cgroups.settings({"memory": {"limit": -1}}, True, 100) == [("memory.max", "max")]
    assert cgroups.settings({}, True, 100) == []


@pytest.mark.parametrize("shares", [2, 1024, 262144, 0, 10**9])
def test_a_weight_is_always_one(shares: int) -> None:
    assert 1 <= cgroups.weight(shares) <= 10000


VALUES = st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2) | st.booleans()
TABLES = st.dictionaries(st.sampled_from(["limit", "swap", "shares", "quota", "period", "cpus", "mems", "reservation"]), VALUES, max_size=5)


@given(st.dictionaries(st.sampled_from(["memory", "cpu", "pids", "blockIO", "other"]), VALUES | TABLES, max_size=4), st.booleans())
def test_any_resources_are_settings_or_refused(resources: dict[str, Any], unified: bool) -> None:
    try:
        found = cgroups.settings(resources, unified, 1 << 20)
    except UnifleetError as error:
        assert "linux.resources" in error.message  # noqa: PT017
    else:
        assert all(value and "\n" not in value for _name, value in found)


def test_a_scope_is_in_the_slice_that_the_path_names() -> None:
    assert scopes.parts("kubepods-burstable-pod1.slice:cri-containerd:abc", "abc") == (
        "kubepods-burstable-pod1.slice",
        "cri-containerd-abc.scope",
    )
    assert scopes.parts("", "abc") == ("system.slice", "runu-abc.scope")
    assert scopes.slice_path("kubepods-burstable-pod1.slice") == "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    assert scopes.slice_path("-.slice") == ""


@pytest.mark.parametrize("path", ["/kubepods/x", "a:b", "a.slice:b:", "x:y:z", "../a.slice:b:c", "a.slice:b/c:d"])
def test_a_path_that_is_not_systemds_is_refused(path: str) -> None:
    with pytest.raises(UnifleetError, match="cgroupsPath"):
        scopes.parts(path, "abc")


def test_systemd_is_told_the_limits_too() -> None:
    found = dict(scopes.properties({"memory": {"limit": 1 << 20}, "cpu": {"quota": 50000, "period": 100000, "shares": 2}}, True, 0))
    assert found == {
        "MemoryMax": ("t", 1 << 20),
        "CPUWeight": ("t", 1),
        "CPUQuotaPerSecUSec": ("t", 500000),
        "CPUQuotaPeriodUSec": ("t", 100000),
    }


def test_systemd_is_told_that_a_limit_is_lifted() -> None:
    resources = {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    infinity = ("t", (1 << 64) - 1)
    assert dict(scopes.properties(resources, True, 1 << 20)) == dict.fromkeys(("MemoryMax", "CPUQuotaPerSecUSec", "TasksMax"), infinity)
    assert dict(scopes.properties(resources, False, 1 << 20)) == dict.fromkeys(("MemoryLimit", "CPUQuotaPerSecUSec", "TasksMax"), infinity)


def test_systemd_is_told_all_that_it_would_write_itself() -> None:
    resources = {"memory": {"limit": 2 << 20, "swap": 3 << 20, "reservation": 1 << 20}, "cpu": {"cpus": "0-2,9", "mems": "0"}}
    assert dict(scopes.properties(resources, True, 0)) == {
        "MemoryMax": ("t", 2 << 20),
        "MemorySwapMax": ("t", 1 << 20),
        "MemoryLow": ("t", 1 << 20),
        "AllowedCPUs": ("ay", b"\x07\x02"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
    }
    assert dict(scopes.properties(resources, False, 0)) == {"MemoryLimit": ("t", 2 << 20)}


@pytest.mark.parametrize("cpus", ["2-", "a", "1-0", "-", "99999", ","])
def test_a_list_of_processors_that_is_none_is_refused(cpus: str) -> None:
    with pytest.raises(UnifleetError, match="linux.resources.cpu.cpus"):
        scopes.properties({"cpu": {"cpus": cpus}}, True, 0)


@given(st.dictionaries(st.sampled_from(["memory", "cpu", "pids"]), VALUES | TABLES, max_size=3), st.booleans())
def test_any_resources_are_properties_or_refused(resources: dict[str, Any], unified: bool) -> None:
    try:
        found = scopes.properties(resources, unified, 1 << 20)
    except UnifleetError as error:
        assert "linux.resources" in error.message  # noqa: PT017
    else:
        assert all(isinstance(value, bytes) if kind == "ay" else 0 <= value < 1 << 64 for _name, (kind, value) in found)
