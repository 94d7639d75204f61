# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network for guests under test: every kind of virtio card under QEMU on a tap, the Linux programs, and the servers that they call.

Everything happens in a network namespace of the test module's own: the host's end of the tap is 10.77.31.1, the guest is 10.77.31.2,
192.0.2.1 is an address that can only be reached through the gateway.
"""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from power_button import press_power_button

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest

GUEST = Path(__file__).resolve().parents[2] / "guest"
QBOOT = "/usr/share/qemu/qboot.rom"
HOST, ADDRESS, FAR = "10.77.31.1", "10.77.31.2", "192.0.2.1"
NETWORK = Network(f"{ADDRESS}/24", HOST, (HOST,))
BEHIND_ROOT_PORT = ["-device", "pcie-root-port,id=root,chassis=1", "-device", "virtio-net-pci,netdev=n,romfile=,bus=root"]
ON_BUS = ["-device", "virtio-net-pci,netdev=n,romfile="]
MACHINES = {
    "microvm": ["-M", "microvm", "-device", "virtio-net-device,netdev=n"],
    "microvm-modern": ["-M", "microvm", "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-net-device,netdev=n"],
    "pc": ["-M", "pc", *ON_BUS],
    "pc-legacy": ["-M", "pc", "-device", "virtio-net-pci,netdev=n,romfile=,disable-modern=on"],
    "pc-no-msix": ["-M", "pc", "-device", "virtio-net-pci,netdev=n,romfile=,vectors=0"],
    "pc-qboot": ["-M", "pc", "-bios", QBOOT, *ON_BUS],
    "q35": ["-M", "q35", *ON_BUS],
    "q35-root-port": ["-M", "q35", *BEHIND_ROOT_PORT],
    "q35-root-port-qboot": ["-M", "q35", "-bios", QBOOT, *BEHIND_ROOT_PORT],
}
TARGETS = [*MACHINES, "process"]


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Put this thread, and so everything that it starts, into a network namespace that goes with it."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    try:
        for command in (
            "link set lo up",
            f"address add {FAR}/32 dev lo",
            "tuntap add dev tap0 mode tap",
            f"address add {HOST}/24 dev tap0",
            "link set tap0 up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        yield
    finally:
        os.setns(own)
        os.close(own)


@pytest.fixture(scope="module")
def build() -> Path:
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)
    return GUEST / "build"


@dataclass
class Running:
    """A guest that runs: its address for us, ours for it, and its console."""

    process: subprocess.Popen[bytes]
    console: Path
    address: str
    host: str
    port: int
    qmp: Path | None

    def text(self) -> str:
        return self.console.read_text() if self.console.exists() else ""

    def wait_for(self, text: str, seconds: float = 30) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(text in line for line in self.text().splitlines(keepends=True) if line.endswith("\n")):
                return next(line for line in self.text().splitlines() if text in line)
            if self.process.poll() is not None and text not in self.text():
                break
            time.sleep(0.02)
        raise AssertionError(f"{text!r} did not come (exit code {self.process.returncode}); the console has: {self.text()!r}")

    def get(self, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection(self.address, self.port, timeout=10)) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()

    def exit_code(self, seconds: float = 30) -> int | None:
        code = self.process.wait(timeout=seconds)
        if self.qmp is None:
            return code
        assert code == 0
        return PlainGuest().exit_code(self.console.read_bytes())

    def ask_to_end(self) -> None:
        if self.qmp is None:
            self.process.send_signal(signal.SIGTERM)
            return
        press_power_button(self.qmp)


@contextmanager
def running(
    build: Path, directory: Path, target: str, program: str, *args: str, network: Network = NETWORK, devices: tuple[str, ...] = ()
) -> Iterator[Running]:
    console, qmp = directory / "console", directory / "qmp"
    if target == "process":
        environment = {"UNIFLEET_NAMESERVERS": ",".join(network.nameservers)}
        port = 8080
        with console.open("wb") as output:
            command = [str(build / f"{program}-process-amd64"), "--port", str(port), *args]
            process = subprocess.Popen(command, stdout=output, stdin=subprocess.PIPE, env=environment)
        guest = Running(process, console, "127.0.0.1", HOST, port, None)
    else:
        line = PlainGuest().command_line(args, (), network)
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "8", "-nodefaults", "-display", "none", "-no-reboot"]
        command += ["-serial", f"file:{console}", "-qmp", f"unix:{qmp},server=on,wait=off"]
        command += ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", *MACHINES[target], *devices]
        command += ["-kernel", str(build / f"{program}-kvm-amd64"), "-append", line]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        guest = Running(process, console, ADDRESS, HOST, 80, qmp)
    try:
        yield guest
    finally:
        process.kill()
        process.wait()


def ping(address: str, size: int = 56, seconds: float = 5) -> bool:
    """One ICMP echo, answered with the same bytes."""
    payload = os.urandom(size)
    body = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + payload
    total = sum(struct.unpack(f"!{(len(body) + 1) // 2}H", body + b"\0" * (len(body) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(seconds)
        raw.sendto(body[:2] + struct.pack("!H", checksum) + body[4:], (address, 0))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                packet = raw.recv(65535)
            except TimeoutError:
                return False
            if packet[20] == 0 and packet[28:] == payload:
                return True
    return False


class Service(http.server.BaseHTTPRequestHandler):
    """What callers call. It fails as its path says."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes, str]] = []
    flaky_left = 0

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        Service.seen.append((self.command, self.path, body, self.headers["Host"]))
        if self.path == "/silent":
            time.sleep(3)
        elif self.path == "/garbage":
            self.wfile.write(b"SSH-2.0-nonsense\r\n\r\n")
        elif self.path == "/cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            self.close_connection = True
        elif self.path == "/chunks":
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nA: b\r\n\r\n"
            )
        elif self.path == "/big":
            self.answer(200, b"x" * 300_000)
        elif self.path == "/flaky" and Service.flaky_left:
            Service.flaky_left -= 1
            self.answer(503, b"not now")
        elif self.path == "/missing":
            self.answer(404, b"no such thing")
        else:
            self.answer(200, b'{"you said": "' + body + b'"}')

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def service(namespace: None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module", autouse=True)
def name_server(namespace: None) -> Iterator[list[str]]:
    """Knows service.lab (through an alias), says that broken.lab is its own fault, never speaks of mute.lab, and denies the rest."""
    asked: list[str] = []

    def serve() -> None:
        while True:
            query, sender = server.recvfrom(4096)
            if query == b"end":
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += query[at] + 1
            question, name = query[12 : at + 5], ".".join(labels)
            asked.append(name)
            if name == "mute.lab":
                continue
            known = name == "service.lab"
            code = 0 if known else 2 if name == "broken.lab" else 3
            reply = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 2 if known else 0, 0, 0) + question
            if known:
                reply += b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 8) + b"\x05alias\xc0\x14"
                reply += b"\x05alias\xc0\x14" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(HOST)
            server.sendto(b"\xff\xff" + reply[2:], sender)  # somebody who guesses the identity, wrongly
            server.sendto(reply, sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 53))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        server.sendto(b"end", (HOST, 53))
        thread.join(5)
