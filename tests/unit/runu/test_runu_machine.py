# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu.machine import SANDBOX, Card, Hardware, Machine, arguments, user_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit

HARDWARE = Hardware("/usr/bin/qemu-system-x86_64", "tcg", "max")


def machine(**more: object) -> Machine:
    return Machine(
        **{"title": "abc", "kernel": 5, "command_line": "-- a", "memory_bytes": 64 << 20, "cpus": 1, "console": 6, "control": 7, **more}
    )  # type: ignore[arg-type]


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_machine_waits_in_a_sandbox_and_has_nothing_that_was_not_asked_for() -> None:
    words = arguments(machine(), HARDWARE)
    assert {"-S", "-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)
    assert after(words, "-sandbox") == SANDBOX
    assert "deny" in SANDBOX
    assert after(words, "-kernel") == "/proc/self/fd/5"
    assert after(words, "-append") == "-- a"
    assert after(words, "-m") == "size=64M"
    assert "-netdev" not in words
    assert "-initrd" not in words


@pytest.mark.parametrize(
    ("kind", "device"),
    [("pc", "virtio-net-pci"), ("q35", "virtio-net-pci"), ("microvm", "virtio-net-device"), ("virt", "virtio-net-device")],
)
def test_the_card_suits_the_machine(kind: str, device: str) -> None:
    words = arguments(machine(card=Card(9, "02:00:00:00:00:01", 1450)), Hardware("/q", "kvm", "host", kind))
    assert after(words, "-netdev") == "tap,id=net0,fd=9,vhost=off"
    assert any(word.startswith(f"{device},netdev=net0,mac=02:00:00:00:00:01,host_mtu=1450") for word in words)
    assert after(words, "-machine").startswith(kind)
    assert "accel=kvm" in after(words, "-machine")


def test_the_image_may_ask_for_another_card_console_and_debug_port() -> None:
    hardware = Hardware("/q", "tcg", "max", "q35", nic="e1000e", virtio_console=True, debug_exit=0x501)
    words = arguments(machine(card=Card(9, "02:00:00:00:00:01")), hardware)
    assert any(word.startswith("e1000e,netdev=net0") for word in words)
    assert "virtconsole,chardev=console" in words
    assert "-serial" not in words
    assert "isa-debug-exit,iobase=0x501,iosize=2" in words


@given(st.text(max_size=40))
def test_a_command_line_is_one_word_of_qemus_whatever_it_says(text: str) -> None:
    if "\0" in text:
        with pytest.raises(UnifleetError, match="NUL"):
            arguments(machine(command_line=text), HARDWARE)
    else:
        words = arguments(machine(command_line=text), HARDWARE)
        assert after(words, "-append") == text
        assert len(words) == len(arguments(machine(), HARDWARE))


@given(st.text(alphabet="abz09_+-.", min_size=1, max_size=80))
def test_every_container_has_a_user_out_of_the_range(name: str) -> None:
    assert 1000 <= user_of(name, 1000, 50) < 1050
