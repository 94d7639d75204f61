# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod's localhost reaches the guest: for `kubectl port-forward`, which dials 127.0.0.1 inside the pod, and for the pod's containers.

    127.0.0.1 -> 127.0.0.1:80 on lo, no socket here     becomes     192.0.0.8 -> POD:80 out of the tap
    POD:80 -> 192.0.0.8 in from the tap                 becomes     127.0.0.1:80 -> 127.0.0.1 on lo

Two stateless rules; no process, no NAT, nothing to keep per connection. A connection is between the caller's own socket and the guest's, so
that half-closes, windows and resets are theirs, and a port on which neither a container nor the guest listens is refused, by the guest: a
proxy would have to accept first, and who waits for a sidecar's port to open would be told that it is open. A container that listens on a
port has it, for its socket is found first; and the guest reaches what containers serve on localhost at 192.0.0.8, by the same rules.

192.0.0.8 is the IPv4 dummy address (RFC 7600): nobody has it, and stacks send to it through their gateway as to any other (lwIP would ask
for a link-local one on the link). Frames that come back are for the gateway's MAC, which is nobody's here: hence the packet type.
Linux 5.3 is enough; nft_socket, nft_dup_ipv4 and nft_fwd_netdev are modules of every distribution.
"""

from __future__ import annotations

import _socket
import errno

from ansible_collections.unifleet.hybrid.plugins.host.runu import netlink, nftables

GUESTS_PEER = "192.0.0.8"
"""Who the guest believes to talk to."""
TABLE = "unifleet_localhost"
_LO = 1
"""lo's number in every namespace."""
_TCP = 6
_FROM_GUEST = 0x756E6966
_TO_THIS_HOST = 0
_RAW = -300
_ADDRESSES = 12
"""Where the source and destination are in an IPv4 header."""
_NOT_THERE = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_SETTINGS = ("route_localnet", "accept_local")


def tables(address: bytes, tap: int, tap_name: str) -> list[nftables.Table]:
    """The rules. address: the pod's, of 4 bytes; tap: its link's number."""
    localhost, peer = _socket.inet_aton("127.0.0.1"), _socket.inet_aton(GUESTS_PEER)
    elsewhere = nftables.meta(nftables.LINK, _LO, differs=True) + nftables.verdict(nftables.ACCEPT)
    taken = nftables.has_socket() + nftables.verdict(nftables.ACCEPT)
    to_guest = (
        nftables.meta(nftables.MARK, _FROM_GUEST, differs=True)  # what came from there and finds no socket is refused by the kernel
        + nftables.meta(nftables.PROTOCOL, _TCP)
        + nftables.payload(nftables.NETWORK_LAYER, _ADDRESSES, localhost + localhost)
        + nftables.set_payload(nftables.NETWORK_LAYER, _ADDRESSES, peer + address)
        + nftables.duplicate(tap, address)
        + nftables.verdict(nftables.DROP)
    )
    from_guest = (
        nftables.meta(nftables.PROTOCOL, _TCP)
        + nftables.payload(nftables.NETWORK_LAYER, _ADDRESSES, address + peer)
        + nftables.set_payload(nftables.NETWORK_LAYER, _ADDRESSES, localhost + localhost)
        + nftables.set_meta(nftables.MARK, _FROM_GUEST)
        + nftables.set_meta(nftables.PACKET_TYPE, _TO_THIS_HOST)
        + nftables.set_payload(nftables.LINK_LAYER, 0, bytes(6))
        + nftables.forward(_LO)
    )
    return [
        nftables.Table(nftables.IPV4, TABLE, [elsewhere, taken, to_guest], priority=_RAW),
        nftables.Table(nftables.NETDEV, TABLE, [from_guest], policy=nftables.DROP, link=tap_name),
    ]


def attach(address: str, mac: str, tap_name: str) -> None:
    """Make the pod's localhost reach the guest behind a tap, in this process's network namespace. Raises OSError, having set no rules."""
    packed, tap = _socket.inet_aton(address), _socket.if_nametoindex(tap_name)
    for name in _SETTINGS:  # what comes from the guest arrives on lo without the route that lo's own packets carry along
        with open(f"/proc/sys/net/ipv4/conf/lo/{name}", "w", encoding="utf-8") as file:
            file.write("1")
    route = netlink.Route()
    try:
        route.ask(netlink.neighbour(tap, packed, bytes.fromhex(mac.replace(":", ""))))
    finally:
        route.close()
    wanted = [message for table in tables(packed, tap, tap_name) for message in table.messages()]
    try:
        nftables.ask(wanted)
    except FileExistsError:  # of a unikernel of this pod that nobody deleted
        detach()
        nftables.ask(wanted)


def detach() -> None:
    """Let the pod's localhost be its containers' alone. Raises OSError."""
    wanted = [nftables.removal(family, TABLE) for family in (nftables.IPV4, nftables.NETDEV)]
    try:
        nftables.ask(wanted)  # both at once: the kernel waits for all its processors each time
    except OSError:
        for message in wanted:
            try:
                nftables.ask([message])
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
