# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plain family's command line against the guest's own decoder (guest/os/words.c, built for this machine), and its exit line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.families import family
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import COMMAND_LINE_MOST, PlainGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

GUEST = Path(__file__).resolve().parents[3] / "guest"
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40)
NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0="), min_size=1, max_size=20)


class Decoder:
    """The C decoder as a process; one answer for each line."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _word(self) -> bytes:
        out = self._process.stdout
        assert out is not None
        word = b""
        while not word.endswith(b"\0"):
            byte = out.read(1)
            assert byte, "the decoder died"
            word += byte
        return word[:-1]

    def decode(self, line: bytes) -> tuple[list[bytes], list[bytes]] | str:
        """(environment, arguments), or the sentence on what is wrong."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n%s" % (len(line), line))
        self._process.stdin.flush()
        status = self._word()
        if status != b"ok":
            return status.decode().removeprefix("error ")
        environment = [self._word() for _number in range(int(self._word()))]
        return environment, [self._word() for _number in range(int(self._word()))]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    build = tmp_path_factory.mktemp("words")
    subprocess.run(["make", "-s", "-C", str(GUEST), f"BUILD={build}", f"{build}/words"], check=True)
    running = Decoder(build / "words")
    yield running
    running.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=st.lists(TEXT, max_size=12), env=st.lists(st.tuples(NAMES, TEXT), max_size=6))
def test_what_the_pod_says_is_what_the_guest_gets(decoder: Decoder, args: list[str], env: list[tuple[str, str]]) -> None:
    line = PlainGuest().command_line(args, env, None)
    assert decoder.decode(line.encode("ascii")) == ([f"{name}={value}".encode() for name, value in env], [arg.encode() for arg in args])


@settings(max_examples=60, deadline=None)
@given(args=st.lists(TEXT, max_size=6))
def test_the_line_passes_through_xml_and_has_nothing_that_a_loader_could_read(args: list[str]) -> None:
    line = PlainGuest().command_line(args, [], None)
    element = ElementTree.Element("cmdline")
    element.text = line
    assert ElementTree.fromstring(ElementTree.tostring(element)).text == line
    assert all(c.isalnum() or c in "-._/:=,+@% " for c in line)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.binary(max_size=300).map(lambda raw: raw.replace(b"\0", b"%")))
def test_the_decoder_answers_any_line_with_words_or_one_sentence(decoder: Decoder, line: bytes) -> None:
    answer = decoder.decode(line)
    if isinstance(answer, str):
        assert answer.startswith("the command line ")
    else:
        assert len(answer[1]) <= len(line.split(b" "))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", ([], [])),
        (b"  a   b ", ([], [b"a", b"b"])),
        (b"A=b", ([], [b"A=b"])),
        (b"A=b -- A=b -- %", ([b"A=b"], [b"A=b", b"--", b""])),
        (b"A=%20%41 --", ([b"A= A"], [])),
        (b"--", ([], [])),
        (b"a%2", "the command line has a broken %XX escape"),
        (b"50%", "the command line has a broken %XX escape"),
        (b"%00", "the command line has a broken %XX escape"),
        (b"word -- a", "the command line has a word before -- that is not NAME=value"),
        (b"=v -- a", "the command line has a word before -- that is not NAME=value"),
        (b"x" * 4096, "the command line is longer than 4095 bytes"),
    ],
)
def test_lines_that_people_type(decoder: Decoder, line: bytes, expected: object) -> None:
    assert decoder.decode(line) == expected


def test_the_longest_line_passes_and_one_byte_more_is_refused_by_name(decoder: Decoder) -> None:
    most = "x" * (COMMAND_LINE_MOST - 3)
    assert decoder.decode(PlainGuest().command_line([most], [], None).encode()) == ([], [most.encode()])
    with pytest.raises(UnifleetError, match="4096 bytes.*'xxxx"):
        PlainGuest().command_line([most + "x"], [], None)


def test_the_most_words_pass(decoder: Decoder) -> None:
    args = ["a"] * 2046
    assert decoder.decode(PlainGuest().command_line(args, [], None).encode()) == ([], [b"a"] * 2046)


def test_a_nul_is_refused_and_the_argument_named() -> None:
    with pytest.raises(UnifleetError, match="argument 2 holds a NUL"):
        PlainGuest().command_line(["a", "b\0c"], [], None)
    with pytest.raises(UnifleetError, match="environment variable X holds a NUL"):
        PlainGuest().command_line([], [("X", "\0")], None)


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_variable_name_that_cannot_be_carried_is_refused(name: str) -> None:
    with pytest.raises(UnifleetError, match="variable name"):
        PlainGuest().command_line([], [(name, "x")], None)


def test_the_network_is_told_after_the_pods_variables_so_that_it_wins(decoder: Decoder) -> None:
    network = Network("10.0.0.5/24", "10.0.0.1", ("1.1.1.1", "9.9.9.9"))
    answer = decoder.decode(PlainGuest().command_line([], [("UNIFLEET_ADDRESS", "x")], network).encode())
    assert answer[0] == [
        b"UNIFLEET_ADDRESS=x",
        b"UNIFLEET_ADDRESS=10.0.0.5/24",
        b"UNIFLEET_GATEWAY=10.0.0.1",
        b"UNIFLEET_NAMESERVERS=1.1.1.1,9.9.9.9",
    ]


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"reading\nunikernel: exit 0\n", 0),
        (b"unikernel: exit 255\n", 255),
        (b"a\r\nunikernel: exit 3\r\n", 3),
        (b"unikernel: exit 0\nunikernel: exit 7\n", 7),
        (b"unikernel: exit 0\nmore\n", None),
        (b"unikernel: exit 0\n\n", None),
        (b"unikernel: exit 0", None),
        (b"so unikernel: exit 0\n", None),
        (b"unikernel: exit 256\n", None),
        (b"unikernel: exit 00\n", None),
        (b"unikernel: exit -1\n", None),
        ("unikernel: exit ٣\n".encode(), None),
        (b"", None),
    ],
)
def test_only_the_very_last_line_is_an_exit_code(tail: bytes, code: int | None) -> None:
    assert PlainGuest().exit_code(tail) == code


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnifleetError, match="'solo5' is not known .known: .*plain"):
        family("solo5")
