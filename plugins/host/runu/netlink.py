# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The little of rtnetlink that a pod's network needs: a queue discipline, filters, a neighbour. pyroute2 takes 100 ms to import.

Sources: linux/rtnetlink.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h; the u32 classifier with the mirred action is what every kernel with
traffic control has (matchall and gact are modules that many lack).
"""

from __future__ import annotations

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

INGRESS = 0xFFFFFFF1
INGRESS_HANDLE = 0xFFFF0000
ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
_NEWNEIGH, _NEWQDISC, _DELQDISC, _NEWFILTER = 28, 36, 37, 44
_REQUEST, _ACK, _REPLACE, _CREATE, _EXCL = 0x1, 0x4, 0x100, 0x400, 0x200
_KIND, _OPTIONS = 1, 2
_U32_SEL, _U32_ACT = 5, 7
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARMS = 2
_OK, _STOLEN = 0, 4
_EGRESS_REDIRECT, _EGRESS_MIRROR = 1, 2
_TERMINAL = 1
_PERMANENT = 0x80
_NEIGHBOUR, _HARDWARE = 1, 2


class Key:
    """One comparison of a u32 filter: 32 bits at offset in the packet, counted from its network header."""

    __slots__ = ("mask", "offset", "value")

    def __init__(self, value: int, mask: int, offset: int) -> None:
        self.value = value
        self.mask = mask
        self.offset = offset


def attribute(kind: int, content: bytes) -> bytes:
    """One netlink attribute, padded."""
    length = 4 + len(content)
    return struct.pack("=HH", length, kind) + content + b"\0" * (-length % 4)


def redirect_filter(link: int, target: Optional[int], priority: int, match: tuple[int, list[Key]], copy: bool = False) -> bytes:
    """The message that adds a filter to a link's ingress: packets that match go out through target; without a target the kernel keeps them.

    match: (protocol, keys), all of which must hold. copy: the kernel gets them too.
    """
    protocol, keys = match
    selector = struct.pack("=BBBxHHhhI", _TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    for key in keys:
        selector += struct.pack(">II", key.mask, key.value) + struct.pack("=ii", key.offset, 0)
    options = attribute(_U32_SEL, selector)
    if target is not None:
        parameters = struct.pack("=IIiiiii", 0, 0, _OK if copy else _STOLEN, 0, 0, _EGRESS_MIRROR if copy else _EGRESS_REDIRECT, target)
        action = attribute(_ACT_KIND, b"mirred\0") + attribute(_ACT_OPTIONS, attribute(_MIRRED_PARMS, parameters))
        options += attribute(_U32_ACT, attribute(1, action))
    info = priority << 16 | _socket.htons(protocol)
    body = struct.pack("=BxHiIII", 0, 0, link, 0, INGRESS_HANDLE, info)
    return _message(_NEWFILTER, _CREATE | _EXCL, body + attribute(_KIND, b"u32\0") + attribute(_OPTIONS, options))


def ingress(link: int, remove: bool = False) -> bytes:
    """The message that gives a link an ingress queue discipline, or takes it away with its filters."""
    body = struct.pack("=BxHiIII", 0, 0, link, INGRESS_HANDLE, INGRESS, 0) + attribute(_KIND, b"ingress\0")
    return _message(_DELQDISC if remove else _NEWQDISC, 0 if remove else _CREATE | _EXCL, body)


def neighbour(link: int, address: bytes, mac: bytes) -> bytes:
    """The message that says for good which MAC an IPv4 address has behind a link."""
    body = struct.pack("=BxxxiHBB", _socket.AF_INET, link, _PERMANENT, 0, 0)
    return _message(_NEWNEIGH, _CREATE | _REPLACE, body + attribute(_NEIGHBOUR, address) + attribute(_HARDWARE, mac))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body


class Route:
    """A netlink socket of the network namespace that this process is in."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def ask(self, message: bytes, tolerated: tuple[int, ...] = ()) -> None:
        """Send a message and wait for the kernel's answer. Raises OSError."""
        self._socket.send(message)
        answer = self._socket.recv(65536)
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code and code not in tolerated:
            raise OSError(code, f"rtnetlink: {os.strerror(code)}")
