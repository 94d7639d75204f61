# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels that nobody here wrote, from Debian's packages: what is told of their files, and Linux booted with one program as its init.

The packages are fetched once, into ~/.cache/unifleet/foreign-kernels. Nothing is installed.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.linux import ARGUMENTS_MOST, VARIABLES_MOST, LinuxGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.kernel_file import KernelFile, examine_file

pytestmark = [pytest.mark.system, pytest.mark.wide, pytest.mark.timeout(300)]

CACHE = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet") / "foreign-kernels"
GUEST = Path(__file__).resolve().parents[2] / "guest"
PACKAGES = ("grub-xen-host", "memtest86+", "ipxe", "linux-image-cloud-amd64")
TELLS = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
extern char **environ;
static void tell(const char *what, const char *text) {
    printf("%s=", what);
    for (; *text; text++)
        printf("%02x", (unsigned char)*text);
    printf("\n");
}
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        tell("arg", argv[i]);
    for (char **entry = environ; *entry; entry++)
        tell("env", *entry);
    fflush(stdout);
    const char *end = getenv("END");
    if (end && !strcmp(end, "off"))
        reboot(RB_POWER_OFF);
    if (end && !strcmp(end, "abort"))
        abort();
    return end ? atoi(end) : 0;
}
"""


def unpacked(package: str) -> Path:
    """The package's files. A package of dependencies alone stands for the first that it depends on."""
    root = CACHE / package.replace("+", "_")
    if not root.is_dir():
        fetched = CACHE / "fetched" / root.name
        fetched.mkdir(parents=True, exist_ok=True)
        name = package
        if package.startswith("linux-image"):
            listed = subprocess.run(["apt-cache", "depends", "--important", package], capture_output=True, text=True, check=True).stdout
            name = next(line.split()[-1] for line in listed.splitlines() if "Depends:" in line)
        subprocess.run(["apt-get", "-q", "download", f"{name}:amd64" if "linux" in name else name], cwd=fetched, check=True)
        (archive,) = fetched.glob(f"{name}_*.deb")
        new = root.with_suffix(".new")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(new)], check=True)
        new.rename(root)
        archive.unlink()
    return root


@pytest.fixture(scope="module")
def roots() -> dict[str, Path]:
    return {package: unpacked(package) for package in PACKAGES}


@pytest.fixture(scope="module")
def vmlinuz(roots: dict[str, Path]) -> Path:
    return next(roots["linux-image-cloud-amd64"].glob("boot/vmlinuz-*"))


