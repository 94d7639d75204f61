# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image may ask of its machine, on real hypervisors: machine type, console and network card, and what its end means."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from bench import Bench, has_stopped, wait_for

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, Interface, Kernel, Machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import NICS, ExitRule, Hardware

pytestmark = [pytest.mark.contract, pytest.mark.only("kvm")]


def run(bench: Bench, machines: Machines, kernel: object, stop_at: bytes = b"", **changes: object) -> tuple[Exit, bytes]:
    """Start it, ask it to stop once it says stop_at, and wait for its end; the end and the console."""
    assert isinstance(kernel, Kernel)
    spec = bench.spec(bench.runs())
    spec = replace(spec, boot=replace(kernel, **changes))  # type: ignore[arg-type]
    machines.prepare(spec)
    machines.start(spec.key)
    if stop_at:
        wait_for("the guest to be ready", lambda: stop_at in bench.console(machines, spec.key))
        assert machines.request_stop(spec.key)
    wait_for("the machine to stop", lambda: has_stopped(machines, spec.key))
    state = machines.state(spec.key)
    assert state is not None
    assert state.exit is not None
    return state.exit, bench.console(machines, spec.key)


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
def test_the_guest_boots_says_its_exit_code_and_stops_when_asked_on_every_machine_type(
    bench: Bench, machines: Machines, machine: str
) -> None:
    end, console = run(bench, machines, bench.fails().boot, hardware=Hardware(machine))
    assert (end.code, end.message) == (2, ""), console
    end, console = run(bench, machines, replace(bench.runs().boot, can_shut_down=True), b"seq=1 ", hardware=Hardware(machine))
    assert end.code in (0, 143), console


@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
def test_a_virtio_console_is_logged_in_place_of_the_serial_line(bench: Bench, machines: Machines, machine: str) -> None:
    """The project's guest knows no virtio console, so nothing arrives, and what its end means is the image's to say."""
    rule = ExitRule(silent=5)
    end, console = run(bench, machines, bench.exits_well().boot, hardware=Hardware(machine, console="virtio"), exit_rule=rule)
    assert (end.code, console) == (5, b"")


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the host with nothing on it."""
    name = "contract0"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.parametrize(("machine", "nic"), [(machine, nic) for machine in ("pc", "q35", "microvm") for nic in NICS[machine]])
def test_every_network_card_that_an_image_may_ask_for_is_there(
    bench: Bench, machines: Machines, bridge: str, machine: str, nic: str
) -> None:
    spec = bench.spec(bench.fails())
    assert isinstance(spec.boot, Kernel)
    card = Interface("10.0.0.5/24", "10.0.0.1", bridge, "52:54:00:00:00:01")
    machines.prepare(replace(spec, boot=replace(spec.boot, hardware=Hardware(machine, nic)), interface=card))
    machines.start(spec.key)
    wait_for("the machine to stop", lambda: has_stopped(machines, spec.key))
    state = machines.state(spec.key)
    assert state is not None
    assert state.exit is not None
    assert (state.exit.code, state.exit.message) == (2, ""), bench.console(machines, spec.key)


def test_what_the_image_says_of_its_end_outlives_the_agent(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.fails())
    assert isinstance(spec.boot, Kernel)
    machines.prepare(replace(spec, boot=replace(spec.boot, exit_rule=ExitRule("unikernel: exit ", {2: 134}))))
    machines.start(spec.key)
    again = bench.open()
    wait_for("the machine to stop", lambda: has_stopped(again, spec.key))
    state = again.state(spec.key)
    assert state is not None
    assert state.exit is not None
    assert state.exit.code == 134


def test_hardware_that_this_host_has_not_is_refused_when_the_machine_is_prepared(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.runs())
    assert isinstance(spec.boot, Kernel)
    with pytest.raises(UnifleetError, match="asks for virt as machine type; here are microvm, pc, q35"):
        machines.prepare(replace(spec, boot=replace(spec.boot, hardware=Hardware("virt"))))
    assert machines.state(spec.key) is None
