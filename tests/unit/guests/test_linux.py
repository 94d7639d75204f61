# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux dialect against a model of the kernel's own reader, written after lib/cmdline.c, kernel/params.c and init/main.c."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.linux import ARGUMENTS_MOST, VARIABLES_MOST, LinuxGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SPACES = b" \t\n\v\f\r\xa0"
"""The kernel's isspace() (lib/ctype.c), which is Latin-1."""
KNOWN = {b"console", b"quiet", b"panic"}
TEXT = st.one_of(
    st.text(st.sampled_from('ab "=-à.{}:'), max_size=12), st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
)
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)


def next_arg(line: bytes) -> tuple[bytes, bytes | None, bytes]:
    """(parameter, value or None, rest). Mind that a quote at the end goes only when the word or value began with one."""
    quoted = line[:1] == b'"'
    line = line[1:] if quoted else line
    inside, equals, end = quoted, 0, len(line)
    for i, letter in enumerate(line):
        if letter in SPACES and not inside:
            end = i
            break
        if equals == 0 and letter == ord("="):
            equals = i
        if letter == ord('"'):
            inside = not inside
    word, rest = line[:end], line[end + 1 :]
    value = None
    if equals:
        value = word[equals + 1 :]
        if value[:1] == b'"':
            value = value[1:]
            if word[-1:] == b'"':
                value, word = value[:-1], word[:-1]
        elif quoted and word[-1:] == b'"':
            value = value[:-1]
        return word[:equals], value, rest
    return (word[:-1] if quoted and word[-1:] == b'"' else word), None, rest


def words(line: bytes) -> tuple[list[tuple[bytes, bytes | None]], bytes | None]:
    """parse_args(): the words up to --, and what is after it."""
    found = []
    line = line.lstrip(SPACES)
    while line:
        name, value, line = next_arg(line)
        line = line.lstrip(SPACES)
        if name == b"--" and value is None:
            return found, line
        found.append((name, value))
    return found, None


def boot(line: str) -> tuple[list[bytes], list[bytes]]:
    """start_kernel(): what init gets: arguments and environment."""
    before, after = words(line.encode())
    arguments = [b"init"]
    environment = [b"HOME=/", b"TERM=linux"]
    for name, value in before:
        if name in KNOWN or b"." in name:
            continue
        if value is None:
            arguments.append(name)
            continue
        same = [i for i, had in enumerate(environment) if had.startswith(name + b"=")]
        if same:
            environment[same[0]] = name + b"=" + value
        else:
            assert len(environment) <= 32, "Kernel panic - not syncing: Too many boot env vars"
            environment.append(name + b"=" + value)
    if after is not None:
        arguments = [b"init", *(name if value is None else name + b"=" + value for name, value in words(after)[0])]
    assert len(arguments) <= 33, "Kernel panic - not syncing: Too many boot init vars"
    return arguments[1:], environment[2:]


@given(args=st.lists(TEXT, max_size=6), env=st.dictionaries(NAMES, TEXT, max_size=4))
@example(args=["", "à", "two words", "x=y z", "=q=r", "=a b= c", 'a"b"'], env={"A": "b c", "B": ""})
@example(args=['{"a": 1}', '{"a":1}', '"a"', "--x"], env={})
def test_what_the_pod_says_is_what_init_gets_or_it_is_refused(args: list[str], env: dict[str, str]) -> None:
    try:
        line = LinuxGuest().command_line(args, list(env.items()), None)
    except UnifleetError:
        line = ""
    if not line:
        assert "--" in args or any('"' in text for text in [*args, *env.values()])
        return
    assert boot(line) == ([arg.encode() for arg in args], [f"{name}={value}".encode() for name, value in env.items()])


@given(text=TEXT)
def test_a_word_is_refused_only_when_no_spelling_of_it_would_be_read_back(text: str) -> None:
    raw = text.encode()
    readable = [
        spelling
        for spelling in (raw, b'"' + raw + b'"', raw.replace(b"=", b'="', 1) + b'"')
        if spelling and words(b"-- " + spelling)[1] is not None and boot_words(spelling + b" x") == [raw, b"x"]
    ]
    try:
        LinuxGuest().command_line([text], [], None)
    except UnifleetError:
        assert text == "--" or not readable
    else:
        assert readable


