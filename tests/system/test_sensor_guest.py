# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sensor guest for real: every machine type under QEMU, the power button, the tick, and the Linux programs of both architectures."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from power_button import press_power_button

from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import COMMAND_LINE_MOST, PlainGuest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

GUEST = Path(__file__).resolve().parents[2] / "guest"
QBOOT = "/usr/share/qemu/qboot.rom"
TCG_MACHINES = {
    "pc": ["-M", "pc"],
    "q35": ["-M", "q35"],
    "pc+qboot": ["-M", "pc", "-bios", QBOOT],
    "q35+qboot": ["-M", "q35", "-bios", QBOOT],
    "microvm": ["-M", "microvm"],
}
READING = re.compile(r"sensor=(\S+) value=(-?[0-9.]+) seq=([0-9]+) uptime=([0-9]+\.[0-9]{3})(.*)")


@pytest.fixture(scope="module")
def build() -> Path:
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)
    return GUEST / "build"


class Vm:
    """A QEMU with the sensor kernel in 8 MiB; its console is a file, and QMP presses its power button."""

    def __init__(self, directory: Path, kernel: Path, machine: list[str], command_line: str) -> None:
        self.console = directory / "console"
        self.qmp = directory / "qmp"
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", *machine, "-m", "8", "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}"]
            + ["-qmp", f"unix:{self.qmp},server=on,wait=off", "-kernel", str(kernel), "-append", command_line],
            stderr=subprocess.DEVNULL,
        )

    def text(self) -> str:
        return self.console.read_text() if self.console.exists() else ""

    def wait_for(self, lines: int, seconds: float = 20) -> list[str]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.text().splitlines(keepends=True)
            if len([line for line in found if line.endswith("\n")]) >= lines:
                return found
            time.sleep(0.01)
        pytest.fail(f"{lines} lines did not come in {seconds} s; the console has: {self.text()!r}")

    def press_power_button(self) -> None:
        press_power_button(self.qmp)

    def exit_code(self) -> int | None:
        assert self.process.wait(timeout=20) == 0
        return PlainGuest().exit_code(self.console.read_bytes())


@contextmanager
def vm(directory: Path, kernel: Path, machine: list[str], *args: str, env: tuple[tuple[str, str], ...] = ()) -> Iterator[Vm]:
    running = Vm(directory, kernel, machine, PlainGuest().command_line(args, env, None))
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def kvm_works(build: Path) -> bool:
    """A /dev/kvm that is there proves nothing: boot the guest under it."""
    if not Path("/dev/kvm").exists():
        return False
    try:
        command = ["qemu-system-x86_64", "-M", "microvm", "-accel", "kvm", "-cpu", "qemu64", "-m", "8", "-nodefaults", "-display", "none"]
        command += ["-serial", "stdio", "-no-reboot", "-kernel", str(build / "sensor-kvm-amd64"), "-append", "-- --count 1"]
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return PlainGuest().exit_code(done.stdout) == 0


def machines(kvm_works: bool) -> dict[str, list[str]]:
    found = {f"tcg {name}": [*flags, "-accel", "tcg"] for name, flags in TCG_MACHINES.items()}
    if kvm_works:
        fast = ("pc+qboot", "q35+qboot", "microvm")
        found.update({f"kvm {name}": [*TCG_MACHINES[name], "-accel", "kvm", "-cpu", "qemu64"] for name in fast})
    return found


def test_readings_come_on_time_on_every_machine_type_and_the_power_button_ends_the_guest_with_0(
    build: Path, kvm_works: bool, tmp_path: Path
) -> None:
    for name, flags in machines(kvm_works).items():
        directory = tmp_path / name.replace(" ", "-")
        directory.mkdir()
        args = ("--sensor", "humidity", "--period", "0.25", "--source", "series:21.5,-3", "GREEN")
        with vm(directory, build / "sensor-kvm-amd64", flags, *args) as guest:
            first = guest.wait_for(1)
            first_after, at_first = time.monotonic() - guest.began, time.monotonic()
            guest.wait_for(5)
            host_took = time.monotonic() - at_first
            guest.press_power_button()
            pressed = time.monotonic()
            assert guest.exit_code() == 0, name
            print(
                f"{name}: first line after {first_after * 1000:.0f} ms, off {(time.monotonic() - pressed) * 1000:.0f} ms after the button"
            )
            lines = guest.text().splitlines()
            assert first[0].rstrip("\n") == lines[0]
            readings = [READING.fullmatch(line) for line in lines[:5]]
            assert all(readings), lines
            assert [(r[1], r[2], r[3], r[5]) for r in readings if r][:3] == [
                ("humidity", "21.5", "1", " tag=GREEN"),
                ("humidity", "-3", "2", " tag=GREEN"),
                ("humidity", "21.5", "3", " tag=GREEN"),
            ]
            uptimes = [float(r[4]) for r in readings if r]
            assert uptimes[0] < 1.0, name
            assert uptimes[4] - uptimes[0] == pytest.approx(1.0, abs=0.2), name
            assert host_took == pytest.approx(1.0, abs=0.4), f"{name}: the guest's second is not the host's"
            assert lines[-1] == "unikernel: exit 0"


