# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod network on a real host: libvirt makes the bridge, the kernel filters, machines' taps come and go.

A guest is stood in for by a veth pair whose one end is named as a tap is: what is sent into the other end passes the same bridge and the
same rules as a guest's packets.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench, wait_for

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Interface, Machines
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import TABLE, PodFirewall, Rules, Speaker, tap_name
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_routes import PROTOCOL, PodRoutes
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = [pytest.mark.contract, pytest.mark.only("kvm")]

NAME, NETWORK, OTHER = "ufcontract0", "10.213.7.0/24", "10.213.8.0/24"
MAC = "52:54:00:0a:0b:0c"


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def addresses(link: str) -> set[str]:
    shown = json.loads(run("ip", "-j", "address", "show", link))[0]["addr_info"]
    return {f"{each['local']}/{each['prefixlen']}" for each in shown if each["family"] == "inet"}


def tables() -> set[str]:
    return {line.strip() for line in run("nft", "list", "tables").splitlines() if TABLE in line}


def theirs() -> list[str]:
    """The routes that are not ours."""
    return [line for line in run("ip", "route", "show").splitlines() if f"proto {PROTOCOL}" not in line]


@pytest.fixture
def bridge(bench: Bench) -> Iterator[object]:
    """A bridge of its own beside whatever the host has; gone afterwards."""
    from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge

    made = PodBridge(NAME, "qemu:///system")
    yield made
    made.remove()
    assert not Path(f"/sys/class/net/{NAME}").exists()


@pytest.fixture
def firewall() -> Iterator[PodFirewall]:
    """The host's tables; gone afterwards."""
    made = PodFirewall()
    yield made
    made.remove()
    assert tables() == set()


@pytest.fixture
def routes() -> Iterator[PodRoutes]:
    """The host's routing table without ours afterwards."""
    made = PodRoutes()
    yield made
    made.remove()
    assert run("ip", "route", "show", "proto", str(PROTOCOL)) == ""


def test_the_bridge_is_made_once_and_found_again_and_follows_the_network(bridge: object) -> None:
    from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge

    assert isinstance(bridge, PodBridge)
    assert bridge.ensure([NETWORK]) is True
    index = json.loads(run("ip", "-j", "link", "show", NAME))[0]["ifindex"]
    assert PodBridge(NAME, "qemu:///system").ensure([NETWORK]) is False
    assert json.loads(run("ip", "-j", "link", "show", NAME))[0]["ifindex"] == index
    assert addresses(NAME) == {"10.213.7.1/24"}
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1"
    assert bridge.ensure([OTHER, NETWORK]) is True
    assert addresses(NAME) == {"10.213.7.1/24", "10.213.8.1/24"}
    assert bridge.remove() is True
    assert bridge.remove() is False


def test_what_is_somebody_elses_is_told_of_and_not_touched(bridge: object) -> None:
    run("ip", "link", "add", NAME, "type", "bridge")
    try:
        with pytest.raises(UnifleetError, match="not ours"):
            bridge.ensure([NETWORK])  # type: ignore[attr-defined]
        assert bridge.remove() is False  # type: ignore[attr-defined]
        assert addresses(NAME) == set()
    finally:
        run("ip", "link", "del", NAME)
    import libvirt

    foreign = libvirt.open("qemu:///system").networkDefineXML(f"<network><name>{NAME}</name><bridge name='ufforeign0'/></network>")
    try:
        with pytest.raises(UnifleetError, match="not ours"):
            bridge.ensure([NETWORK])  # type: ignore[attr-defined]
        with pytest.raises(UnifleetError, match="not ours"):
            bridge.remove()  # type: ignore[attr-defined]
    finally:
        foreign.undefine()


def test_a_machines_tap_is_on_the_bridge_and_goes_with_its_hypervisor_process(bench: Bench, machines: Machines, bridge: object) -> None:
    bridge.ensure([NETWORK])  # type: ignore[attr-defined]
    spec = bench.spec(bench.runs())
    tap = tap_name(spec.key)
    spec = replace(spec, interface=Interface("10.213.7.2/24", "10.213.7.1", NAME, MAC, tap))
    machines.prepare(spec)
    machines.start(spec.key)
    link = Path("/sys/class/net") / tap
    wait_for("the tap", (link / "master").exists)
    assert (link / "master").resolve().name == NAME
    assert (link / "address").read_text(encoding="ascii").strip().endswith(MAC[3:])
    run("virsh", "net-destroy", NAME)
    assert not (link / "master").exists()
    assert bridge.ensure([NETWORK]) is True  # type: ignore[attr-defined]
    assert (link / "master").resolve().name == NAME
    pid = int(Path(f"/run/libvirt/qemu/unifleet-{spec.key}.pid").read_text(encoding="ascii"))
    os.kill(pid, 9)
    wait_for("the tap to go", lambda: not link.exists())


