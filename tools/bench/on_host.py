# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host: starts the sensor through Unifleet's machines and bare, in turns, and writes the timings as JSON on its output.

on_host.py ROUNDS KERNEL PROGRAM. Through Unifleet: prepare() and start() of Machines, as the virtual kubelet calls them once the image is
there: a libvirt domain on a bridge, or a transient unit of systemd. Bare: the same QEMU machine from its command line on a tap that is
there already, and the same program by fork and exec. Between the two: what libvirt takes for the same domain, and systemd for a plain unit,
when nobody but them has a hand in it. Python 3.9, standard library and the host's packages.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Callable, Union

import libvirt

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.plugins.host.machines.accelerator import QBOOT, Accelerator
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Interface, Kernel, Machines, MachineSpec, Program
from ansible_collections.unifleet.hybrid.plugins.host.machines.kvm import KvmMachines
from ansible_collections.unifleet.hybrid.plugins.host.machines.libvirt_domain import domain_xml, host_hardware
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge
from ansible_collections.unifleet.hybrid.plugins.host.machines.process import ProcessMachines
from ansible_collections.unifleet.hybrid.plugins.host.machines.registry import MachinesSettings
from ansible_collections.unifleet.hybrid.tools.bench.stopwatch import Timing, pid_with, timing

BRIDGE, TAP, NETWORK = "ufbench0", "ufbench1", "10.214.53.0/24"
GATEWAY, ADDRESS, MAC = "10.214.53.1", "10.214.53.2", "52:54:00:53:00:02"
PORT = 18080
MEMORY = 8 << 20
ARGS = ("--source", "simulated")
Way = Callable[[], Timing]


def through_unifleet(machines: Machines, boot: Union[Kernel, Program], address: tuple[str, int], directory: Path) -> Timing:
    """One start by prepare() and start(); the machine is removed again."""
    spec = spec_of(boot, directory)
    console = dict(machines.raw_console(spec.key, spec.log_directory))["stdout"]

    def begin() -> None:
        machines.prepare(spec)
        machines.start(spec.key)

    return followed(begin, lambda: machines.remove(spec.key), console, address, spec)


def libvirt_alone(machines: KvmMachines, kernel: Kernel, address: tuple[str, int], directory: Path) -> Timing:
    """One start of the same domain by libvirt, which is told no more than to start it."""
    spec = spec_of(kernel, directory)
    console = directory / f"{spec.key}.console"
    accelerator = machines.accelerator
    domain_type = "kvm" if accelerator.kind == "kvm" else "qemu"
    xml = domain_xml(spec, kernel, console, host_hardware(platform.machine(), domain_type, accelerator.cpu, QBOOT, limit_cpu=False))
    connection = libvirt.open("qemu:///system")
    try:
        return followed(
            lambda: connection.createXML(xml), lambda: connection.lookupByUUIDString(spec.key).destroy(), console, address, spec
        )
    finally:
        connection.close()


def systemd_alone(command: list[str], address: tuple[str, int], directory: Path) -> Timing:
    """One start of the same program by systemd-run, as a unit with no isolation."""
    spec = spec_of(Program(directory, tuple(command)), directory)
    console, unit = directory / f"{spec.key}.output", f"bench-{spec.key}.service"
    run = [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit}",
        "-pType=exec",
        "-pKillSignal=SIGKILL",
        f"-pStandardOutput=file:{console}",
        *command,
    ]
    return followed(
        lambda: subprocess.run(run, check=True),
        lambda: subprocess.run(["systemctl", "stop", unit], check=True),
        console,
        address,
        spec,
    )


def spec_of(boot: Union[Kernel, Program], directory: Path) -> MachineSpec:
    """A machine of its own key."""
    key = str(uuid.uuid4())
    interface = Interface(f"{ADDRESS}/24", GATEWAY, BRIDGE, MAC) if isinstance(boot, Kernel) else None
    return MachineSpec(key=key, title="bench/sensor", boot=boot, log_directory=directory / key, memory_bytes=MEMORY, interface=interface)


