# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules that join the pod's localhost and the guest: well-formed messages, and what happens where the kernel refuses them."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import loopback, netlink, network, nftables

pytestmark = pytest.mark.unit

ADDRESS = bytes([10, 77, 0, 5])
PEER = bytes([192, 0, 0, 8])
LOCALHOST = bytes([127, 0, 0, 1])


def attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of attributes that fill the bytes to the end."""
    at = 0
    while at < len(content):
        length, kind = struct.unpack_from("=HH", content, at)
        assert 4 <= length <= len(content) - at
        yield kind & 0x3FFF, content[at + 4 : at + length]
        at += (length + 3) & ~3
    assert at == len(content)


def expressions(rule: bytes) -> list[tuple[str, dict[int, bytes]]]:
    """(name, attributes) of each expression of a rule."""
    found = []
    for kind, expression in attributes(rule):
        assert kind == 1
        parts = dict(attributes(expression))
        found.append((parts[1].rstrip(b"\0").decode(), dict(attributes(parts[2]))))
    return found


def messages(batch: bytes) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, family, body) of the messages that fill a batch."""
    found, at = [], 0
    while at < len(batch):
        length, kind, flags, _sequence, _port, family = struct.unpack_from("=IHHIIB", batch, at)
        assert length % 4 == 0
        found.append((kind, flags, family, batch[at + 20 : at + length]))
        at += length
    assert at == len(batch)
    return found


def test_a_batch_is_a_table_a_chain_and_its_rules_between_begin_and_end() -> None:
    wanted = [message for table in loopback.tables(ADDRESS, 3, "runu0") for message in table.messages()]
    found = messages(nftables.batch(wanted))
    kinds = [kind for kind, _flags, _family, _body in found]
    assert kinds == [0x10, 0xA00, 0xA03, 0xA06, 0xA06, 0xA06, 0xA00, 0xA03, 0xA06, 0x11]
    assert [family for _kind, _flags, family, _body in found[1:-1]] == [2] * 5 + [5] * 3
    assert all(flags & 0x5 == 0x5 for _kind, flags, _family, _body in found[1:-1]), "each is a request that wants an answer"
    for _kind, _flags, _family, body in found[1:-1]:
        names = dict(attributes(body))
        assert names[1] == b"unifleet_localhost\0"
    chain = dict(attributes(found[7][3]))
    assert dict(attributes(chain[4])) == {1: b"\0\0\0\0", 2: b"\0\0\0\0", 3: b"runu0\0"}
    assert chain[5] == struct.pack(">I", nftables.DROP), "what is said to 192.0.0.8 by nobody known goes nowhere"
    before = dict(attributes(found[2][3]))
    assert struct.unpack(">i", dict(attributes(before[4]))[2]) == (-300,)
    assert before[5] == struct.pack(">I", nftables.ACCEPT)


def test_only_the_guests_own_frames_to_its_peer_reach_localhost() -> None:
    _before, back = loopback.tables(ADDRESS, 3, "runu0")
    (rule,) = back.rules
    compared = [dict(attributes(parts[3]))[1] for name, parts in expressions(rule) if name == "cmp"]
    assert compared == [b"\6", ADDRESS + PEER]
    written = [dict(attributes(parts[2]))[1] for name, parts in expressions(rule) if name == "immediate"]
    assert written[0] == LOCALHOST * 2
    assert written[-1] == struct.pack("=I", 1), "to lo"
    assert expressions(rule)[-1][0] == "fwd"


def test_a_socket_is_looked_for_before_anything_goes_to_the_guest() -> None:
    before, _back = loopback.tables(ADDRESS, 3, "runu0")
    names = [[name for name, _parts in expressions(rule)] for rule in before.rules]
    assert names[0] == ["meta", "cmp", "immediate"]
    assert names[1] == ["socket", "cmp", "immediate"]
    assert names[2][-2:] == ["dup", "immediate"]
    assert not any("dup" in rule for rule in names[:2])


@given(st.binary(min_size=1, max_size=16), st.integers(0, 60), st.sampled_from([nftables.LINK_LAYER, nftables.NETWORK_LAYER]))
def test_what_is_written_into_a_packet_is_framed_whole(value: bytes, offset: int, base: int) -> None:
    load, write = expressions(nftables.set_payload(base, offset, value))
    assert dict(attributes(load[1][2]))[1] == value
    assert struct.unpack(">I", write[1][3]) == (offset,)
    assert struct.unpack(">I", write[1][4]) == (len(value),)
    assert (8 in write[1]) == (base == nftables.NETWORK_LAYER), "checksums are the business of the IPv4 header alone"


def answer(code: int) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -code) + bytes(16)


@given(st.lists(st.just(0), max_size=8), st.sampled_from([errno.ENOENT, errno.EOPNOTSUPP, errno.EEXIST]))
def test_the_first_objection_of_the_kernel_counts(good: list[int], code: int) -> None:
    answers = b"".join(answer(number) for number in good)
    assert nftables._answers(answers) == (None, len(good))
    assert nftables._answers(answers + answer(code) + answer(errno.EPERM)) == (code, len(good) + 1)


@given(st.binary(max_size=200))
def test_answers_of_any_shape_are_read_to_an_end(noise: bytes) -> None:
    nftables._answers(noise)


def test_a_neighbour_has_its_address_and_mac() -> None:
    message = netlink.neighbour(7, ADDRESS, bytes(range(6)))
    length, kind, flags = struct.unpack_from("=IHH", message)
    assert (length, kind, flags) == (len(message), 28, 0x505)
    assert struct.unpack_from("=BxxxiH", message, 16) == (2, 7, 0x80)
    assert dict(attributes(message[28:])) == {1: ADDRESS, 2: bytes(range(6))}


def link(gateway: str) -> network.Link:
    made = network.Link("eth0", "runu0", -1, "10.77.0.5/24", gateway)
    made.mac = "02:00:00:00:00:05"
    return made


def test_a_kernel_without_the_rules_costs_port_forward_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: str) -> None:
        raise OSError(errno.ENOENT, "nf_tables: " + os.strerror(errno.ENOENT))

    monkeypatch.setattr(loopback, "attach", refuse)
    said = network._join_localhost(link("10.77.0.1"))
    assert "kubectl port-forward" in said
    assert "nf_tables: No such file" in said


def test_a_guest_without_a_gateway_is_not_told_of_a_peer_that_it_cannot_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(loopback, "attach", lambda *arguments: asked.append(arguments))
    assert "eth0 has no gateway" in network._join_localhost(link(""))
    assert not asked
    assert network._join_localhost(link("10.77.0.1")) == ""
    assert asked == [("10.77.0.5", "02:00:00:00:00:05", "runu0")]
