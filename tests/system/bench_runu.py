# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How quickly a unikernel starts under a stock containerd: runu beside a bare QEMU and beside runc with the same program, in one run.

    tests/system/bench_runu.py [--rounds N] [--pods N] [--json FILE]

Rounds are interleaved, so that a busy machine is busy for all alike; medians are printed, and the ratios that the targets are about. Part
`runu` of `make bench` (tools/bench/containerd.py), with the project's Python, as root.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "system")]

from runu_host import Runu, build, make_bundle
from test_runu_containerd import PROGRAM, UNIKERNEL, Node, closed, memory_of, opened

from ansible_collections.unifleet.hybrid.plugins.host.runu.machine import Hardware, Machine, arguments

ARGS = ("--count", "1", "--period", "0.05")
LINE = f"-- {' '.join(ARGS)}"


def first_byte(descriptor: int) -> None:
    """Wait for output."""
    if not select.select([descriptor], [], [], 60)[0] or not os.read(descriptor, 1):
        raise SystemExit("there was no output within 60 s")


def bare_qemu(kernel: Path, *, paused: bool) -> float:
    """Seconds until the first byte: from exec, or from resuming a machine that is built."""
    console, console_end = socket.socketpair()
    control, control_end = socket.socketpair()
    with kernel.open("rb") as file:
        machine = Machine("bare", file.fileno(), LINE, 64 << 20, 1, console_end.fileno(), control_end.fileno())
        words = arguments(machine, Hardware("/usr/bin/qemu-system-x86_64", "tcg", "max"))
        if not paused:
            words.remove("-S")
        begun = time.perf_counter()
        with subprocess.Popen(words, pass_fds=machine.descriptors(), stdin=subprocess.DEVNULL) as process:
            console_end.close()
            control_end.close()
            if paused:
                control.recv(65536)
                control.sendall(b'{"execute":"qmp_capabilities"}\n')
                control.recv(65536)
                begun = time.perf_counter()
                control.sendall(b'{"execute":"cont"}\n')
            first_byte(console.fileno())
            taken = time.perf_counter() - begun
            process.kill()
    return taken


def runu_start(runu: Runu, number: int) -> tuple[float, float, float]:
    """Seconds of create, of start until the first byte, and from the monitor's resume, of which it tells the time, to that byte."""
    bundle = make_bundle(runu.directory / f"b{number}", runu.group, *ARGS)
    read, write = os.pipe()
    argv = [str(runu.program), "--root", str(runu.root)]
    environment = {**os.environ, "UNIFLEET_RUNU_CONFIG": str(runu.config)}
    begun = time.perf_counter()
    create = [*argv, "create", "--bundle", str(bundle.path), "--pid-file", str(runu.directory / f"c{number}.pid"), f"c{number}"]
    subprocess.run(create, check=True, stdin=subprocess.DEVNULL, stdout=write, env=environment)
    os.close(write)
    created = time.perf_counter() - begun
    begun = time.perf_counter()
    with subprocess.Popen([*argv, "start", f"c{number}"], env=environment):
        first_byte(read)
        taken, wall = time.perf_counter() - begun, time.time_ns()
    resumed = (wall - int((runu.root / f"c{number}" / "started").read_text())) / 1e9  # a file's time of change may be 4 ms too early
    runu.wait(f"c{number}")
    subprocess.run([*argv, "delete", f"c{number}"], check=True, env=environment)
    os.close(read)
    return created, taken, resumed


def ctr_run(node: Node, name: str, image: str, runtime: str) -> float:
    """Seconds from ctr's exec to the first byte of the container."""
    containerd = node.containerd
    words = [str(containerd.programs / "ctr"), "-a", str(containerd.directory / "s.sock"), "-n", containerd.namespace, "run", "--rm"]
    words += ["--runc-binary", str(node.runu)] if runtime == "runu" else []
    begun = time.perf_counter()
    with subprocess.Popen([*words, image, name, "/boot/kernel", *ARGS], stdout=subprocess.PIPE, env=containerd.environment()) as process:
        assert process.stdout is not None
        first_byte(process.stdout.fileno())
        taken = time.perf_counter() - begun
        process.stdout.read()
    return taken


def main() -> int:
    """Returns 0 when all targets are met."""
    parser = argparse.ArgumentParser(description="Measure how quickly unikernels start under containerd")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pods", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write every measurement to this file, for tools/bench")
    options = parser.parse_args()
    kernel = build() / "sensor-kvm-amd64"
    figures: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        figures.setdefault(name, []).append(seconds)

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "direct").mkdir()
        (directory / "c").mkdir()
        runu = Runu(directory / "direct", f"/runu-bench-{os.getpid()}")
        node = opened("bookworm", directory / "c")
        try:
            for number in range(options.rounds + 1):
                steps: dict[str, Callable[[], float]] = {
                    "bare QEMU: exec to first byte": lambda: bare_qemu(kernel, paused=False),
                    "bare QEMU: resume to first byte": lambda: bare_qemu(kernel, paused=True),
                    "ctr run, runc, the program: to first byte": lambda number=number: ctr_run(node, f"p{number}", PROGRAM, "runc"),
                    "ctr run, runu, the unikernel: to first byte": lambda number=number: ctr_run(node, f"u{number}", UNIKERNEL, "runu"),
                    "ctr run, runu, the program: to first byte": lambda number=number: ctr_run(node, f"d{number}", PROGRAM, "runu"),
                }
                for name, step in steps.items():
                    seconds = step()
                    if number:  # the first round warms caches
                        note(name, seconds)
                created, started, resumed = runu_start(runu, number)
                if number:
                    note("runu create", created)
                    note("runu start: exec to first byte", started)
                    note("runu start: resume to first byte", resumed)
            names = [f"m{number}" for number in range(options.pods)]
            for name in names:
                node.run(name)
            time.sleep(1)
            sizes = [memory_of(node.children(name)) for name in names]
            for name in names:
                node.end(name)
        finally:
            closed(node)
            runu.clean()
    medians = {name: statistics.median(values) * 1000 for name, values in figures.items()}
    for name, value in medians.items():
        low, high = min(figures[name]) * 1000, max(figures[name]) * 1000
        print(f"{name:48} {value:8.1f} ms   ({low:.1f} to {high:.1f})")
    for name in ("runu-monitor", "runu-qemu"):
        print(f"PSS of {name}, one of {options.pods:3}{'':25} {statistics.median(size[name] for size in sizes) / 1024:8.1f} MiB")
    bare, resume = medians["bare QEMU: exec to first byte"], medians["bare QEMU: resume to first byte"]
    targets = {
        "resume to first byte, at most 1.5 of a bare QEMU's": (medians["runu start: resume to first byte"] / resume, 1.5),
        "ctr run, at most 2 bare QEMUs and runc's ctr run": (
            medians["ctr run, runu, the unikernel: to first byte"] / (2 * bare + medians["ctr run, runc, the program: to first byte"]),
            1.0,
        ),
        "PSS of a monitor in MiB, at most 10": (statistics.median(size["runu-monitor"] for size in sizes) / 1024, 10.0),
    }
    for name, (value, most) in targets.items():
        print(f"{'met   ' if value <= most else 'MISSED'} {name}: {value:.2f} of {most}")
    if options.json:
        memory = {name: [size[name] * 1024 for size in sizes] for name in ("runu-monitor", "runu-qemu")}
        options.json.write_text(json.dumps({"seconds": figures, "pss": memory, "targets": targets}), encoding="utf-8")
    return 0 if all(value <= most for value, most in targets.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