def followed(begin: Callable[[], object], end: Callable[[], object], console: Path, address: tuple[str, int], spec: MachineSpec) -> Timing:
    """What begin() starts, watched from the moment that it is called; end() ends it."""
    word, program = (spec.key, "qemu-system") if spec.interface else (str(PORT), "sensor")

    def called() -> float:
        begin()
        return time.monotonic() - started

    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        job = pool.submit(called)
        try:
            measured = timing(started, console, address, lambda: pid_with(word, program))
        finally:
            took = job.result()
            end()
    return replace(measured, called=took)


def bare(command: list[str], console: Path, address: tuple[str, int], *, writes_itself: bool) -> Timing:
    """One start by exec."""
    console.unlink(missing_ok=True)
    with (Path(os.devnull) if writes_itself else console).open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL)
    try:
        return timing(started, console, address, lambda: process.pid)
    finally:
        process.kill()
        process.wait()


def qemu(accelerator: Accelerator, kernel: Path, line: str, console: Path) -> list[str]:
    """The machine that the provider kvm makes, with the words of a person."""
    command = ["qemu-system-x86_64", "-M", "pc", "-bios", str(QBOOT), "-accel", accelerator.kind, "-cpu", accelerator.cpu]
    command += ["-m", f"{MEMORY >> 20}", "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    command += ["-netdev", f"tap,id=n,ifname={TAP},script=no,downscript=no", "-device", f"virtio-net-pci,netdev=n,romfile=,mac={MAC}"]
    return [*command, "-kernel", str(kernel), "-append", line]


@contextmanager
def bridge() -> Iterator[None]:
    """The bridge for both, with a tap for the bare QEMU on it."""
    made = PodBridge(BRIDGE, "qemu:///system")
    made.ensure([NETWORK])
    try:
        for command in (f"tuntap add dev {TAP} mode tap", f"link set {TAP} master {BRIDGE}", f"link set {TAP} up"):
            subprocess.run(["ip", *command.split()], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", TAP], check=False)
        made.remove()


def measure(rounds: int, kernel: Path, program: Path, directory: Path) -> dict[str, object]:
    """All ways in turns; the first round is not counted."""
    virtual = KvmMachines(MachinesSettings(state_directory=directory / "state", probe_kernel=kernel))
    processes = ProcessMachines(directory / "run")
    line = PlainGuest().command_line(ARGS, (), Network(f"{ADDRESS}/24", GATEWAY))
    image = directory / "image"
    image.mkdir()
    shutil.copy(program, image / "sensor")
    image.chmod(0o755)
    arguments = (*ARGS, "--port", str(PORT))
    guest, local = (ADDRESS, 80), ("127.0.0.1", PORT)
    boots = Kernel(kernel, line, can_shut_down=True)
    command, console = qemu(virtual.accelerator, kernel, line, directory / "console"), directory / "console"
    ways: dict[str, dict[str, Way]] = {
        "kvm": {
            "unifleet": lambda: through_unifleet(virtual, boots, guest, directory),
            "alone": lambda: libvirt_alone(virtual, boots, guest, directory),
            "bare": lambda: bare(command, console, guest, writes_itself=True),
        },
        "process": {
            "unifleet": lambda: through_unifleet(processes, Program(image, ("/sensor", *arguments)), local, directory),
            "alone": lambda: systemd_alone([str(image / "sensor"), *arguments], local, directory),
            "bare": lambda: bare([str(image / "sensor"), *arguments], console, local, writes_itself=False),
        },
    }
    timings: dict[str, dict[str, list[dict[str, object]]]] = {kind: {way: [] for way in of_kind} for kind, of_kind in ways.items()}
    with bridge():
        for number in range(rounds + 1):
            print(f"round {number} of {rounds}" if number else "warming up", file=sys.stderr, flush=True)
            for kind, of_kind in ways.items():
                for way, run in of_kind.items():
                    measured = asdict(run())
                    if number:
                        timings[kind][way].append(measured)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return {"accelerator": asdict(virtual.accelerator), "qemu": version, "timings": timings}


def main() -> None:
    """See the module."""
    # Where QEMU's user may read.
    directory = Path(tempfile.mkdtemp(prefix="unifleet-bench-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        kernel = directory / "kernel"
        shutil.copy(sys.argv[2], kernel)
        kernel.chmod(0o644)
        print(json.dumps(measure(int(sys.argv[1]), kernel, Path(sys.argv[3]), directory)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
