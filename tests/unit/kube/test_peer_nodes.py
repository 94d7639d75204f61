# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes follow the nodes: who comes, goes, moves, is out of reach, and what happens where nodes may not see each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kube import peer_nodes
from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kube.peer_nodes import Peer, PeerNodes, peer_of
from ansible_collections.unifleet.hybrid.plugins.host.kube.watch import WatchEvent


def node(name: str, cidr: str, address: str = "") -> dict[str, Any]:
    addresses = [{"type": "Hostname", "address": name}, *([{"type": "InternalIP", "address": address}] if address else [])]
    return {"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}, "status": {"addresses": addresses}}


class Api:
    """The nodes as the API server would tell of them."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes = nodes
        self.feed: asyncio.Queue[WatchEvent] = asyncio.Queue()
        self.forbidden = False
        self.asked = 0

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        self.asked += 1
        if self.forbidden:
            raise ApiError("GET /api/v1/nodes: 403 Forbidden", 403, "Forbidden")
        return {"items": []}

    async def watch(self, path: str) -> AsyncIterator[WatchEvent]:
        yield WatchEvent("SYNCED", {}, self.nodes)
        while True:
            yield await self.feed.get()


class Scene:
    """One agent among others."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.api = Api(*nodes)
        self.routes: Any = None
        self.unreachable: dict[str, str] = {}
        self.said: list[str] = []
        self.networks: frozenset[str] = frozenset()
        self.peers = PeerNodes(self.api, "me", self, tell=lambda _type, _reason, message: self.said.append(message), changed=self.see)

    def see(self, networks: frozenset[str]) -> None:
        self.networks = networks

    def apply(self, wanted: Mapping[str, str]) -> dict[str, str]:
        self.routes = dict(wanted)
        return {network: why for network, why in self.unreachable.items() if network in wanted}

    async def __aenter__(self) -> Scene:
        self.task = asyncio.create_task(self.peers.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, check: Any) -> None:
        for _number in range(500):
            if check():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"this did not come true in time; the routes are {self.routes}, said was {self.said}")


ME = node("me", "10.0.0.0/24", "192.0.2.1")


async def test_routes_follow_the_nodes_that_come_change_and_go() -> None:
    async with Scene(ME, node("a", "10.0.1.0/24", "192.0.2.2")) as scene:
        await scene.until(lambda: scene.routes == {"10.0.1.0/24": "192.0.2.2"})
        assert scene.networks == {"10.0.1.0/24"}
        scene.api.feed.put_nowait(WatchEvent("ADDED", node("b", "10.0.2.0/24", "192.0.2.3")))
        scene.api.feed.put_nowait(WatchEvent("MODIFIED", node("a", "10.0.1.0/24", "192.0.2.9")))
        await scene.until(lambda: scene.routes == {"10.0.1.0/24": "192.0.2.9", "10.0.2.0/24": "192.0.2.3"})
        scene.api.feed.put_nowait(WatchEvent("DELETED", node("a", "10.0.1.0/24", "192.0.2.9")))
        await scene.until(lambda: scene.routes == {"10.0.2.0/24": "192.0.2.3"})
        assert scene.networks == {"10.0.2.0/24"}


async def test_no_route_is_touched_before_the_nodes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_nodes, "_LOOK_SECONDS", 0.02)
    scene = Scene()
    scene.api.forbidden = True
    async with scene:
        await asyncio.sleep(0.2)
    assert scene.routes is None


async def test_a_node_that_may_not_see_the_others_says_so_once_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_nodes, "_FORBIDDEN_SECONDS", (0.02, 0.02))
    scene = Scene(ME, node("a", "10.0.1.0/24", "192.0.2.2"))
    scene.api.forbidden = True
    async with scene:
        await scene.until(lambda: scene.api.asked > 3)
        assert len(scene.said) == 1
        assert "unifleet:node-reader" in scene.said[0]
        scene.api.forbidden = False
        await scene.until(lambda: scene.routes == {"10.0.1.0/24": "192.0.2.2"})


async def test_a_permission_that_comes_seconds_later_is_not_waited_for_in_minutes() -> None:
    scene = Scene(ME, node("a", "10.0.1.0/24", "192.0.2.2"))
    scene.api.forbidden = True
    async with scene:
        await scene.until(lambda: scene.said)
        scene.api.forbidden = False
        await scene.until(lambda: scene.routes == {"10.0.1.0/24": "192.0.2.2"})


async def test_a_node_out_of_reach_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_nodes, "_LOOK_SECONDS", 0.02)
    scene = Scene(ME, node("far", "10.0.1.0/24", "198.51.100.1"))
    scene.unreachable = {"10.0.1.0/24": "198.51.100.1 is behind the router 192.0.2.254"}
    async with scene:
        await scene.until(lambda: scene.said)
        await asyncio.sleep(0.2)
    assert scene.said == ["pods of node far (10.0.1.0/24) cannot be reached from here: 198.51.100.1 is behind the router 192.0.2.254"]


@pytest.mark.parametrize(
    ("raw", "peer"),
    [
        ({}, Peer("", ())),
        ({"spec": {}, "status": {"addresses": None}}, Peer("", ())),
        (node("a", "fd00::/64", "2001:db8::1"), Peer("", ())),
        (node("a", "nonsense", "192.0.2.1; reboot"), Peer("", ())),
        ({"spec": {"podCIDR": "10.0.1.0/24"}}, Peer("", ("10.0.1.0/24",))),
        ({**ME, "spec": {"podCIDRs": ["fd00::/64", "10.0.1.0/24"]}}, Peer("192.0.2.1", ("10.0.1.0/24",))),
    ],
)
def test_what_is_no_ipv4_network_or_address_of_a_node_is_left_out(raw: dict[str, Any], peer: Peer) -> None:
    assert peer_of(raw) == peer
