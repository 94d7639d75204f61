# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same promises on every target: QEMU's machines on two architectures, both kinds of Xen's domains, programs for three processors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from guest_targets import PROCESS_TARGETS, QEMU_TARGETS, Target, wait_for, xen
from test_sensor_guest import READING, build

from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.kernel_file import examine_file
from ansible_collections.unifleet.hybrid.tools.qemu_host.image import ArchiveUnavailableError
from ansible_collections.unifleet.hybrid.tools.xen_host.host import XenHost, xen_host

__all__ = ["build"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

TARGETS = [target.name for target in (*QEMU_TARGETS, *PROCESS_TARGETS)] + ["xen-pvh", "xen-pv"]
ALWAYS = ("pc", "arm64-gicv3", "process-amd64")
EACH = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.wide) for name in TARGETS]


@pytest.fixture(scope="module")
def xen_machine() -> Iterator[XenHost]:
    with ExitStack() as stack:
        try:
            host = stack.enter_context(xen_host())
        except ArchiveUnavailableError as error:
            pytest.skip(f"NOTHING ABOUT XEN IS TESTED HERE: {error}")
        yield host


@pytest.fixture(params=EACH)
def target(request: pytest.FixtureRequest) -> Target:
    if request.param.startswith("xen-"):
        host: XenHost = request.getfixturevalue("xen_machine")
        return xen(request.param.removeprefix("xen-"), lambda: host)
    return next(target for target in (*QEMU_TARGETS, *PROCESS_TARGETS) if target.name == request.param)


def test_readings_come_on_time_with_the_arguments_carried_exactly(target: Target, build: Path, tmp_path: Path) -> None:
    args = ("--sensor", "humidity", "--period", "0.5", "--source", "series:21.5,-3", "--count", "5", 'ä"\\ <&>%\n', "")
    with target.running(tmp_path, build, "sensor", *args) as guest:
        assert guest.exit_code() == 0
        lines = wait_for(guest, 5)
    readings = [READING.fullmatch(line) for line in lines[:5]]
    assert all(readings), lines
    assert [(r[1], r[2], r[3], r[5]) for r in readings if r] == [
        ("humidity", value, str(number), ' tag="ä\\"\\\\ <&>%\\x0a" tag=""')
        for number, value in enumerate(("21.5", "-3", "21.5", "-3", "21.5"), 1)
    ]
    uptimes = [float(r[4]) for r in readings if r]
    for number, uptime in enumerate(uptimes):
        assert 0 <= uptime - 0.5 * number <= uptimes[0] + target.slack_seconds, uptimes


def test_a_guest_that_sleeps_costs_nothing_and_ends_with_0_when_it_is_asked_to(target: Target, build: Path, tmp_path: Path) -> None:
    with target.running(tmp_path, build, "sensor", "--period", "3600") as guest:
        wait_for(guest, 1)
        before = guest.busy_seconds()
        time.sleep(2)
        assert guest.busy_seconds() - before <= 0.3
        guest.ask_to_stop()
        assert guest.exit_code() == 0


def test_the_environment_arrives_and_the_longest_command_line_is_whole(target: Target, build: Path, tmp_path: Path) -> None:
    env = (("SENSOR_NAME", "from env"), ("NOTHING", ""), ("PAD", ""))
    base = len(PlainGuest().command_line(("--count", "1", "last"), env, None))
    env = (*env[:2], ("PAD", "x" * (target.command_line_most - base)))
    with target.running(tmp_path, build, "sensor", "--count", "1", "last", env=env) as guest:
        assert guest.exit_code() == 0, guest.text()
        first = wait_for(guest, 1)[0]
    assert first.startswith('sensor="from env" value=')
    assert first.endswith(" tag=last")


def test_a_bad_argument_ends_it_with_2_and_one_clear_line(target: Target, build: Path, tmp_path: Path) -> None:
    with target.running(tmp_path, build, "sensor", "--bogus") as guest:
        assert guest.exit_code() == 2
        message = wait_for(guest, 1)[0]
    assert message.startswith("sensor: ")
    assert "--bogus" in message


@pytest.mark.parametrize("program", ["sensor", "caller"])
@pytest.mark.parametrize("name", ["kvm-amd64", "xen-amd64", "kvm-arm64", "process-amd64", "process-arm64", "process-arm"])
def test_each_build_is_recognised_as_what_it_is_built_for(build: Path, program: str, name: str) -> None:
    hypervisor, architecture = name.split("-")
    found = examine_file(build / f"{program}-{name}")
    assert found.architecture == architecture
    assert hypervisor in found.hypervisors
    assert (build / f"{program}-{name}").stat().st_size < 150_000
