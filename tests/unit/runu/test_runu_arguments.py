# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: what the shim, people and fuzzers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import COMMANDS, Command, parse
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit

SHIM = ["--root", "/run/containerd/runc/k8s.io", "--log", "/b/log.json", "--log-format", "json", "--systemd-cgroup"]


def test_what_the_shim_says_is_read() -> None:
    command = parse([*SHIM, "create", "--bundle", "/b", "--pid-file", "/b/init.pid", "--console-socket", "/s", "abc"])
    assert (command.name, command.container, command.root) == ("create", "abc", "/run/containerd/runc/k8s.io")
    assert command.options == {"bundle": "/b", "pid-file": "/b/init.pid", "console-socket": "/s"}
    assert command.globals["systemd-cgroup"] == "true"
    kill = parse([*SHIM, "kill", "--all", "abc", "9"])
    assert (kill.operands, kill.flag("all")) == (["abc", "9"], True)
    delete = parse([*SHIM, "delete", "--force", "abc"])
    assert delete.flag("force")


def test_the_bundle_may_be_an_operand_and_options_may_come_last() -> None:
    command = parse(["create", "abc", "/bundle", "--pid-file=/p"])
    assert (command.operands, command.options) == (["abc", "/bundle"], {"pid-file": "/p"})
    assert parse(["kill", "abc", "--signal", "TERM"]).options == {"signal": "TERM"}


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["create", "-b", "/x", "a"], {"bundle": "/x"}),
        (["delete", "-f", "a"], {"force": "true"}),
        (["list", "-f", "json"], {"format": "json"}),
        (["list", "-q"], {"quiet": "true"}),
        (["exec", "-d", "-p", "/p", "a"], {"detach": "true", "process": "/p"}),
        (["update", "-r", "-", "a"], {"resources": "-"}),
        (["spec", "--arg", "a", "--arg", "b", "--kernel", "/k"], {"arg": "a\0b", "kernel": "/k"}),
    ],
)
def test_short_options_mean_the_long_ones(argv: list[str], options: dict[str, str]) -> None:
    assert parse(argv).options == options


def test_what_follows_execs_container_is_the_programs() -> None:
    assert parse(["exec", "-d", "abc", "ls", "-l", "--force"]).operands == ["abc", "ls", "-l", "--force"]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["create", "--help"], ["help", "kill"]])
def test_help_is_given_in_every_way(argv: list[str]) -> None:
    assert parse(argv).name == "help"


@pytest.mark.parametrize("argv", [["--version"], ["-v"], ["version"]])
def test_the_version_too(argv: list[str]) -> None:
    assert parse(argv).name == "version"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["dance"], "no command 'dance'"),
        (["create"], "wants a container id"),
        (["state", "a", "b"], "got 2 operands"),
        (["--frobnicate", "state", "a"], "no option '--frobnicate'"),
        (["state", "--frobnicate", "a"], "no option '--frobnicate'"),
        (["create", "a", "--bundle"], "wants a value"),
        (["delete", "--force=perhaps", "a"], "true or false"),
    ],
)
def test_what_is_wrong_is_named(argv: list[str], said: str) -> None:
    with pytest.raises(UnifleetError, match=said):
        parse(argv)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "ä", "x" * 1025, "a\0"])
def test_an_id_never_leads_out_of_the_root_directory(name: str) -> None:
    with pytest.raises(UnifleetError, match="invalid container id"):
        print(Command("state", {}, {}, [name]).container)


@given(
    st.lists(
        st.sampled_from([*COMMANDS, "--root", "-f", "--force", "--", "-", "a", "--bundle=x", "", "--help", "\0", "é", "9"]), max_size=8
    )
)
def test_any_words_are_read_or_refused(argv: list[str]) -> None:
    try:
        command = parse(argv)
    except UnifleetError as error:
        assert error.message  # noqa: PT017
    else:
        assert command.name in COMMANDS
