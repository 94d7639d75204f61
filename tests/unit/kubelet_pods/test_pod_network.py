# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod network's own decisions: who gets which address, what bridge and firewall are told, and what is said when they cannot be had."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.addresses import AddressPool
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_network import PodNetwork
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import StepError, mac_of
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import Rules, Speaker, tap_name
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


class Host:
    """Bridge and firewall of a host, as the network sees them."""

    name = "unifleet0"

    def __init__(self) -> None:
        self.networks: tuple[str, ...] = ()
        self.ensured = 0
        self.rules: Any = None
        self.trouble = ""
        self.said: list[tuple[str, str]] = []

    def ensure(self, networks: Sequence[str]) -> bool:
        if self.trouble:
            raise UnifleetError(self.trouble)
        self.networks = tuple(networks)
        self.ensured += 1
        return True

    def apply(self, rules: Rules, *, look: bool = False) -> bool:
        self.rules = rules
        return True

    def tell(self, type_: str, reason: str, _message: str) -> None:
        self.said.append((type_, reason))


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def network(host: Host) -> AsyncIterator[PodNetwork]:
    made = PodNetwork(host, host, tell=host.tell)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()


async def until(check: Any) -> None:
    for _number in range(500):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("this did not come true in time")


async def test_the_bridge_is_there_as_soon_as_the_node_has_a_range(host: Host, network: PodNetwork) -> None:
    assert network.health is None
    network.see("10.9.8.0/24", dict)
    await until(lambda: network.health is not None)
    assert host.networks == ("10.9.8.0/24",)
    assert network.health is not None
    assert network.health.good
    assert host.said == []


async def test_a_card_is_behind_a_firewall_that_knows_it(host: Host, network: PodNetwork) -> None:
    network.see("10.9.8.0/24", lambda: {"old": "10.9.8.7/24"})
    network.reach(frozenset({"10.9.9.0/24"}))
    card = await network.interface("new")
    assert (card.address, card.gateway, card.bridge, card.tap) == ("10.9.8.2/24", "10.9.8.1", "unifleet0", tap_name("new"))
    assert host.rules.speakers == {
        Speaker(tap_name("old"), mac_of("old"), "10.9.8.7"),
        Speaker(tap_name("new"), mac_of("new"), "10.9.8.2"),
    }
    assert (host.rules.networks, host.rules.cluster) == ({"10.9.8.0/24"}, {"10.9.9.0/24"})
    network.release("old")
    await until(lambda: {speaker.address for speaker in host.rules.speakers} == {"10.9.8.2"})


async def test_without_a_bridge_a_machine_is_not_started_and_the_reason_is_told_once(host: Host, network: PodNetwork) -> None:
    host.trouble = "the kernel has no bridges"
    network.see("10.9.8.0/24", dict)
    for _number in range(3):
        with pytest.raises(StepError, match="the kernel has no bridges") as refused:
            await network.interface("a")
        assert refused.value.reason == "CreateContainerConfigError"
    assert network.health is not None
    assert not network.health.good
    assert host.said == [("Warning", "PodNetworkFailed")]
    host.trouble = ""
    assert (await network.interface("a")).address == "10.9.8.2/24"
    assert host.said[-1] == ("Normal", "PodNetworkReady")


async def test_a_node_without_a_range_or_a_bridge_says_so() -> None:
    with pytest.raises(StepError, match="no podCIDR"):
        await PodNetwork(Host(), Host()).interface("a")
    with pytest.raises(StepError, match=r"\[network\] bridge"):
        await PodNetwork().interface("a")


async def test_a_range_with_no_room_is_told_and_nothing_breaks(host: Host, network: PodNetwork) -> None:
    network.see("10.9.8.0/31", dict)
    assert network.health is not None
    assert "no room" in network.health.message
    network.see("10.9.8.0/24", dict)
    assert (await network.interface("a")).address == "10.9.8.2/24"


async def test_machines_of_a_range_that_the_node_had_before_keep_their_network(host: Host, network: PodNetwork) -> None:
    network.see("10.9.8.0/24", dict)
    old = await network.interface("old")
    assert network.pool is not None
    network.see("10.7.7.0/24", lambda: {"old": old.address})
    new = await network.interface("new")
    assert new.address == "10.7.7.2/24"
    assert set(host.networks) == {"10.7.7.0/24", "10.9.8.0/24"}
    assert {speaker.address for speaker in host.rules.speakers} == {"10.9.8.2", "10.7.7.2"}
    network.release("old")
    await until(lambda: host.networks == ("10.7.7.0/24",))
    again = await network.interface("old")
    assert again.gateway == "10.7.7.1"


async def test_addresses_of_machines_that_are_no_more_are_freed(host: Host, network: PodNetwork) -> None:
    network.see("10.9.8.0/24", lambda: {"stray": "10.9.8.5/24", "kept": "10.9.8.6/24"})
    network.keep({"kept"})
    assert network.pool is not None
    assert network.pool.addresses == {"kept": "10.9.8.6"}


class Pool(RuleBasedStateMachine):
    """Whatever comes and goes: no address twice, none that is the host's or the network's, the same one for the same machine."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool("10.0.0.0/29")
        self.mine: dict[str, str] = {}

    @rule(key=st.sampled_from("abcdefg"))
    def take(self, key: str) -> None:
        try:
            address = self.pool.take(key)
        except UnifleetError:
            assert len(self.mine) == 5
            return
        assert self.mine.setdefault(key, address) == address

    @rule(key=st.sampled_from("abcdefg"))
    def release(self, key: str) -> None:
        self.pool.release(key)
        self.mine.pop(key, None)

    @invariant()
    def every_address_is_one_machines(self) -> None:
        assert len(set(self.mine.values())) == len(self.mine)
        assert not set(self.mine.values()) & {"10.0.0.0", "10.0.0.1", "10.0.0.7"}


TestPool = Pool.TestCase


@given(st.integers(0, 2**32 - 1), st.integers(8, 30))
def test_every_range_gives_a_first_address_that_is_neither_gateway_nor_broadcast(base: int, length: int) -> None:
    network = ipaddress.ip_network((base, length), strict=False)
    pool = AddressPool(str(network))
    taken = ipaddress.ip_address(pool.take("a"))
    assert taken in network
    assert str(taken) != pool.gateway
    assert taken not in (network.network_address, network.broadcast_address)
