# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every target that the guests are built for, each as something that starts a program, shows its console, and can ask it to stop."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from power_button import press_power_button

from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.tools.xen_host.host import XenHost

QBOOT = "/usr/share/qemu/qboot.rom"
Env = tuple[tuple[str, str], ...]


class Running(Protocol):
    """A program that runs on a target."""

    def text(self) -> str:
        """What it has written."""

    def ask_to_stop(self) -> None:
        """Press the power button, or what stands for it."""

    def exit_code(self) -> int | None:
        """Its exit code, once it has ended; fails when it does not."""

    def busy_seconds(self) -> float:
        """Processor time that it has used on the host."""

    def kill(self) -> None:
        """End it whatever it does."""


def wait_for(running: Running, lines: int, seconds: float = 30) -> list[str]:
    """The console's lines, once there are so many whole ones."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = running.text().splitlines(keepends=True)
        if sum(line.endswith("\n") for line in found) >= lines:
            return [line.rstrip("\r\n") for line in found]
        time.sleep(0.02)
    pytest.fail(f"{lines} lines did not come in {seconds} s; the console has: {running.text()!r}")


@dataclass(frozen=True)
class Target:
    """A kind of machine or process; `start` gets a directory of its own, the program, the arguments and the environment."""

    name: str
    build: str
    """The file in guest/build is PROGRAM-BUILD."""
    start: Callable[[Path, Path, Sequence[str], Env], Running] = field(compare=False)
    command_line_most: int = 4095
    slack_seconds: float = 0.3
    """How late a reading may be."""

    @contextmanager
    def running(self, directory: Path, builds: Path, program: str, *args: str, env: Env = ()) -> Iterator[Running]:
        started = self.start(directory, builds / f"{program}-{self.build}", args, env)
        try:
            yield started
        finally:
            started.kill()


class QemuGuest:
    """A QEMU with 8 MiB or more; its console is a file, and QMP presses its power button."""

    def __init__(self, words: Sequence[str], directory: Path, kernel: Path, args: Sequence[str], env: Env) -> None:
        self.console = directory / "console"
        self.control = directory / "control"
        line = PlainGuest().command_line(args, env, None)
        command = [*words, "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}"]
        command += ["-qmp", f"unix:{self.control},server=on,wait=off", "-kernel", str(kernel), "-append", line]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def text(self) -> str:
        return self.console.read_text() if self.console.exists() else ""

    def ask_to_stop(self) -> None:
        press_power_button(self.control)

    def exit_code(self) -> int | None:
        assert self.process.wait(timeout=30) == 0
        return PlainGuest().exit_code(self.console.read_bytes())

    def busy_seconds(self) -> float:
        return processor_seconds(self.process.pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class ProcessGuest:
    """A Linux program, through an emulator where it is for another processor."""

    def __init__(self, words: Sequence[str], directory: Path, program: Path, args: Sequence[str], env: Env) -> None:
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen([*words, str(program), *args], stdout=output, env=dict(env))

    def text(self) -> str:
        return self.output.read_text()

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int | None:
        return self.process.wait(timeout=30)

    def busy_seconds(self) -> float:
        return processor_seconds(self.process.pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class XenGuest:
    """A domain of the Xen host, made by xl; its console is what xenconsoled logs."""

    def __init__(self, host: XenHost, kind: str, kernel: Path, line: str, memory: int = 8, extra: str = "") -> None:
        self.host = host
        self.name = f"guest-{time.monotonic_ns()}"
        self.log = f"/var/log/xen/console/guest-{self.name}.log"
        host.put("/root/kernel", kernel.read_bytes())
        settings = {"name": self.name, "type": kind, "kernel": "/root/kernel", "cmdline": line, "on_crash": "destroy"}
        text = "".join(f'{name} = "{value}"\n' for name, value in settings.items()) + f"memory = {memory}\nvcpus = 1\n{extra}\n"
        host.put(f"/root/{self.name}.cfg", text.encode())
        host.run(f"xl create -q /root/{self.name}.cfg")

    def text(self) -> str:
        return self.host.run(f"cat {self.log}").replace("\r\n", "\n")

    def ask_to_stop(self) -> None:
        self.host.run(f"xl shutdown {self.name}")

    def is_there(self) -> bool:
        return self.host.run(f"xl domid {self.name} 2> /dev/null || true").strip() != ""

    def exit_code(self) -> int | None:
        until = time.monotonic() + 30
        while self.is_there():
            assert time.monotonic() < until, f"the domain does not end; its console has {self.text()!r}"
        return PlainGuest().exit_code(self.text().encode())

    def busy_seconds(self) -> float:
        return float(self.host.run(f"xl list {self.name} | tail -n 1").split()[-1])

    def kill(self) -> None:
        self.host.run(f"xl destroy {self.name} 2> /dev/null || true; rm -f {self.log} /root/{self.name}.cfg")


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def qemu(name: str, build: str, *words: str) -> Target:
    """A QEMU machine with these words of its command line."""
    return Target(name, build, lambda directory, kernel, args, env: QemuGuest(words, directory, kernel, args, env))


def process(architecture: str, *words: str) -> Target:
    """Programs of an architecture, run by these words."""
    return Target(
        f"process-{architecture}",
        f"process-{architecture}",
        lambda directory, program, args, env: ProcessGuest(words, directory, program, args, env),
    )


def xen(kind: str, host: Callable[[], XenHost]) -> Target:
    """Domains of a kind, on the host that is asked for when the first one starts."""
    return Target(
        f"xen-{kind}",
        "xen-amd64",
        lambda _directory, kernel, args, env: XenGuest(host(), kind, kernel, PlainGuest().command_line(args, env, None)),
        command_line_most=4095 if kind == "pvh" else 1022,
        slack_seconds=1.0,
    )


_PC = ("qemu-system-x86_64", "-accel", "tcg", "-m", "8")
_ARM = ("qemu-system-aarch64", "-accel", "tcg", "-m", "16")
QEMU_TARGETS = (
    qemu("pc", "kvm-amd64", *_PC, "-M", "pc", "-bios", QBOOT),
    qemu("q35", "kvm-amd64", *_PC, "-M", "q35", "-bios", QBOOT),
    qemu("q35-seabios", "kvm-amd64", *_PC, "-M", "q35"),
    qemu("microvm", "kvm-amd64", *_PC, "-M", "microvm"),
    qemu("arm64-gicv2", "kvm-arm64", *_ARM, "-M", "virt,gic-version=2", "-cpu", "cortex-a57"),
    qemu("arm64-gicv3", "kvm-arm64", *_ARM, "-M", "virt,gic-version=3", "-cpu", "cortex-a72"),
    qemu("arm64-max", "kvm-arm64", *_ARM, "-M", "virt,gic-version=max", "-cpu", "max"),
)
PROCESS_TARGETS = (process("amd64"), process("arm64", "qemu-aarch64-static"), process("arm", "qemu-arm-static"))
