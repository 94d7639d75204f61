# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nftables for the pod network of this host, two tables named unifleet_pods that are ours alone.

The one of family ip translates what virtual machines send out of the cluster to the host's address; between pods, on whatever host,
nothing is translated. The one of family bridge lets a machine speak with its own hardware and IPv4 address alone, by ARP too, and with
nothing but IPv4. (libvirt's clean-traffic filter does so with some sixty processes a machine; it was measured to add four seconds to a
start.) All is replaced in one transaction: there is no moment without it.
https://manpages.debian.org/bookworm/libnftables1/libnftables-json.5
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.network_tools import nft
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_LOG = logging.getLogger(__name__)
TABLE = "unifleet_pods"
FAMILIES = ("ip", "bridge")
TAP_PREFIX = "uf-"
"""What the host's ends of machines' network cards are called, to tell them from others'."""
_MULTICAST = "224.0.0.0/4"
_SOURCE_NAT, _BEFORE_OTHERS = 100, -300

Command = dict[str, Any]


def tap_name(key: str) -> str:
    """What the host's end of this machine's network card is called; interface names have 15 characters."""
    return TAP_PREFIX + hashlib.sha256(key.encode()).hexdigest()[:12]


@dataclass(frozen=True, order=True)
class Speaker:
    """A virtual machine's tap, and the addresses that it may speak with."""

    tap: str
    mac: str
    address: str


@dataclass(frozen=True)
class Rules:
    """networks: of this host's virtual machines. cluster: of all pods anywhere. speakers: this host's virtual machines."""

    networks: frozenset[str]
    cluster: frozenset[str]
    speakers: frozenset[Speaker]


def transaction(rules: Rules) -> list[Command]:
    """The commands that bring both tables to these rules, whatever they were."""
    commands: list[Command] = []
    for family in FAMILIES:
        commands += [
            _add(family, table={"name": TABLE}),
            {"delete": {"table": {"family": family, "name": TABLE}}},
            _add(family, table={"name": TABLE}),
        ]
    guests, inside = _merged(rules.networks), _merged(rules.networks | rules.cluster | {_MULTICAST})
    commands += [
        _chain("ip", "postrouting", type="nat", hook="postrouting", prio=_SOURCE_NAT, policy="accept"),
        _set("ip", "guests", "ipv4_addr", guests, flags=["interval"]),
        _set("ip", "pods", "ipv4_addr", inside, flags=["interval"]),
        _rule(
            "ip",
            "postrouting",
            _match(_field("ip", "saddr"), "@guests"),
            _match(_field("ip", "daddr"), "@pods", "!="),
            {"masquerade": None},
        ),
        _chain("bridge", "speak"),
        _set(
            "bridge",
            "speakers",
            ["ifname", "ether_addr", "ipv4_addr"],
            [{"concat": [each.tap, each.mac, each.address]} for each in sorted(rules.speakers)],
        ),
        _rule("bridge", "speak", _match(_concat(_field("ether", "saddr"), _field("ip", "saddr")), "@speakers"), {"accept": None}),
        _rule("bridge", "speak", _match(_concat(_field("arp", "saddr ether"), _field("arp", "saddr ip")), "@speakers"), {"accept": None}),
        _rule("bridge", "speak", {"drop": None}),
        _chain("bridge", "prerouting", type="filter", hook="prerouting", prio=_BEFORE_OTHERS, policy="accept"),
        _rule("bridge", "prerouting", _match({"meta": {"key": "iifname"}}, f"{TAP_PREFIX}*"), {"goto": {"target": "speak"}}),
    ]
    return commands


class PodFirewall:
    """The tables as they are on this host. Calls block, from any thread."""

    def __init__(self) -> None:
        self._applied: Optional[Rules] = None
        self._handles: frozenset[tuple[str, str, int]] = frozenset()
        self._lock = threading.Lock()

    def apply(self, rules: Rules, *, look: bool = False) -> bool:
        """Have these rules; whether they had to be written. look: do not trust what was written earlier to be there still.

        Raises UnifleetError.
        """
        with self._lock:
            if rules == self._applied and not (look and self._listed() != self._handles):
                return False
            nft(transaction(rules))
            self._applied, self._handles = rules, self._listed()
        _LOG.debug("wrote nftables' %s for %d virtual machines", TABLE, len(rules.speakers))
        return True

    def remove(self) -> bool:
        """Take both tables away; whether there was one. Raises UnifleetError."""
        with self._lock:
            there = [{"delete": {"table": {"family": family, "name": TABLE}}} for family in FAMILIES if self._list(family)]
            self._applied = None
            if there:
                nft(there)
        return bool(there)

    def _listed(self) -> frozenset[tuple[str, str, int]]:
        """The identities of the rules and chains: a table that was taken away or made anew has others, or none."""
        return frozenset(
            (family, kind, int(body["handle"]))
            for family in FAMILIES
            for entry in self._list(family)
            for kind, body in entry.items()
            if kind in ("table", "chain", "rule", "set")
        )

    def _list(self, family: str) -> Sequence[dict[str, Any]]:
        try:
            return nft([{"list": {"table": {"family": family, "name": TABLE}}}])
        except UnifleetError as error:
            if "No such file or directory" in error.message:
                return ()
            raise


def _add(family: str, **body: dict[str, Any]) -> Command:
    kind, what = next(iter(body.items()))
    return {"add": {kind: {"family": family, **what}}}


def _chain(family: str, name: str, **hook: Any) -> Command:
    return _add(family, chain={"table": TABLE, "name": name, **hook})


def _set(family: str, name: str, kind: Any, elements: Collection[Any], **more: Any) -> Command:
    filled = {"elem": list(elements)} if elements else {}
    return _add(family, set={"table": TABLE, "name": name, "type": kind, **more, **filled})


def _rule(family: str, chain: str, *expression: Any) -> Command:
    return _add(family, rule={"table": TABLE, "chain": chain, "expr": list(expression)})


def _match(left: Any, right: Any, sign: str = "==") -> dict[str, Any]:
    return {"match": {"op": sign, "left": left, "right": right}}


def _field(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def _concat(*parts: Any) -> dict[str, Any]:
    return {"concat": [{"meta": {"key": "iifname"}}, *parts]}


def _merged(networks: Collection[str]) -> list[Any]:
    """As elements of an interval set, in which no two may overlap."""
    merged = ipaddress.collapse_addresses(ipaddress.IPv4Network(each) for each in networks)
    return [{"prefix": {"addr": str(each.network_address), "len": each.prefixlen}} for each in merged]