def test_a_guest_that_sleeps_for_an_hour_still_hears_the_power_button(build: Path, tmp_path: Path) -> None:
    for name in ("q35", "pc+qboot", "microvm"):
        directory = tmp_path / name
        directory.mkdir()
        with vm(directory, build / "sensor-kvm-amd64", [*TCG_MACHINES[name], "-accel", "tcg"], "--period", "3600") as guest:
            guest.wait_for(1)
            guest.press_power_button()
            began = time.monotonic()
            assert guest.exit_code() == 0
            assert time.monotonic() - began < 2


def test_the_tick_is_right_without_a_known_hypervisor_too(build: Path, tmp_path: Path) -> None:
    flags = ["-M", "q35", "-accel", "tcg", "-cpu", "qemu64,-hypervisor"]
    with vm(tmp_path, build / "sensor-kvm-amd64", flags, "--period", "0.5", "--count", "5") as guest:
        guest.wait_for(1)
        began = time.monotonic()
        guest.wait_for(5)
        assert time.monotonic() - began == pytest.approx(2.0, abs=0.4)
        assert guest.exit_code() == 0


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--bogus"], "--bogus"),
        (["--period", "0"], "--period"),
        (["--period"], "--period"),
        (["--source", "file:/sys/class/x"], "no files"),
        (["--source", "series:1,,2"], "series"),
        (["--count", "-1"], "--count"),
        (["--sensor", "x" * 129], "--sensor"),
    ],
)
def test_a_bad_argument_ends_a_virtual_machine_with_2_and_one_clear_line(build: Path, tmp_path: Path, args: list[str], named: str) -> None:
    with vm(tmp_path, build / "sensor-kvm-amd64", [*TCG_MACHINES["microvm"], "-accel", "tcg"], *args) as guest:
        assert guest.exit_code() == 2
        message, last = guest.text().splitlines()
        assert message.startswith("sensor: ")
        assert named in message
        assert last == "unikernel: exit 2"


def test_the_longest_command_line_arrives_whole_on_every_machine_type(build: Path, tmp_path: Path) -> None:
    tag = 'ä"\\ <&>%\n'
    env: tuple[tuple[str, str], ...] = (("NOTHING", ""), ("SENSOR_NAME", "from env"))
    base = len(PlainGuest().command_line(("--count", "1", tag, ""), (*env, ("PAD", "")), None))
    env = (*env, ("PAD", "x" * (COMMAND_LINE_MOST - base)))
    for name, flags in TCG_MACHINES.items():
        directory = tmp_path / name
        directory.mkdir()
        with vm(directory, build / "sensor-kvm-amd64", [*flags, "-accel", "tcg"], "--count", "1", tag, "", env=env) as guest:
            assert guest.exit_code() == 0, (name, guest.text())
            line = guest.text().splitlines()[0]
            assert line.startswith('sensor="from env" value='), name
            assert line.endswith('tag="ä\\"\\\\ <&>%\\x0a" tag=""'), name


PROGRAMS = {"amd64": [], "arm64": ["qemu-aarch64-static"]}


@pytest.fixture(params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest, build: Path) -> list[str]:
    return [*PROGRAMS[request.param], str(build / f"sensor-process-{request.param}")]


def test_a_program_ends_with_0_on_term(program: list[str]) -> None:
    with subprocess.Popen([*program, "--period", "3600"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert READING.fullmatch(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0


def test_a_program_reads_a_sensor_file_anew_each_time_and_goes_on_when_it_is_bad(program: list[str], tmp_path: Path) -> None:
    sensor = tmp_path / "in humidity"
    sensor.write_text("43200\n")
    command = [*program, "--sensor", "h", "--source", f"file:{sensor}", "--decimals", "3", "--period", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def next_with(text: str) -> None:
            assert any(text in process.stdout.readline() for _number in range(100)), text  # type: ignore[union-attr]

        next_with("value=43.2 ")
        for content, expected in [
            (b"\xff\x00<script>", "does not hold one decimal number"),
            (b"1" * 1_000_000, "does not hold one decimal number"),
            (b"", "is empty"),
            (b"-1500", "value=-1.5 "),
        ]:
            sensor.write_bytes(content)
            next_with(expected)
        sensor.unlink()
        next_with("no such file")
        sensor.mkdir()
        next_with("is a directory")
        process.terminate()
        assert process.wait(timeout=5) == 0


def test_a_program_refuses_a_bad_argument_with_2(program: list[str]) -> None:
    done = subprocess.run([*program, "--source", "file:relative"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.count("\n") == 1
    assert "absolute path" in done.stdout


def test_the_build_gives_the_same_bytes_in_another_place(build: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(GUEST, copy, ignore=shutil.ignore_patterns("build"))
    subprocess.run(["make", "-s", "-C", str(copy)], check=True)
    targets = sorted(path.name for path in (copy / "build").glob("*-*-*"))
    assert len(targets) >= 12
    for target in targets:
        assert (copy / "build" / target).read_bytes() == (build / target).read_bytes(), target
