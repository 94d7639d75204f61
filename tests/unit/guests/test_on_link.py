# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an address is told to a network stack that knows no gateway off its own prefix."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.families import FAMILIES
from ansible_collections.unifleet.hybrid.plugins.host.guests.words import on_link
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@pytest.mark.parametrize(
    ("address", "gateway", "told"),
    [
        ("10.0.0.5/24", "10.0.0.1", "10.0.0.5/24"),
        ("10.0.0.5/32", "10.0.0.1", "10.0.0.5/29"),
        ("10.0.0.5/32", "10.0.0.6", "10.0.0.5/30"),
        ("10.0.0.5/32", "10.0.0.4", "10.0.0.5/29"),
        ("10.0.0.5/24", "10.0.1.1", "10.0.0.5/23"),
        ("192.168.9.7/32", "169.254.1.1", "192.168.9.7/1"),
        ("10.4.4.7/32", "169.254.1.1", "10.4.4.7/0"),
        ("10.0.0.5/32", "", "10.0.0.5/32"),
    ],
)
def test_the_prefix_is_widened_to_the_gateway_and_no_further(address: str, gateway: str, told: str) -> None:
    assert str(on_link(Network(address, gateway))) == told


@given(address=st.ip_addresses(v=4), gateway=st.ip_addresses(v=4), prefix=st.integers(0, 32))
def test_the_widened_prefix_is_the_longest_that_will_do(
    address: ipaddress.IPv4Address, gateway: ipaddress.IPv4Address, prefix: int
) -> None:
    given_one = ipaddress.IPv4Interface(f"{address}/{prefix}")
    try:
        found = on_link(Network(str(given_one), str(gateway)))
    except UnifleetError:
        ends = (ipaddress.IPv4Address(0), ipaddress.IPv4Address(2**32 - 1))
        assert address == gateway or address in ends or gateway in ends
        return
    assert found.ip == address
    assert gateway in found.network
    assert found.network.prefixlen <= prefix
    if gateway not in given_one.network:
        longer = ipaddress.IPv4Interface(f"{address}/{found.network.prefixlen + 1}").network
        assert gateway not in longer or {address, gateway} & {longer.network_address, longer.broadcast_address}


@pytest.mark.parametrize(("address", "gateway"), [("10.0.0.5/32", "10.0.0.5"), ("fd00::5/64", "fd00::1"), ("10.0.0.5/24", "x"), ("", "")])
def test_a_network_that_is_none_is_refused(address: str, gateway: str) -> None:
    with pytest.raises(UnifleetError, match="the pod's network"):
        on_link(Network(address, gateway))


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"plain"}))
def test_every_foreign_dialect_tells_a_prefix_with_the_gateway_in_it(family: str) -> None:
    line = FAMILIES[family].command_line([], [], Network("10.0.0.5/32", "10.0.0.1"))
    assert "10.0.0.5/29" in line or "255.255.255.248" in line
