# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which name servers a virtual machine gets, by its pod's policy and what node and host have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_dns import choose, host_servers, servers_in
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_fields import refusals
from tests.unit.kubelet_pods.pods import pod

CLUSTER, HOST = ("10.96.0.10",), ("192.0.2.1", "192.0.2.2")


@pytest.mark.parametrize(
    ("policy", "config", "cluster", "expected"),
    [
        ("ClusterFirst", (), CLUSTER, CLUSTER),
        ("ClusterFirstWithHostNet", (), CLUSTER, CLUSTER),
        ("Default", (), CLUSTER, HOST),
        ("None", ("9.9.9.9",), CLUSTER, ("9.9.9.9",)),
        ("ClusterFirst", ("9.9.9.9",), CLUSTER, ("10.96.0.10", "9.9.9.9")),
        ("Default", ("192.0.2.2",), (), HOST),
    ],
)
def test_the_policy_decides(policy: str, config: tuple[str, ...], cluster: tuple[str, ...], expected: tuple[str, ...]) -> None:
    chosen = choose(policy, config, cluster, HOST)
    assert (chosen.addresses, chosen.trouble) == (expected, "")


def test_cluster_first_without_a_cluster_dns_falls_back_and_says_so() -> None:
    chosen = choose("ClusterFirst", (), (), HOST)
    assert chosen.addresses == HOST
    assert "no cluster DNS" in chosen.trouble


def test_what_a_machine_cannot_use_is_left_out_and_told() -> None:
    chosen = choose("None", ("2001:db8::1", "127.0.0.1", "9.9.9.9", "x"), (), HOST)
    assert chosen.addresses == ("9.9.9.9",)
    assert "2001:db8::1" in chosen.trouble
    assert "only the first 3" in choose("None", ("1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"), (), ()).trouble
    assert "no name server" in choose("Default", (), (), ()).trouble


def test_loopback_resolvers_of_the_host_are_not_for_its_guests(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("# resolved\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n")
    (tmp_path / "real").write_text("nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n")
    assert host_servers((tmp_path / "stub", tmp_path / "real")) == ("192.0.2.1",)
    assert host_servers((tmp_path / "stub", tmp_path / "missing")) == ()


@given(st.text())
def test_no_resolv_conf_is_too_strange(text: str) -> None:
    assert all(server.count(".") == 3 for server in servers_in(text))


def test_a_pod_says_its_servers_and_search_lists_are_refused_by_name() -> None:
    parsed = pod(vm=True, dnsPolicy="None", dnsConfig={"nameservers": ["9.9.9.9"]})
    assert (parsed.dns_policy, parsed.name_servers, parsed.refusals) == ("None", ("9.9.9.9",), ())
    spec = {"containers": [], "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"], "options": [{"name": "ndots"}]}}
    assert [refusal.path for refusal in refusals(spec, vm=True)] == ["spec.dnsConfig.searches", "spec.dnsConfig.options"]
    assert [refusal.path for refusal in refusals({**spec, "dnsPolicy": "None"}, vm=False)] == ["spec.dnsConfig", "spec.dnsPolicy"]
    [network] = refusals({"containers": [], "hostNetwork": True}, vm=True)
    assert network.path == "spec.hostNetwork"
