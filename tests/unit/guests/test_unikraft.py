# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Unikraft dialect against models of Unikraft's own readers, written after lib/ukargparse, lib/uklibparam and lib/ukboot."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.unikraft import LINE_MOST, WORDS_MOST, UnikraftGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

WHITE = b" \r\n\t\v"
TRICKY = st.text(st.sampled_from("ab '\"\\[]=.-$%äà"), max_size=12)
TEXT = st.one_of(TRICKY, st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20))
NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="="), min_size=1, max_size=8)


def argnparse(line: bytes, escapes: bool, most: int = 60) -> list[bytes]:
    """uk_argnparse() as a list of words; escapes: the generation that knows the backslash.

    It stops at the beginning of the last word that it has room for, which is then all of the rest, quotes and spaces and all.
    """
    buffer, i = bytearray(line), 0
    starts: list[int] = []
    white, escaped, quote = True, False, 0
    while i < len(buffer) and len(starts) < most:
        letter = buffer[i]
        if letter == 0:
            break
        if letter in WHITE and not quote and not (escapes and escaped):
            buffer[i] = 0
            white = True
        elif letter in WHITE and not escapes:
            pass  # inside of quotes the old reader keeps it, but does not begin a word with it
        elif letter in b"'\"" and not (escapes and escaped and not quote) and (not quote or quote == letter) and not (escapes and escaped):
            quote = 0 if quote else letter
            del buffer[i]
            continue
        elif escapes and escaped and quote and letter == ord('"'):
            del buffer[i - 1]
            i -= 1
            escaped = False
        else:
            if white:
                starts.append(i)
                white, escaped = False, False
            if escapes and letter == ord("\\") and quote != ord("'"):
                if escaped:
                    del buffer[i]
                    i -= 1
                    escaped = False
                else:
                    escaped = True
            elif escapes and escaped:
                if not quote:
                    del buffer[i - 1]
                    i -= 1
                escaped = False
        i += 1
    return [bytes(buffer[start:]).split(b"\0")[0] for start in starts]


def boot(words: list[bytes]) -> tuple[dict[str, list[bytes]], list[bytes]]:
    """ukplat_entry(): (parameters by name, argv of the application), as uk_libparam_parse() reads them."""
    parameters: dict[str, list[bytes]] = {}
    name, in_list, stop = "", False, -1
    for index, snippet in enumerate(words[1:]):
        word = snippet
        if not word:
            continue
        if not in_list:
            if word == b"--":
                stop = index
                break
            head, equals, value = word.partition(b"=")
            if b"." not in head:
                continue
            name = head.decode()
            if not equals:
                continue
            if not value.startswith(b"["):
                parameters.setdefault(name, []).append(value)
                continue
            in_list = True
            if value == b"[":
                continue
            word = value[1:]
        if word.endswith(b"]"):
            in_list = False
            word = word[:-1]
        if word:
            parameters.setdefault(name, []).append(word)
    if stop <= 0:
        return {}, words  # nothing before the stop word, or none: all of it is the application's
    return parameters, words[:1] + words[stop + 2 :]


def read(line: str, escapes: bool, multiboot: bool) -> tuple[dict[str, list[bytes]], list[bytes]]:
    raw = line.encode()
    return boot(argnparse(b"/images/kernel " + raw if multiboot else raw, escapes))


@pytest.mark.parametrize("multiboot", [True, False])
@pytest.mark.parametrize("escapes", [True, False])
@given(args=st.lists(TEXT, max_size=6), env=st.lists(st.tuples(NAMES, TEXT), max_size=4))
@example(args=["--", "a'b\"c", "\\"], env=[("A", "x]"), ("B", ""), ("C", "]")])
@example(args=[], env=[])
def test_what_the_pod_says_is_what_the_application_gets_or_it_is_refused(
    escapes: bool, multiboot: bool, args: list[str], env: list[tuple[str, str]]
) -> None:
    try:
        line = UnikraftGuest().command_line(args, env, None)
    except UnifleetError:
        line = ""
    if not line:
        assert any(not arg or arg[0] == " " for arg in args) or any(name[0] in " [" for name, _value in env)
        return
    parameters, argv = read(line, escapes, multiboot)
    assert argv[1:] == [arg.encode() for arg in args]
    assert sorted(parameters.get("env.vars", [])) == sorted(f"{name}={value}".encode() for name, value in env)


@given(text=TEXT.filter(lambda text: bool(text) and text[0] != " "))
def test_every_word_that_is_not_empty_and_begins_with_no_space_can_be_said(text: str) -> None:
    UnikraftGuest().command_line([text], [("A", text)], None)