def cpio(init: Path) -> bytes:
    """An initramfs (newc) of this program as /init and the console that it writes to."""

    def entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
        numbers = (1, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
        return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)

    files = [entry("dev", 0o040755), entry("dev/console", 0o020600, device=(5, 1)), entry("init", 0o100755, init.read_bytes())]
    return b"".join([*files, entry("TRAILER!!!", 0)])


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initrd whose init tells its arguments and variables in hexadecimal and ends as END says."""
    build = tmp_path_factory.mktemp("teller")
    (build / "tells.c").write_text(TELLS)
    subprocess.run(["gcc", "-Os", "-static", "-o", str(build / "init"), str(build / "tells.c")], check=True)
    (build / "initrd").write_bytes(cpio(build / "init"))
    return build / "initrd"


def boot(kernel: Path, initrd: Path, line: str) -> bytes:
    """The console of a whole run on machine type pc."""
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none", "-serial", "stdio"]
    command += ["-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd), "-append", line]
    return subprocess.run(command, capture_output=True, timeout=200, check=True).stdout


def told(console: bytes) -> tuple[list[bytes], list[bytes]]:
    """(arguments, variables) as the teller told them."""
    found: dict[bytes, list[bytes]] = {b"arg": [], b"env": []}
    for line in console.replace(b"\r", b"").split(b"\n"):
        what, equals, code = line.partition(b"=")
        if equals and what in found:
            found[what].append(bytes.fromhex(code.decode()))
    return found[b"arg"], found[b"env"]


def expected_files(roots: dict[str, Path]) -> Iterator[tuple[Path, KernelFile]]:
    xen = roots["grub-xen-host"] / "usr/lib/grub-xen"
    yield xen / "grub-x86_64-xen.bin", KernelFile("elf", "amd64", ("xen-pv",))
    yield xen / "grub-i386-xen.bin", KernelFile("elf", "amd64", ("xen-pv",))
    yield xen / "grub-i386-xen_pvh.bin", KernelFile("elf", "amd64", ("pvh", "xen-pvh"))
    yield roots["memtest86+"] / "boot/memtest86+x64.bin", KernelFile("bzimage", "amd64", ("linux",))
    yield roots["ipxe"] / "boot/ipxe.lkrn", KernelFile("bzimage", "amd64", ("linux",))
    [kernel] = roots["linux-image-cloud-amd64"].glob("boot/vmlinuz-*")
    yield kernel, KernelFile("bzimage", "amd64", ("linux",), "linux")


def test_real_files_are_told_by_their_marks(roots: dict[str, Path]) -> None:
    for path, expected in expected_files(roots):
        assert examine_file(path) == expected, path
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)
    own = examine_file(GUEST / "build/sensor-kvm-amd64")
    assert (own.family, own.architecture) == ("plain", "amd64")
    assert "kvm" in own.hypervisors
    assert examine_file(GUEST / "build/sensor-process-arm64").boots == ("program",)


def test_linux_gives_its_init_exactly_what_the_pod_says(vmlinuz: Path, teller: Path) -> None:
    args = ["one", "two words", "", "x=y z", 'a"b"', '{"a": 1}', "à", ':=""', "=q=r", " lead", "--x", "nokaslr"]
    env = [("A", "b c"), ("EMPTY", ""), ("JSON", '{"k": [1, 2]}'), ("ACCENT", "à"), ("END", "3")]
    console = boot(vmlinuz, teller, LinuxGuest().command_line(args, env, Network("10.0.0.5/32", "10.0.0.1")))
    arguments, variables = told(console)
    assert arguments == [arg.encode() for arg in args]
    assert variables[2:] == [b"ip=10.0.0.5::10.0.0.1:255.255.255.248::eth0:off", *(f"{name}={value}".encode() for name, value in env)]
    assert LinuxGuest().exit_code(console[-16384:]) == 3


def test_linux_takes_the_most_that_we_pass_and_its_init_may_be_killed(vmlinuz: Path, teller: Path) -> None:
    args = [str(number) for number in range(ARGUMENTS_MOST)]
    env = [("END", "abort"), *((f"V{number}", "x") for number in range(VARIABLES_MOST - 1))]
    console = boot(vmlinuz, teller, LinuxGuest().command_line(args, env, None))
    arguments, variables = told(console)
    assert (len(arguments), len(variables)) == (ARGUMENTS_MOST, VARIABLES_MOST + 2)
    assert LinuxGuest().exit_code(console[-16384:]) in (134, 139), "abort() of process 1 raises no signal, so libc then crashes it"


def test_an_init_that_powers_off_says_no_code(vmlinuz: Path, teller: Path) -> None:
    console = boot(vmlinuz, teller, LinuxGuest().command_line([], [("END", "off")], None))
    assert b"reboot: Power down" in console
    assert LinuxGuest().exit_code(console[-16384:]) is None


def test_the_sensor_program_runs_as_the_init_of_a_linux_guest(vmlinuz: Path, tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)
    (tmp_path / "initrd").write_bytes(cpio(GUEST / "build/sensor-process-amd64"))
    args = ["--sensor", "humidity", "--period", "0.1", "--count", "3", "GREEN"]
    console = boot(vmlinuz, tmp_path / "initrd", LinuxGuest().command_line(args, [("SENSOR_SOURCE", "value:21.5")], None))
    readings = [line for line in console.replace(b"\r", b"").split(b"\n") if line.startswith(b"sensor=humidity value=21.5 ")]
    assert len(readings) == 3
    assert all(line.endswith(b" tag=GREEN") for line in readings)
    assert LinuxGuest().exit_code(console[-16384:]) == 0


@contextmanager
def screen(kernel: Path, directory: Path, *more: str) -> Iterator[tuple[Path, socket.socket]]:
    """A running QEMU: its serial console's file, and QMP."""
    console, path = directory / "console", directory / "qmp"
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", *more]
    command += ["-serial", f"file:{console}", "-qmp", f"unix:{path},server=on,wait=off", "-kernel", str(kernel)]
    with subprocess.Popen(command) as process:
        try:
            until = time.monotonic() + 60
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.05)
            with socket.socket(socket.AF_UNIX) as qmp:
                qmp.connect(str(path))
                yield console, qmp
        finally:
            process.kill()


def wait_for(text: bytes, look: Sequence[str], read: object, seconds: float = 90) -> None:
    assert callable(read)
    until, seen = time.monotonic() + seconds, b""
    while time.monotonic() < until:
        seen = read()
        if text in seen:
            return
        time.sleep(0.2)
    pytest.fail(f"{look}: {text!r} did not come; there is {seen[-500:]!r}")


def test_memtest86_boots_and_draws_on_the_serial_console(roots: dict[str, Path], tmp_path: Path) -> None:
    kernel = roots["memtest86+"] / "boot/memtest86+x64.bin"
    with screen(kernel, tmp_path, "-append", "console=ttyS0,115200") as (console, _qmp):
        wait_for(b"Memtest86+", ["memtest86+"], lambda: console.read_bytes() if console.exists() else b"")


def test_ipxe_boots_and_says_so_on_the_screen(roots: dict[str, Path], tmp_path: Path) -> None:
    """It has no serial console, so the text is read out of the VGA's memory (characters and colours in turn)."""
    picture = tmp_path / "picture"
    with screen(roots["ipxe"] / "boot/ipxe.lkrn", tmp_path, "-vga", "std") as (_console, qmp):
        stream = qmp.makefile("rw")
        stream.readline()

        def ask(command: str, **arguments: object) -> None:
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            while "event" in (answer := json.loads(stream.readline())):
                pass
            assert "return" in answer, answer

        def read() -> bytes:
            ask("pmemsave", val=0xB8000, size=4000, filename=str(picture))
            return bytes(letter for letter, _colour in struct.iter_unpack("BB", picture.read_bytes()))

        ask("qmp_capabilities")
        wait_for(b"iPXE", ["ipxe"], read)
