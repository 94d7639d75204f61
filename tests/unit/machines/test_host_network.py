# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt, nftables and the routing table are told, before they are; that they do it is the contract tests' matter."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import Rules, Speaker, tap_name, transaction
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_routes import PROTOCOL, Change, PodRoutes, plan

NETWORKS = st.builds(
    lambda base, length: str(ipaddress.ip_network((base, length), strict=False)), st.integers(0, 2**32 - 1), st.integers(16, 30)
)
ROUTES = st.dictionaries(NETWORKS, st.sampled_from(["192.0.2.1", "192.0.2.2"]), max_size=6)


@given(ROUTES, ROUTES)
def test_following_the_plan_leads_from_any_routes_to_the_wanted_ones_and_then_there_is_none(wanted: Any, ours: Any) -> None:
    for change in plan(wanted, ours):
        if change.via:
            ours[change.network] = change.via
        else:
            del ours[change.network]
    assert ours == wanted
    assert plan(wanted, ours) == []


class Table(PodRoutes):
    """A routing table that a test can fill; the host's own network is 192.0.2.0/24."""

    def __init__(self, ours: dict[str, str], others: set[str]) -> None:
        self.ours, self.others = ours, others

    def _table(self) -> tuple[dict[str, str], set[str]]:
        return dict(self.ours), set(self.others)

    def _next_hop(self, address: str) -> str:
        return "" if address.startswith("192.0.2.") else f"{address} is behind the router 192.0.2.254"

    def _carry_out(self, change: Change) -> None:
        assert change.network not in self.others
        if change.via:
            self.ours[change.network] = change.via
        else:
            del self.ours[change.network]


def test_a_node_behind_a_router_gets_no_route_and_is_told_of() -> None:
    table = Table({"10.0.9.0/24": "192.0.2.9"}, set())
    troubles = table.apply({"10.0.1.0/24": "192.0.2.1", "10.0.2.0/24": "198.51.100.1"})
    assert list(troubles) == ["10.0.2.0/24"]
    assert "behind the router" in troubles["10.0.2.0/24"]
    assert table.ours == {"10.0.1.0/24": "192.0.2.1"}


def test_a_route_that_somebody_else_made_is_theirs() -> None:
    table = Table({}, {"10.0.1.0/24", "default/32"})
    assert table.apply({"10.0.1.0/24": "192.0.2.1"}) == {}
    assert table.ours == {}
    assert PROTOCOL not in {2, 3, 4, 16}


def body(commands: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [command["add"][kind] for command in commands if kind in command.get("add", {}) and command["add"][kind].get("name") == name]
    return dict(found)


def test_only_what_leaves_the_cluster_is_translated() -> None:
    commands = transaction(Rules(frozenset({"10.0.0.0/24"}), frozenset({"10.0.1.0/24", "10.0.3.0/24"}), frozenset()))
    inside = {f"{each['prefix']['addr']}/{each['prefix']['len']}" for each in body(commands, "set", "pods")["elem"]}
    assert inside == {"10.0.0.0/23", "10.0.3.0/24", "224.0.0.0/4"}
    assert "elem" not in body(commands, "set", "speakers")
    json.dumps(commands)


@given(st.frozensets(NETWORKS, min_size=1, max_size=5), st.frozensets(NETWORKS, max_size=5))
def test_no_two_elements_of_a_set_overlap_whatever_the_networks(networks: frozenset[str], cluster: frozenset[str]) -> None:
    commands = transaction(Rules(networks, cluster, frozenset()))
    for name in ("guests", "pods"):
        parts = [ipaddress.ip_network((e["prefix"]["addr"], e["prefix"]["len"])) for e in body(commands, "set", name)["elem"]]
        assert not any(one.overlaps(other) for index, one in enumerate(parts) for other in parts[:index])


def test_a_machine_speaks_with_its_own_addresses_alone() -> None:
    commands = transaction(Rules(frozenset(), frozenset(), frozenset({Speaker("uf-1", "52:54:00:00:00:01", "10.0.0.2")})))
    assert body(commands, "set", "speakers")["elem"] == [{"concat": ["uf-1", "52:54:00:00:00:01", "10.0.0.2"]}]
    rules = [command["add"]["rule"] for command in commands if "rule" in command.get("add", {})]
    assert [rule["expr"][-1] for rule in rules if rule["chain"] == "speak"] == [{"accept": None}, {"accept": None}, {"drop": None}]


@given(st.uuids(), st.uuids())
def test_a_taps_name_fits_the_kernel_and_is_one_machines(one: Any, other: Any) -> None:
    assert len(tap_name(str(one))) == 15
    assert (tap_name(str(one)) == tap_name(str(other))) is (one == other)


def test_of_a_route_that_is_there_already_the_kernel_is_not_asked_again() -> None:
    table = Table({"10.0.1.0/24": "192.0.2.1"}, set())
    table._next_hop = lambda address: f"asked about {address}"  # type: ignore[method-assign]
    assert table.apply({"10.0.1.0/24": "192.0.2.1"}) == {}
    assert table.apply({"10.0.1.0/24": "192.0.2.7"}) == {"10.0.1.0/24": "asked about 192.0.2.7"}