def test_the_network_of_both_generations_is_told_in_their_own_words() -> None:
    network = Network("10.0.0.5/24", "10.0.0.1", ("1.1.1.1", "9.9.9.9", "8.8.8.8"))
    line = UnikraftGuest().command_line(["-p", "80"], [], network)
    assert line == "unikraft netdev.ip=10.0.0.5/24:10.0.0.1:1.1.1.1:9.9.9.9:: -- -p 80"
    assert UnikraftGuest().command_line([], [], Network("10.0.0.5/24", "")).startswith("unikraft netdev.ip=10.0.0.5/24::::: --")
    old = UnikraftGuest().command_line(["x"], [], network, Platform(version="0.15.0", initrd=True))
    assert old == (
        "unikraft netdev.ipv4_addr=10.0.0.5 netdev.ipv4_subnet_mask=255.255.255.0 netdev.ipv4_gw_addr=10.0.0.1 vfs.rootfs=initrd -- x"
    )


@pytest.mark.parametrize(("version", "current"), [("", True), ("0.16.1", True), ("v0.17.0-8a9b", True), ("1.0", True), ("0.16.0", False)])
def test_the_generation_follows_the_version(version: str, current: bool) -> None:
    line = UnikraftGuest().command_line([], [], Network("10.0.0.5/24", "10.0.0.1"), Platform(version=version))
    assert ("netdev.ip=" in line) is current


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(UnifleetError, match="'latest' is no version"):
        UnikraftGuest().command_line([], [], None, Platform(version="latest"))


def test_an_initrd_is_extracted_unless_the_image_mounts_it_itself() -> None:
    line = UnikraftGuest().command_line([], [], None, Platform(initrd=True))
    assert read(line, True, True)[0] == {"vfs.fstab": [b"initrd0:/:extract:::"]}
    own = Platform(initrd=True, parameters=("vfs.fstab=[", "initrd0:/:extract::ramfs=1:", "]"))
    assert read(UnikraftGuest().command_line([], [], None, own), True, True)[0] == {"vfs.fstab": [b"initrd0:/:extract::ramfs=1:"]}


def test_an_old_unikraft_gets_no_variables() -> None:
    with pytest.raises(UnifleetError, match=r"variable HOME cannot be passed: Unikraft 0\.15\.0"):
        UnikraftGuest().command_line([], [("HOME", "/")], None, Platform(version="0.15.0"))


def test_more_words_than_unikraft_reads_are_refused_and_not_cut_off() -> None:
    most = ["x y"] * (WORDS_MOST - 3)
    assert read(UnikraftGuest().command_line(most, [], None), True, True)[1][1:] == [b"x y"] * len(most)
    with pytest.raises(UnifleetError, match="59 words"):
        UnikraftGuest().command_line([*most, "x"], [], None)


def test_a_line_that_is_too_long_is_refused_in_bytes() -> None:
    with pytest.raises(UnifleetError, match=r"4\d{3} bytes"):
        UnikraftGuest().command_line(["ä" * (LINE_MOST // 2)], [], None)
    with pytest.raises(UnifleetError, match="Unikraft takes 1023"):
        UnikraftGuest().command_line(["a" * 1024], [], None, Platform(hypervisor="xen"))


@pytest.mark.parametrize("word", ["", " a"])
def test_words_that_ukargparse_loses_are_refused_by_number(word: str) -> None:
    with pytest.raises(UnifleetError, match="argument 2 "):
        UnikraftGuest().command_line(["a", word], [], None)


@pytest.mark.parametrize("word", ["a b", 'a"b', "--", "", "a\nb"])
def test_kernel_parameters_of_an_image_that_are_no_plain_word_are_refused(word: str) -> None:
    with pytest.raises(UnifleetError, match="kernel parameter"):
        UnikraftGuest().command_line([], [], None, Platform(parameters=(word,)))


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"[    0.112358] Info: [libukboot] <boot.c @  472> main returned 0\n[    0.2] Info: [libukboot] Halting system (0)\n", 0),
        (b"[    0.112358] Info: <init> [libukboot] <boot.c @  472> main returned -1\r\n", 255),
        (b"main returned 3, halting system\n", 3),
        (b"main returned 0\n[    1.0] CRIT: [libukdebug] <crash.c @ 42> Unikraft crash - Telesto (0.16.1)\n", 134),
        (b"hello\n", None),
        (b"main returned ", None),
        (b"", None),
    ],
)
def test_the_exit_code_is_what_the_kernel_last_said_of_main(tail: bytes, code: int | None) -> None:
    assert UnikraftGuest().exit_code(tail) == code
