# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which name servers a virtual machine is told: what its pod's dnsPolicy and dnsConfig say, as a kubelet's resolv.conf would name them.

Kubernetes pkg/kubelet/network/dns/dns.go: at most three; ClusterFirst without a cluster DNS falls back to Default with the event
MissingClusterDNS. A process shares its host's network and so its resolv.conf, loopback resolvers included, and none of this is for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST = 3
RESOLV_CONF = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The host's name servers; the second file has those behind systemd-resolved, whose own address is a loopback one."""


@dataclass(frozen=True)
class NameServers:
    """The servers in order, and a sentence for an event when they are not what was asked for ("" when they are)."""

    addresses: tuple[str, ...]
    trouble: str = ""


def host_servers(files: Iterable[Path] = RESOLV_CONF) -> tuple[str, ...]:
    """The IPv4 name servers of this host that are reachable from elsewhere too: of the first file that names one."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = servers_in(text)
        if found:
            return found
    return ()


def servers_in(resolv_conf: str) -> tuple[str, ...]:
    """The IPv4 name servers of a resolv.conf(5) that are no loopback addresses; what cannot be understood is skipped."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _usable(words[1]):
            found.append(words[1])
    return tuple(dict.fromkeys(found))


def choose(policy: str, config: Sequence[str], cluster: Sequence[str], host: Sequence[str]) -> NameServers:
    """policy: spec.dnsPolicy. config: spec.dnsConfig.nameservers. cluster: the cluster's DNS. host: the host's own servers."""
    trouble = ""
    if policy == "None":
        base: Sequence[str] = ()
    elif policy == "Default":
        base = host
    else:
        base = cluster or host
        if not cluster:
            trouble = 'no cluster DNS is configured on this node, so the pod gets the name servers of dnsPolicy "Default"'
    asked = tuple(dict.fromkeys([*base, *config]))
    every = tuple(address for address in asked if _usable(address))
    if every != asked:
        trouble = f"virtual machines speak IPv4 and have a loopback of their own: {', '.join(set(asked) - set(every))} is left out"
    if not every:
        trouble = "there is no name server to give to the pod: the host's own are loopback addresses, or it has none"
    elif len(every) > MOST:
        trouble = f"only the first {MOST} of the pod's {len(every)} name servers are used"
    return NameServers(every[:MOST], trouble)


def _usable(address: str) -> bool:
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified)
