# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other nodes as this one sees them: their pod networks, and routes to those that are on this host's own network.

A node may list the others by the Node authorizer's role up to Kubernetes 1.31 and by the role unifleet:node-reader of ours beyond
(AuthorizeNodeWithSelectors). Where it may not, that is said once, asked again now and then, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from ansible_collections.unifleet.hybrid.plugins.host.daemon.together import run_together
from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.network")
NODES = "/api/v1/nodes"
_FORBIDDEN_SECONDS = (2.0, 300.0)
_LOOK_SECONDS, _SETTLE_SECONDS = 60.0, 0.2

Tell = Callable[[str, str, str], None]


class Routes(Protocol):
    """What this file needs of machines/pod_routes.PodRoutes."""

    def apply(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Have these routes; network -> why there is none."""


@dataclass(frozen=True)
class Peer:
    """Another node: its IPv4 address, "" while it has none, and the IPv4 networks of its pods."""

    address: str
    networks: tuple[str, ...]


def peer_of(node: Mapping[str, Any]) -> Peer:
    """The part of a Node that matters here; what is no IPv4 network or address is left out."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR")]
    addresses = [entry.get("address") for entry in status.get("addresses") or () if entry.get("type") == "InternalIP"]
    networks = tuple(str(network) for network in map(_network, cidrs) if network is not None)
    return Peer(next((str(address) for address in addresses if _is_address(address)), ""), networks)


def wanted_routes(peers: Iterable[Peer]) -> dict[str, str]:
    """Network -> the address of the node that has it."""
    return {network: peer.address for peer in peers for network in peer.networks if peer.address}


class PeerNodes:
    """Follows the nodes for one of them. api: a KubeApi. routes: None where this host's routes are not ours to keep.

    tell: emits events about the node. changed: called with the networks of the others' pods when a node changed.
    """

    def __init__(
        self,
        api: Any,
        node_name: str,
        routes: Optional[Routes],
        *,
        tell: Optional[Tell] = None,
        changed: Callable[[frozenset[str]], None] = lambda _networks: None,
    ) -> None:
        self._api = api
        self._node_name = node_name
        self._routes = routes
        self._tell: Tell = tell or (lambda _type, _reason, _message: None)
        self._changed = changed
        self._peers: dict[str, Peer] = {}
        self._synced = False
        self._told: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def networks(self) -> frozenset[str]:
        """The networks of the other nodes' pods."""
        return frozenset(network for peer in self._peers.values() for network in peer.networks)

    def look(self) -> None:
        """Somebody may have changed the host's routes."""
        self._wake.set()

    async def run(self) -> None:
        """Follow them until cancelled; the routes stay."""
        await run_together([self._follow(), self._hold()])

    async def _follow(self) -> None:
        await self._until_allowed()
        async for event in self._api.watch(NODES):
            before = self._peers
            if event.type == "SYNCED":
                self._peers = {node["metadata"]["name"]: peer_of(node) for node in event.items}
                self._synced = True
            elif event.type == "DELETED":
                self._peers = {name: peer for name, peer in before.items() if name != event.object["metadata"]["name"]}
            else:
                self._peers = {**before, event.object["metadata"]["name"]: peer_of(event.object)}
            self._peers.pop(self._node_name, None)
            if self._peers != before or event.type == "SYNCED":
                self._wake.set()
                self._changed(self.networks)

    async def _until_allowed(self) -> None:
        # A control plane that is being made gives the permission a few seconds after it answers.
        backoff = Backoff(*_FORBIDDEN_SECONDS)
        while True:
            try:
                await self._api.get(NODES, {"limit": "1"})
            except ApiError as error:
                if error.status != 403:
                    return  # the watch knows what to do about all else
                self._once(
                    "the API server does not let this node list the others, so it keeps no routes to their pods: see unifleet:node-reader"
                )
                await asyncio.sleep(backoff.next_delay())
            else:
                return

    async def _hold(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
                await asyncio.sleep(_SETTLE_SECONDS)
            self._wake.clear()
            if self._routes is None or not self._synced:
                continue
            wanted = wanted_routes(self._peers.values())
            try:
                troubles = await asyncio.get_running_loop().run_in_executor(None, self._routes.apply, wanted)
            except (UnifleetError, OSError) as error:
                self._once(f"the routes to other nodes' pods cannot be kept: {error}")
                continue
            for name, peer in self._peers.items():
                for network in peer.networks:
                    if network in troubles:
                        self._once(f"pods of node {name} ({network}) cannot be reached from here: {troubles[network]}")

    def _once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            LOG.warning("%s", message)
            self._tell("Warning", "PodNetworkUnreachable", message)


def _network(cidr: object) -> Optional[ipaddress.IPv4Network]:
    try:
        return ipaddress.IPv4Network(str(cidr))
    except ValueError:
        return None


def _is_address(address: object) -> bool:
    try:
        ipaddress.IPv4Address(str(address))
    except ValueError:
        return False
    return True
