# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the sensor takes from exec to its first line and its first HTTP answer on each kind of machine, with QEMU started directly.

QEMU translates (TCG), which every machine can do. Targets take turns, so that what else the machine does meets all of them alike;
the first round warms the caches and is not counted. Everything is in a network namespace of its own, which goes with it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.tools.bench.chart import Bar, Chart, Group
from ansible_collections.unifleet.hybrid.tools.bench.report import (
    Outcome,
    Progress,
    Spread,
    Table,
    memory_text,
    ratio_text,
    seconds_text,
    spread,
    spread_text,
)
from ansible_collections.unifleet.hybrid.tools.bench.sizes import BUILDS
from ansible_collections.unifleet.hybrid.tools.bench.stopwatch import Timing, timing

ROUNDS = 15
QBOOT = "/usr/share/qemu/qboot.rom"
HOST, ADDRESS = "10.77.53.1", "10.77.53.2"
PORT = 18080
ARGS = ("--sensor", "bench", "--source", "simulated")


@dataclass(frozen=True)
class Target:
    """words: the command's beginning. build: what it runs is guest/build/sensor-BUILD. A virtual machine has the tap for its network."""

    name: str
    build: str
    words: tuple[str, ...]

    @property
    def is_machine(self) -> bool:
        """Whether it is a virtual machine, else a process."""
        return self.build.startswith("kvm")


_PC = ("qemu-system-x86_64", "-accel", "tcg", "-m", "8", "-M")
_ON_BUS = ("-device", "virtio-net-pci,netdev=n,romfile=")
TARGETS = (
    Target("microvm", "kvm-amd64", (*_PC, "microvm", "-device", "virtio-net-device,netdev=n")),
    Target("pc + qboot", "kvm-amd64", (*_PC, "pc", "-bios", QBOOT, *_ON_BUS)),
    Target("q35 + qboot", "kvm-amd64", (*_PC, "q35", "-bios", QBOOT, *_ON_BUS)),
    Target("pc + SeaBIOS", "kvm-amd64", (*_PC, "pc", *_ON_BUS)),
    Target(
        "arm64 virt",
        "kvm-arm64",
        ("qemu-system-aarch64", "-accel", "tcg", "-m", "16", "-M", "virt", "-cpu", "max", "-device", "virtio-net-device,netdev=n"),
    ),
    Target("process amd64", "process-amd64", ()),
    Target("process arm64 (qemu-user)", "process-arm64", ("qemu-aarch64-static",)),
)
BASELINE = "pc + qboot"
"""What the provider kvm takes where an image asks for nothing else."""


def measure(progress: Progress) -> Outcome:
    """Start every target in turns."""
    timings: dict[str, list[Timing]] = {target.name: [] for target in TARGETS}
    with namespace(), tempfile.TemporaryDirectory(prefix="unifleet-bench-") as directory:
        for number in range(ROUNDS + 1):
            if number % 5 == 0:
                progress(f"round {number} of {ROUNDS}" if number else f"warming up, then {', '.join(timings)} in turns")
            for target in TARGETS:
                measured = start(target, Path(directory))
                if number:
                    timings[target.name].append(measured)
    return outcome(timings)


@contextmanager
def namespace() -> Iterator[None]:
    """This thread, and so all that it starts, in a network namespace of its own with tap0. Needs root."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    try:
        for command in ("link set lo up", "tuntap add dev tap0 mode tap", f"address add {HOST}/24 dev tap0", "link set tap0 up"):
            subprocess.run(["ip", *command.split()], check=True)
        yield
    finally:
        os.setns(own)
        os.close(own)


def command_of(target: Target, console: Path) -> list[str]:
    """The command that starts the sensor there. A machine's console is a file; a process writes its own."""
    program = str(BUILDS / f"sensor-{target.build}")
    if not target.is_machine:
        return [*target.words, program, *ARGS, "--port", str(PORT)]
    line = PlainGuest().command_line(ARGS, (), Network(f"{ADDRESS}/24", HOST))
    command = [*target.words, "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    return [*command, "-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-kernel", program, "-append", line]


def start(target: Target, directory: Path) -> Timing:
    """One start. Raises TooLateError."""
    console = directory / "console"
    console.unlink(missing_ok=True)
    command = command_of(target, console)
    with (Path(os.devnull) if target.is_machine else console).open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
    try:
        return timing(started, console, (ADDRESS, 80) if target.is_machine else ("127.0.0.1", PORT), lambda: process.pid)
    finally:
        process.kill()
        process.wait()


def outcome(timings: Mapping[str, Sequence[Timing]]) -> Outcome:
    """The table and the chart."""
    lines = {name: spread(one.first_line for one in found) for name, found in timings.items()}
    answers = {name: spread(one.first_answer for one in found) for name, found in timings.items()}
    rows = []
    for name, found in timings.items():
        guest = spread(one.guest for one in found if one.guest is not None)
        memory = [memory_text(spread(getattr(one, kind) for one in found).median) for kind in ("rss", "pss")]
        times = (spread_text(lines[name]), spread_text(answers[name]), ratio_text(answers[name].median / answers[BASELINE].median))
        rows.append((name, *times, "under 1 ms" if guest.median < 1e-3 else seconds_text(guest.median), *memory))
    note = (
        f"Median and quartiles of {min(map(len, timings.values()))} starts each, in turns, from exec of QEMU (or of the program)"
        f" under TCG; looked at every millisecond. Ratio: to the first answer, over {BASELINE!r}. Uptime: what the guest's first"
        " reading says. RSS and PSS: of the QEMU or program process, after the first answer."
    )
    columns = ("target", "first line", "first HTTP answer", f"ratio to {BASELINE}", "guest's uptime then", "RSS", "PSS")
    chart = Chart(
        "From exec to the first line and the first HTTP answer",
        "sensor, QEMU started directly under TCG; median, thin line: quartiles",
        ("first line", "first HTTP answer"),
        tuple(Group(name, (bar_of(lines[name]), bar_of(answers[name]))) for name in timings),
        seconds_text,
    )
    figures = {name: [asdict(one) for one in found] for name, found in timings.items()}
    return Outcome(figures, (Table("Boot time by target", columns, tuple(rows), note),), {"boot": chart})


def bar_of(measured: Spread) -> Bar:
    """A median with its quartiles."""
    return Bar(measured.median, measured.low, measured.high)
