# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The little of nf_tables that a pod's localhost needs, written as the kernel reads it: starting `nft` would cost a create 10 ms.

Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. Numbers are in network byte order; values in registers are as the kernel
holds them, addresses in network byte order, marks and link numbers in the machine's own.
"""

from __future__ import annotations

import _socket
import os
import struct

from ansible_collections.unifleet.hybrid.plugins.host.runu.netlink import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

IPV4, NETDEV = 2, 5
PREROUTING, INGRESS = 0, 0
DROP, ACCEPT = 0, 1
MARK, LINK, PROTOCOL, PACKET_TYPE = 3, 4, 16, 19
"""Keys of meta()."""
LINK_LAYER, NETWORK_LAYER = 0, 1
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_NESTED = 0x8000
_VERDICT_REGISTER, _REGISTER, _OTHER_REGISTER = 0, 1, 2
_EQUAL, _DIFFERENT, _AT_MOST = 0, 1, 3
_INET_CHECKSUM, _CHECKSUM_AT, _PSEUDO_HEADER = 1, 10, 1


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _nested(kind: int, content: bytes) -> bytes:
    return attribute(kind | _NESTED, content)


def _expression(name: str, content: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, content))


def _load(value: bytes, register: int = _REGISTER) -> bytes:
    return _expression("immediate", _number(1, register) + _nested(2, attribute(1, value)))


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", _number(1, _REGISTER) + _number(2, operation) + _nested(3, attribute(1, value)))


def meta(key: int, value: int, differs: bool = False) -> bytes:
    """Go on when what the kernel knows of the packet is that value (or is not)."""
    packed = struct.pack("=B", value) if key == PROTOCOL else struct.pack("=I", value)
    return _expression("meta", _number(1, _REGISTER) + _number(2, key)) + _compare(packed, _DIFFERENT if differs else _EQUAL)


def set_meta(key: int, value: int) -> bytes:
    """Note something with the packet."""
    packed = struct.pack("=B3x", value) if key == PACKET_TYPE else struct.pack("=I", value)
    return _load(packed) + _expression("meta", _number(3, _REGISTER) + _number(2, key))


def has_socket() -> bytes:
    """Go on when a socket of this namespace takes the packet: a connection's in whatever state, or a listener's."""
    return _expression("socket", _number(1, 0) + _number(2, _REGISTER)) + _compare(b"\1", _AT_MOST)  # transparent or not: there is one


def payload(base: int, offset: int, value: bytes) -> bytes:
    """Go on when these bytes are there in the packet."""
    fields = _number(1, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, len(value))
    return _expression("payload", fields) + _compare(value)


def set_payload(base: int, offset: int, value: bytes) -> bytes:
    """Write bytes into the packet; addresses in an IPv4 header with what the checksums make of them."""
    fields = _number(5, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, len(value))
    if base == NETWORK_LAYER:
        fields += _number(6, _INET_CHECKSUM) + _number(7, _CHECKSUM_AT) + _number(8, _PSEUDO_HEADER)
    else:
        fields += _number(6, 0) + _number(7, 0)
    return _load(value) + _expression("payload", fields)


def duplicate(link: int, gateway: bytes) -> bytes:
    """Send a copy of an IPv4 packet out of a link."""
    registers = _number(1, _REGISTER) + _number(2, _OTHER_REGISTER)
    return _load(gateway) + _load(struct.pack("=I", link), _OTHER_REGISTER) + _expression("dup", registers)


def forward(link: int) -> bytes:
    """Send a frame out of another link; the rule's last word."""
    return _load(struct.pack("=I", link)) + _expression("fwd", _number(1, _REGISTER))


def verdict(code: int) -> bytes:
    """The rule's last word: ACCEPT or DROP."""
    return _expression("immediate", _number(1, _VERDICT_REGISTER) + _nested(2, _nested(2, _number(1, code))))


class Table:
    """A table with one chain, seen by the kernel where hook says: PREROUTING of IPV4, or INGRESS of a link.

    priority: where among others of the hook; policy: what becomes of packets on which no rule has the last word.
    """

    __slots__ = ("family", "link", "name", "policy", "priority", "rules")

    def __init__(self, family: int, name: str, rules: list[bytes], *, priority: int = 0, policy: int = ACCEPT, link: str = "") -> None:
        self.family = family
        self.name = name
        self.rules = rules
        self.priority = priority
        self.policy = policy
        self.link = link

    def messages(self) -> list[tuple[int, int, int, bytes]]:
        """(kind, flags, family, body) of each message that makes it; it must not be there yet."""
        made = [(_NEW_TABLE, _CREATE | _EXCL, self.family, _text(1, self.name))]
        hook = _number(1, PREROUTING) + _number(2, self.priority) + (_text(3, self.link) if self.link else b"")
        chain = _text(1, self.name) + _text(3, "packets") + _nested(4, hook) + _number(5, self.policy) + _text(7, "filter")
        made.append((_NEW_CHAIN, _CREATE, self.family, chain))
        for rule in self.rules:
            body = _text(1, self.name) + _text(2, "packets") + _nested(4, rule)
            made.append((_NEW_RULE, _CREATE | _APPEND, self.family, body))
        return made


def removal(family: int, name: str) -> tuple[int, int, int, bytes]:
    """The message that takes a table away, with all that is in it."""
    return (_DELETE_TABLE, 0, family, _text(1, name))


def batch(messages: list[tuple[int, int, int, bytes]]) -> bytes:
    """Messages that the kernel follows all or none of."""

    def message(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
        return struct.pack("=IHHII", 20 + len(body), kind, _REQUEST | flags, 1, 0) + struct.pack(">BBH", family, 0, resource) + body

    found = message(_BATCH_BEGIN, 0, 0, _SUBSYSTEM, b"")
    for kind, flags, family, body in messages:
        found += message(_SUBSYSTEM << 8 | kind, flags | _ACK, family, 0, body)
    return found + message(_BATCH_END, 0, 0, _SUBSYSTEM, b"")


def ask(messages: list[tuple[int, int, int, bytes]]) -> None:
    """Let the kernel do all of it or nothing, in this process's network namespace. Raises OSError with its first objection."""
    connection = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        connection.bind((0, 0))
        connection.settimeout(5.0)
        connection.send(batch(messages))
        answered, objection = 0, None
        while answered < len(messages) and objection is None:
            answers = connection.recv(65536)
            objections, count = _answers(answers)
            answered += count
            objection = objections
    finally:
        connection.close()
    if objection is not None:
        raise OSError(objection, f"nf_tables: {os.strerror(objection)}")


def _answers(answers: bytes) -> tuple[Optional[int], int]:
    """(the first error number, how many messages are answered) of a datagram of the kernel's."""
    at = count = 0
    while at + 20 <= len(answers):
        length, kind = struct.unpack_from("=IH", answers, at)
        if kind == 2:
            count += 1
            code = -struct.unpack_from("=i", answers, at + 16)[0]
            if code:
                return code, count
        at += max(16, (length + 3) & ~3)
    return None, count
