# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod's network: which link it is, and which of its ports stay with the kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import netlink, network
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def row(link: str, destination: str, gateway: str, metric: int = 0, mask: str = "00000000", flags: str = "0003") -> str:
    return f"{link}\t{destination}\t{gateway}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


def test_the_default_route_with_the_least_metric_is_taken() -> None:
    table = (
        HEAD
        + row("net1", "00000000", "01000A0A", 200)
        + row("eth0", "00000000", "01004D0A", 100)
        + row("eth0", "00004D0A", "00000000", 0, "00FFFFFF")
    )
    assert network.default_route(table) == ("eth0", "10.77.0.1")


def test_a_default_route_may_be_on_the_link_and_may_be_missing() -> None:
    assert network.default_route(HEAD + row("eth0", "00000000", "00000000", flags="0001")) == ("eth0", "")
    assert network.default_route(HEAD + row("eth0", "00004D0A", "00000000", 0, "00FFFFFF")) is None
    assert network.default_route(HEAD + row("eth0", "00000000", "01004D0A", flags="0002")) is None
    assert network.default_route("") is None


@pytest.mark.parametrize(("text", "ports"), [("", ()), ("8080", (8080,)), (" 80, 443,", (80, 443))])
def test_ports_of_containers_are_read(text: str, ports: tuple[int, ...]) -> None:
    assert network.container_ports(text) == ports


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", "1" * 30, ",".join(map(str, range(1, 40)))])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError, match="container-ports"):
        network.container_ports(text)


@given(st.text(min_size=1, max_size=80))
def test_a_taps_name_fits_into_a_link_name(name: str) -> None:
    assert len(network.tap_name(name)) <= 15


def attributes(message: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        found[kind] = message[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def test_a_redirecting_filter_is_the_message_that_the_kernel_knows() -> None:
    message = netlink.redirect_filter(2, 9, 4, (netlink.ETH_P_ALL, [netlink.Key(0, 0, 0)]))
    length, kind = struct.unpack_from("=IH", message)
    assert (length, kind) == (len(message), 44)
    found = attributes(message[16 + 20 :])
    assert found[1] == b"u32\0"
    action = attributes(attributes(attributes(found[2])[7])[1])
    assert action[1] == b"mirred\0"
    assert struct.unpack("=IIiiiii", attributes(action[2])[2]) == (0, 0, 4, 0, 0, 1, 9)


def test_a_filter_without_target_leaves_the_packet_to_the_kernel() -> None:
    message = netlink.redirect_filter(2, None, 1, (netlink.ETH_P_IP, [netlink.Key(0x8000, 0xC000, 20)]))
    options = attributes(attributes(message[16 + 20 :])[2])
    assert 7 not in options
    assert options[5][16:24] == struct.pack(">II", 0xC000, 0x8000)
