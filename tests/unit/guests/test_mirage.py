# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MirageOS dialect against models of both generations of mirage-bootvar's reader and of what Solo5 takes for itself."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.mirage import LINE_MOST, MirageGuest, tender_arguments
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TEXT = st.one_of(
    st.text(st.sampled_from("ab '\"\\=-à "), max_size=10), st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
)


def solo5(line: str) -> tuple[list[str], str]:
    """bindings/cmdline.c: the options that Solo5 takes from the beginning, and the rest."""
    taken = []
    line = line.lstrip(" ")
    while line.split(" ")[0] in ("--solo5:quiet", "--solo5:debug"):
        word, _space, line = line.partition(" ")
        taken.append(word)
        line = line.lstrip(" ")
    return taken, line


def new_reader(line: str) -> list[str]:
    """parse_argv.ml since mirage-bootvar 0.7: \" and backslash; empty words are lost."""
    words, current, state = [], "", "normal"
    for letter in line:
        if state == "escaped" or state == "quoted escaped":
            current, state = current + letter, "normal" if state == "escaped" else "quoted"
        elif letter == "\\":
            state = "escaped" if state == "normal" else "quoted escaped"
        elif letter == '"':
            state = "quoted" if state == "normal" else "normal"
        elif letter == " " and state == "normal":
            words, current = [*words, current], ""
        else:
            current += letter
    assert state == "normal", "bad input line - either escaped or quoted or both"
    return [word for word in [*words, current] if word]


def old_reader(line: str) -> list[str]:
    """parse_argv.ml before: ' too, all ASCII white space, and no escape inside of single quotes."""
    words, current, quote, letters = [], "", "", iter(line)
    for letter in letters:
        if letter == "\\" and quote != "'":
            current += next(letters)
        elif letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter in " \t\n\v\f\r" and not quote:
            words, current = [*words, current], ""
        else:
            current += letter
    return [word for word in [*words, current] if word]


@pytest.mark.parametrize("reader", [old_reader, new_reader])
@given(args=st.lists(TEXT.filter(bool), max_size=6))
@example(args=['{"a": 1}', "it's", "\\", " ", "--"])
def test_what_the_pod_says_is_what_the_unikernel_gets(reader: object, args: list[str]) -> None:
    assert callable(reader)
    taken, rest = solo5(MirageGuest().command_line(args, [], None))
    assert taken == []
    assert reader(rest) == args


def test_solo5_gets_its_own_options_in_front_and_the_unikernel_the_others() -> None:
    line = MirageGuest().command_line(["--solo5:quiet", "--hello=x y", "--solo5:debug"], [], Network("10.0.0.2/24", "10.0.0.1"))
    taken, rest = solo5(line)
    assert taken == ["--solo5:quiet"]
    assert new_reader(rest) == ["--ipv4=10.0.0.2/24", "--ipv4-gateway=10.0.0.1", "--hello=x y", "--solo5:debug"]


def test_a_network_without_a_gateway_has_no_gateway_key() -> None:
    assert MirageGuest().command_line([], [], Network("10.0.0.2/24", "")) == "--ipv4=10.0.0.2/24"


def test_what_cannot_be_carried_is_refused_by_name() -> None:
    with pytest.raises(UnifleetError, match="argument 3 is empty"):
        MirageGuest().command_line(["--solo5:quiet", "a", ""], [], None)
    with pytest.raises(UnifleetError, match="variable A cannot be passed: a MirageOS unikernel has no environment"):
        MirageGuest().command_line([], [("A", "b")], None)
    with pytest.raises(UnifleetError, match=r"argument 1 holds the control character '\\t'"):
        MirageGuest().command_line(["\t"], [], None)
    with pytest.raises(UnifleetError, match=f"Solo5 takes {LINE_MOST}"):
        MirageGuest().command_line(["x" * 8192], [], None)


def test_a_tender_joins_its_words_to_the_very_line_of_a_virtual_machine() -> None:
    args, network = ["--greeting=hello world", 'a"b'], Network("10.0.0.2/24", "10.0.0.1")
    words = MirageGuest().words(args, [], network)
    argv = tender_arguments(
        "/bin/solo5-hvt", "/boot/app.hvt", words, memory_bytes=64 << 20, taps={"service": "tap0"}, devices=[("net", "service")]
    )
    assert argv[:5] == ("/bin/solo5-hvt", "--mem=64", "--net:service=tap0", "--", "/boot/app.hvt")
    assert " ".join(argv[5:]) == MirageGuest().command_line(args, [], network)


@pytest.mark.parametrize("device", [("net", "service"), ("block", "storage")])
def test_a_device_of_the_manifest_that_nobody_attaches_is_named(device: tuple[str, str]) -> None:
    with pytest.raises(UnifleetError, match=f"{device[0]} device '{device[1]}'"):
        tender_arguments("/bin/solo5-spt", "/boot/app", [], memory_bytes=0, taps={}, devices=[device])


def test_solo5_on_qemu_needs_a_device_to_end_by_and_xen_does_not() -> None:
    assert MirageGuest().hardware(Platform()).debug_exit == 0x501
    assert MirageGuest().hardware(Platform(hypervisor="xen")).debug_exit == 0


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"Solo5: solo5_exit(0) called\n", 0),
        (b"Solo5: solo5_exit(2) called\r\nSolo5: Halted\n", 2),
        (b"Solo5: solo5_exit(0) called\nSolo5: solo5_abort() called\n", 134),
        (b"it said Solo5: solo5_exit(0) called\n", None),
        (b"", None),
    ],
)
def test_the_exit_code_is_what_solo5_last_said(tail: bytes, code: int | None) -> None:
    assert MirageGuest().exit_code(tail) == code