def boot_words(spelling: bytes) -> list[bytes]:
    return [name if value is None else name + b"=" + value for name, value in words(spelling)[0]]


def test_the_line_as_a_whole() -> None:
    network = Network("10.0.0.5/24", "10.0.0.1", ("1.1.1.1",))
    line = LinuxGuest().command_line(["-v", "a b"], [("A", "b c")], network)
    assert line == 'console=ttyS0 quiet panic=-1 ip=10.0.0.5::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1 "A=b c" -- -v "a b"'


@pytest.mark.parametrize(
    ("platform", "console"),
    [(Platform(), "ttyS0"), (Platform(architecture="arm64"), "ttyAMA0"), (Platform(hypervisor="xen"), "hvc0")],
)
def test_the_console_is_where_the_host_listens(platform: Platform, console: str) -> None:
    assert LinuxGuest().command_line([], [], None, platform).startswith(f"console={console} ")


def test_an_image_may_add_words_for_the_kernel() -> None:
    assert " rdinit=/bin/app -- x" in LinuxGuest().command_line(["x"], [], None, Platform(parameters=("rdinit=/bin/app",)))


@pytest.mark.parametrize("name", ["root", "debug", "my.name", "A.B", "a", "A B", 'A"', "-A"])
def test_a_variable_that_the_kernel_might_take_for_itself_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnifleetError, match="environment variable"):
        LinuxGuest().command_line([], [(name, "x")], None)


def test_proxies_may_be_in_lower_case() -> None:
    assert boot(LinuxGuest().command_line([], [("https_proxy", "http://p:1")], None))[1] == [b"https_proxy=http://p:1"]


def test_the_most_words_pass_and_one_more_is_refused_before_the_kernel_panics() -> None:
    env = [(f"V{number}", "x") for number in range(VARIABLES_MOST)]
    arguments, environment = boot(LinuxGuest().command_line(["a"] * ARGUMENTS_MOST, env, None))
    assert (len(arguments), len(environment)) == (32, 31)
    with pytest.raises(UnifleetError, match="33 arguments"):
        LinuxGuest().command_line(["a"] * 33, [], None)
    with pytest.raises(UnifleetError, match="32 environment variables"):
        LinuxGuest().command_line([], [*env, ("ONE_MORE", "x")], None)
    with pytest.raises(UnifleetError, match="Linux gives its init"):
        LinuxGuest().command_line([], env, Network("10.0.0.5/24", "10.0.0.1"))


@pytest.mark.parametrize(
    ("platform", "most"), [(Platform(), 2047), (Platform(architecture="arm"), 1023), (Platform(hypervisor="xen"), 1023)]
)
def test_a_line_that_the_kernel_would_cut_is_refused(platform: Platform, most: int) -> None:
    base = len(LinuxGuest().command_line(["x"], [], None, platform))
    LinuxGuest().command_line(["x" * (most - base + 1)], [], None, platform)
    with pytest.raises(UnifleetError, match=f"takes {most}"):
        LinuxGuest().command_line(["x" * (most - base + 2)], [], None, platform)


def test_a_second_double_dash_is_refused_by_number() -> None:
    with pytest.raises(UnifleetError, match="argument 2 is --"):
        LinuxGuest().command_line(["a", "--"], [], None)


DIED = b"[    6.286347] Kernel panic - not syncing: Attempted to kill init! exitcode=0x%s\r\n[    6.3] CPU: 0 PID: 1\r\n"


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (DIED % b"00000000", 0),
        (DIED % b"00000300", 3),
        (DIED % b"0000000b", 139),
        (DIED % b"00000086", 134),
        (b"[    7.423056] reboot: Power down\r\n", None),
        (DIED % b"00000300" + b"[    7.423056] reboot: Power down\r\n", None),
        (b"[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n", 134),
        (b"[    1.2][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n", 1),
        (b"my own words: Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300\n", None),
        (b"", None),
    ],
)
def test_the_exit_code_is_inits_as_the_kernel_tells_it(tail: bytes, code: int | None) -> None:
    assert LinuxGuest().exit_code(tail) == code