def test_a_bridge_is_made_even_when_all_firewall_rules_were_flushed(bridge: object) -> None:
    bridge.ensure([NETWORK])  # type: ignore[attr-defined]
    bridge.remove()  # type: ignore[attr-defined]
    run("nft", "flush", "ruleset")
    assert bridge.ensure([NETWORK]) is True  # type: ignore[attr-defined]
    assert addresses(NAME) == {"10.213.7.1/24"}
    subprocess.run(["systemctl", "restart", "libvirtd"], check=True)


@contextlib.contextmanager
def wire(tap: str) -> Iterator[socket.socket]:
    """A cable whose one end is on the bridge under a tap's name; the socket is in the other end."""
    run("ip", "link", "add", tap, "type", "veth", "peer", "name", "ufwire")
    try:
        for link in (tap, "ufwire"):
            run("sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1")
        run("ip", "link", "set", "dev", "ufwire", "arp", "off", "up")
        run("ip", "link", "set", "dev", tap, "master", NAME, "up")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as end:
            end.bind(("ufwire", 0))
            yield end
    finally:
        run("ip", "link", "del", tap)


def asks(end: socket.socket, mac: str, address: str) -> bool:
    """Whether the host answers an ARP question that comes from these addresses."""
    source = bytes.fromhex(mac.replace(":", ""))
    packed, gateway = ipaddress.ip_address(address).packed, ipaddress.ip_address("10.213.7.1").packed
    question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + source + packed + bytes(6) + gateway
    end.settimeout(0.5)
    for _attempt in range(3):
        end.send(b"\xff" * 6 + source + b"\x08\x06" + question)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            try:
                frame = end.recv(2048)
            except TimeoutError:
                break
            if frame[:6] == source and frame[20:22] == b"\x00\x02" and frame[28:32] == gateway:
                return True
    return False


def test_a_machine_is_heard_under_its_own_addresses_and_no_others(bridge: object, firewall: PodFirewall) -> None:
    bridge.ensure([NETWORK])  # type: ignore[attr-defined]
    mine, other = Speaker("uf-contract0001", MAC, "10.213.7.2"), Speaker("uf-contract0002", "52:54:00:0a:0b:0d", "10.213.7.3")
    rules = Rules(frozenset({NETWORK}), frozenset(), frozenset({mine, other}))
    assert firewall.apply(rules) is True
    assert firewall.apply(rules) is False
    with wire(mine.tap) as end:
        wait_for("the bridge to forward", lambda: asks(end, MAC, "10.213.7.2"))
        assert not asks(end, MAC, "10.213.7.3")
        assert not asks(end, other.mac, other.address)
        assert not asks(end, other.mac, "10.213.7.2")
        assert firewall.apply(replace(rules, speakers=frozenset({other}))) is True
        assert not asks(end, MAC, "10.213.7.2")
        assert PodFirewall().apply(rules) is True
        assert asks(end, MAC, "10.213.7.2")


def test_rules_that_somebody_took_away_come_back(firewall: PodFirewall) -> None:
    rules = Rules(frozenset({NETWORK}), frozenset({OTHER}), frozenset())
    firewall.apply(rules)
    assert len(tables()) == 2
    for take in (("delete", "table", "bridge", TABLE), ("flush", "chain", "ip", TABLE, "postrouting"), ("flush", "ruleset")):
        run("nft", *take)
        assert firewall.apply(rules) is False
        assert firewall.apply(rules, look=True) is True
        assert firewall.apply(rules, look=True) is False
        assert "masquerade" in run("nft", "list", "table", "ip", TABLE)
    subprocess.run(["systemctl", "restart", "libvirtd"], check=True)


def test_routes_of_others_and_of_the_host_are_left_alone(routes: PodRoutes) -> None:
    run("ip", "link", "add", "ufroute0", "type", "bridge")
    try:
        run("ip", "address", "add", "10.213.1.1/24", "dev", "ufroute0")
        run("ip", "link", "set", "ufroute0", "up")
        run("ip", "route", "add", "10.213.9.0/24", "via", "10.213.1.9")
        before = theirs()
        wanted = {
            "10.213.7.0/24": "10.213.1.2",
            "10.213.8.0/24": "10.213.1.3",
            "10.213.9.0/24": "10.213.1.4",
            "10.213.6.0/24": "203.0.113.9",
        }
        troubles = routes.apply(wanted)
        assert list(troubles) == ["10.213.6.0/24"]
        ours = run("ip", "route", "show", "proto", str(PROTOCOL))
        assert [line.split()[:3] for line in ours.splitlines()] == [
            ["10.213.7.0/24", "via", "10.213.1.2"],
            ["10.213.8.0/24", "via", "10.213.1.3"],
        ]
        assert routes.apply({"10.213.7.0/24": "10.213.1.5"}) == {}
        assert run("ip", "route", "show", "proto", str(PROTOCOL)).split()[:3] == ["10.213.7.0/24", "via", "10.213.1.5"]
        assert routes.apply({}) == {}
        assert theirs() == before
    finally:
        run("ip", "link", "del", "ufroute0")
