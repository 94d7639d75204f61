# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes to the pods of other nodes through the nodes themselves, where those are on this host's own network ("host-gw").

Ours are the routes of one protocol number; no other is ever changed or removed, and a network that somebody else has a route to already is
left to them. https://man7.org/linux/man-pages/man8/ip-route.8.html
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.unifleet.hybrid.plugins.host.machines.network_tools import ip
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_LOG = logging.getLogger(__name__)
PROTOCOL = 117
"""Of the numbers that are free for the user in /etc/iproute2/rt_protos, and taken by no routing daemon there."""


@dataclass(frozen=True)
class Change:
    """What to do about one network: via is the wanted gateway, "" to remove the route."""

    network: str
    via: str


def plan(wanted: Mapping[str, str], ours: Mapping[str, str]) -> list[Change]:
    """From the routes of ours that there are to the wanted ones; both network -> gateway. Removals first."""
    gone = [Change(network, "") for network in sorted(ours) if network not in wanted]
    return gone + [Change(network, via) for network, via in sorted(wanted.items()) if ours.get(network) != via]


class PodRoutes:
    """The routes of this host's main table. Calls block."""

    def apply(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Have these routes (network -> address of its node) and no other of ours, save where somebody else has a route.

        Returns network -> why there is no route to it. Raises UnifleetError when the host cannot be asked.
        """
        ours, others = self._table()
        troubles: dict[str, str] = {}
        possible: dict[str, str] = {}
        for network, via in wanted.items():
            # The kernel takes a route away when its next hop is on no network of this host any more: one that is there needs no question.
            trouble = "" if network in others or ours.get(network) == via else self._next_hop(via)
            if trouble:
                troubles[network] = trouble
            elif network not in others:
                possible[network] = via
        for change in plan(possible, ours):
            try:
                self._carry_out(change)
            except UnifleetError as error:
                troubles[change.network] = error.message
        return troubles

    def remove(self) -> bool:
        """Take all of ours away; whether there was one. Raises UnifleetError."""
        ours, _others = self._table()
        for network in ours:
            self._carry_out(Change(network, ""))
        return bool(ours)

    def _table(self) -> tuple[dict[str, str], set[str]]:
        """Our routes, network -> gateway, and the networks that others have one to."""
        ours: dict[str, str] = {}
        others: set[str] = set()
        for route in ip("-4", "route", "show", "table", "main"):
            network = route["dst"] if "/" in route["dst"] else f"{route['dst']}/32"
            if str(route.get("protocol")) == str(PROTOCOL):
                ours[network] = route.get("gateway", "")
            else:
                others.add(network)
        return ours, others

    def _next_hop(self, address: str) -> str:
        return unreachable(address)

    def _carry_out(self, change: Change) -> None:
        if change.via:
            ip("-4", "route", "replace", change.network, "via", change.via, "proto", str(PROTOCOL))
        else:
            ip("-4", "route", "del", change.network, "proto", str(PROTOCOL))
        _LOG.info("route to %s %s", change.network, f"through {change.via}" if change.via else "removed")


def unreachable(address: str) -> str:
    """Why this address is no next hop; "" when it is on a network of this host."""
    try:
        answer = ip("-4", "route", "get", address)
    except UnifleetError as error:
        return f"{address} cannot be reached: {error.message}"
    if not answer:
        return f"{address} cannot be reached"
    if answer[0].get("type") == "local":
        return f"{address} is this host's own"
    return f"{address} is behind the router {answer[0]['gateway']}" if "gateway" in answer[0] else ""
