# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests on a network for real: every kind of virtio card under QEMU on a tap, and the Linux programs, against servers made here.

Everything happens in a network namespace of this module's own: the host's end of the tap is 10.77.31.1, the guest is 10.77.31.2,
192.0.2.1 is an address that can only be reached through the gateway.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from power_button import press_power_button

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

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


@pytest.mark.parametrize("target", TARGETS)
def test_a_sensor_serves_its_latest_reading_to_one_and_to_many_and_ends_when_asked(build: Path, tmp_path: Path, target: str) -> None:
    args = ("--sensor", 'hu"m', "--source", "series:21.5,-3", "--period", "0.2", "GREEN", "ä\n")
    with running(build, tmp_path, target, "sensor", *args) as guest:
        guest.wait_for(" seq=1 ")
        if guest.qmp:
            assert ping(guest.address)
            assert ping(guest.address, 1472)
            assert ping(guest.address, 4000), "fragments are put together again"
        status, body = guest.get()
        reading = json.loads(body)
        assert status == 200
        assert (reading["sensor"], reading["tags"]) == ('hu"m', ["GREEN", "ä\n"])
        assert reading["value"] == (21.5, -3)[(reading["seq"] + 1) % 2]
        assert guest.get("/?q=1")[0] == 200
        assert guest.get("/", "HEAD") == (200, b"")
        assert guest.get("/other")[0] == 404
        assert guest.get("/", "DELETE")[0] == 405
        with closing(http.client.HTTPConnection(guest.address, guest.port, timeout=10)) as connection:
            for _number in range(50):
                connection.request("GET", "/")
                assert connection.getresponse().read().startswith(b'{"sensor"')
        for _number in range(50):
            assert guest.get()[0] == 200
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _number: guest.get()[0], range(96)))
        assert answers == [200] * 96
        guest.wait_for(" seq=2 ")
        guest.ask_to_end()
        assert guest.exit_code() == 0
    assert '\nsensor="hu\\"m" value=-3 seq=2 ' in guest.text()


@pytest.mark.parametrize("target", ["microvm", "pc-qboot"])
def test_a_guests_clock_loses_nothing_while_it_is_busy_serving(build: Path, tmp_path: Path, target: str) -> None:
    with running(build, tmp_path, target, "sensor", "--period", "0.01") as guest:
        guest.wait_for(" seq=1 ")
        lost = [served_clock_loses(guest)]
        while lost[-1] > 0.3 and len(lost) < 4:  # the host may delay a guest too, though hardly each time
            lost.append(served_clock_loses(guest))
        assert lost[-1] <= 0.3, lost


def served_clock_loses(guest: Running) -> float:
    """Seconds that the guest's clock is off after two of serving all the time."""
    first, began = json.loads(guest.get()[1])["uptime"], time.monotonic()
    with closing(http.client.HTTPConnection(guest.address, guest.port, timeout=10)) as connection:
        while time.monotonic() < began + 2:
            connection.request("GET", "/")
            last = json.loads(connection.getresponse().read())["uptime"]
    return float(abs(last - first - (time.monotonic() - began)))


@pytest.mark.parametrize("target", ["microvm", "q35-root-port", "process"])
def test_a_caller_posts_to_a_name_and_serves_what_it_got(build: Path, tmp_path: Path, target: str, service: int) -> None:
    url = f"http://service.lab:{service}/in?a=b"
    with running(build, tmp_path, target, "caller", "--body", "21.5", "--period", "0.2", url) as guest:
        guest.wait_for("call=3 ")
        line = guest.wait_for("call=1 ")
        assert line.startswith(f'call=1 url="{url}" attempt=1 status=200 bytes=20 took=0.')
        assert line.endswith('body="{\\"you said\\": \\"21.5\\"}"')
        assert Service.seen[-1] == ("POST", "/in?a=b", b"21.5", f"service.lab:{service}")
        served = json.loads(guest.get()[1])
        assert (served["url"], served["status"], served["failures"], served["body"]) == (url, 200, 0, '{"you said": "21.5"}')
        guest.ask_to_end()
        assert guest.exit_code() == 0


@pytest.mark.parametrize("target", ["pc", "process"])
@pytest.mark.parametrize(
    ("url", "code", "tries", "said"),
    [
        ("http://nowhere.lab:{port}/", 4, 2, "no such name"),
        ("http://broken.lab:{port}/", 4, 2, "no name server answers"),
        ("http://mute.lab:{port}/", 4, 2, "no answer in time"),
        ("http://{host}:9/", 5, 2, "connection refused"),
        ("http://{host}:{port}/silent", 6, 2, "no answer in time"),
        ("http://{host}:{port}/garbage", 7, 2, "the answer is not HTTP, or not whole"),
        ("http://{host}:{port}/cut", 7, 2, "the answer is not HTTP, or not whole"),
        ("http://{host}:{port}/missing", 8, 1, "the service says that it failed"),
    ],
)
def test_a_callers_exit_code_says_what_failed(
    build: Path, tmp_path: Path, target: str, service: int, url: str, code: int, tries: int, said: str
) -> None:
    args = ("--tries", "2", "--backoff", "0.1", "--timeout", "1.5", url.format(host=HOST, port=service))
    with running(build, tmp_path, target, "caller", *args) as guest:
        assert guest.exit_code() == code
        lines = [line for line in guest.text().splitlines() if line.startswith("call=1 ")]
        assert len(lines) == tries
        assert all(f'error="{said}"' in line for line in lines), lines
        assert ("retry=0." in lines[0]) == (tries == 2)
        assert "retry=" not in lines[-1]


@pytest.mark.parametrize("target", ["microvm", "process"])
def test_a_caller_tries_again_after_a_while_that_grows(build: Path, tmp_path: Path, target: str, service: int) -> None:
    Service.flaky_left = 3
    with running(build, tmp_path, target, "caller", "--backoff", "0.1", "--count", "1", f"http://{HOST}:{service}/flaky") as guest:
        assert guest.exit_code() == 0
        waits = [float(word[6:]) for word in guest.text().split() if word.startswith("retry=")]
        assert len(waits) == 3
        assert all(0.075 * 2**turn <= wait <= 0.1 * 2**turn for turn, wait in enumerate(waits)), waits
        assert " attempt=4 status=200 " in guest.text()


@pytest.mark.parametrize("target", ["microvm", "process"])
def test_a_caller_takes_chunks_and_bodies_that_are_larger_than_it(build: Path, tmp_path: Path, target: str, service: int) -> None:
    for path, size, body in (("chunks", 11, 'body="hello world"'), ("big", 300_000, "body=" + "x" * 1024)):
        with running(build, tmp_path, target, "caller", "--count", "1", f"http://{HOST}:{service}/{path}") as guest:
            assert guest.exit_code() == 0
            line = guest.text().splitlines()[0]
            assert f"status=200 bytes={size} " in line
            assert line.endswith(body)
        (tmp_path / "console").unlink()


def test_a_guest_with_a_32_bit_mask_reaches_its_gateway_and_what_is_behind_it(build: Path, tmp_path: Path, service: int) -> None:
    network = Network(f"{ADDRESS}/32", HOST, (FAR,))
    with running(build, tmp_path, "q35", "caller", "--count", "1", f"http://{FAR}:{service}/", network=network) as guest:
        assert guest.exit_code() == 0
        assert "status=200" in guest.text()


@pytest.mark.parametrize(
    ("network", "said"),
    [(Network("10.77.31.256/24", HOST), "cannot be understood"), (Network(f"{ADDRESS}/33", HOST), "cannot be understood")],
)
def test_settings_that_make_no_sense_end_a_caller_with_3(build: Path, tmp_path: Path, network: Network, said: str) -> None:
    with running(build, tmp_path, "microvm", "caller", "http://x/", network=network) as guest:
        assert guest.exit_code() == 3
        assert said in guest.text()


@pytest.mark.parametrize("target", ["microvm", "process"])
def test_silent_connections_do_not_shut_others_out(build: Path, tmp_path: Path, target: str) -> None:
    with running(build, tmp_path, target, "sensor") as guest:
        guest.wait_for(" seq=1 ")
        silent = [socket.create_connection((guest.address, guest.port), timeout=10) for _number in range(70)]
        try:
            for connection in silent[:20]:
                connection.sendall(b"GET / HT")
            assert guest.get()[0] == 200
        finally:
            for connection in silent:
                connection.close()
        assert guest.get()[0] == 200


def frames(seed: int, mac: bytes, source: bytes) -> Iterator[bytes]:
    """Frames for the guest that begin as good ARP, ICMP, UDP and TCP (options, fragments, wrong lengths) and are then spoiled."""
    chance = random.Random(seed)

    def ip(protocol: int, payload: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
        words = 5 + len(options) // 4
        header = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), chance.getrandbits(16), fragment, 64, protocol, 0,
                             socket.inet_aton(HOST), socket.inet_aton(ADDRESS)) + options  # fmt: skip
        total = sum(struct.unpack(f"!{len(header) // 2}H", header))
        total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
        return mac + source + b"\x08\x00" + header + payload

    makers: list[Callable[[], bytes]] = [
        lambda: mac + source + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, chance.choice((1, 2))) + chance.randbytes(20),
        lambda: ip(1, struct.pack("!BBHHH", chance.choice((0, 3, 8, 13)), 0, chance.getrandbits(16), 1, 1) + chance.randbytes(40)),
        lambda: ip(17, struct.pack("!HHHH", 53, chance.getrandbits(16), chance.choice((8, 60, 65535, 0)), 0) + chance.randbytes(52)),
        lambda: ip(
            6,
            struct.pack(
                "!HHIIBBHHH",
                chance.getrandbits(16),
                80,
                chance.getrandbits(32),
                chance.getrandbits(32),
                chance.getrandbits(4) << 4,
                chance.getrandbits(8),
                1024,
                0,
                0,
            )
            + chance.randbytes(40),
        ),
        lambda: ip(chance.choice((1, 6, 17)), chance.randbytes(chance.choice((8, 64, 1000))), chance.getrandbits(14)),
        lambda: ip(17, chance.randbytes(30), 0, chance.randbytes(40)),
    ]
    while True:
        frame = bytearray(chance.choice(makers)())
        for _number in range(chance.choice((0, 0, 1, 3, 20))):
            frame[chance.randrange(12, len(frame))] = chance.getrandbits(8)
        yield bytes(frame[: chance.choice((len(frame), len(frame), chance.randrange(1, len(frame) + 1)))])


@pytest.mark.parametrize("target", ["microvm", "pc"])
def test_malformed_frames_do_not_silence_a_guest(build: Path, tmp_path: Path, target: str) -> None:
    with running(build, tmp_path, target, "sensor") as guest:
        guest.wait_for(" seq=1 ")
        assert ping(guest.address)
        neighbours = subprocess.run(["ip", "neigh", "show", ADDRESS], capture_output=True, text=True, check=True).stdout.split()
        mac = bytes.fromhex(neighbours[neighbours.index("lladdr") + 1].replace(":", ""))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("tap0", 0))
            source = raw.getsockname()[4]
            for number, frame in zip(range(20_000), frames(31, mac, source), strict=False):
                try:
                    raw.send(frame)
                except OSError:
                    continue  # the host's own end refuses to send what is shorter than a header
                if number % 200 == 199:
                    time.sleep(0.005)
        subprocess.run(["ip", "neigh", "flush", "dev", "tap0"], check=True)
        assert ping(guest.address, seconds=10)
        assert guest.get()[0] == 200
        guest.ask_to_end()
        assert guest.exit_code() == 0


def cpio(files: dict[str, bytes]) -> bytes:
    """An archive as `cpio -H newc` makes it."""
    archive = b""
    for name, content in {**files, "TRAILER!!!": b""}.items():
        fields = (0, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += b"\0" * (-len(archive) % 4) + content
        archive += b"\0" * (-len(archive) % 4)
    return archive


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_a_virtual_machine_reads_its_sensor_from_its_initrd(build: Path, tmp_path: Path, machine: str) -> None:
    archive, plain = tmp_path / "archive", tmp_path / "plain"
    archive.write_bytes(cpio({"other": b"1", "sys/in_humidity": b"43200\n"}))
    plain.write_bytes(b" 7 \n")
    for initrd, path, value in (
        (archive, "/sys/in_humidity", "value=43.2 "),
        (archive, "/sys/none", 'error="no such file"'),
        (plain, "/initrd", "value=0.007 "),
    ):
        args = ("--source", f"file:{path}", "--decimals", "3", "--count", "1")
        with running(build, tmp_path, machine, "sensor", *args, devices=("-initrd", str(initrd))) as guest:
            assert guest.exit_code() == 0
            assert value in guest.text()


@pytest.mark.parametrize("target", ["microvm", "q35", "pc-qboot", "process"])
def test_a_sensor_takes_the_latest_line_of_the_stream_that_its_host_feeds(build: Path, tmp_path: Path, target: str) -> None:
    feed = tmp_path / "feed"
    kind = "device" if target == "microvm" else "pci"
    devices: tuple[str, ...] = ("-device", f"virtio-serial-{kind}", "-chardev", f"socket,id=f,path={feed},server=on,wait=off")
    devices += ("-device", "virtserialport,chardev=f,name=org.unifleet.sensor")
    with running(build, tmp_path, target, "sensor", "--source", "stream", "--period", "0.1", devices=devices) as guest:
        guest.wait_for('error="nothing to read"')
        with socket.socket(socket.AF_UNIX) as connection:
            if target == "process":
                assert guest.process.stdin is not None
                write: Callable[[bytes], object] = lambda data: os.write(guest.process.stdin.fileno(), data)  # type: ignore[union-attr]  # noqa: E731
            else:
                connection.connect(str(feed))
                write = connection.sendall
            write(b"1\n2\n43.")
            guest.wait_for("value=2 ")
            write(b"25\n")
            guest.wait_for("value=43.25 ")
            write(b"x" * 5000 + b"\n")
            guest.wait_for('error="does not hold one decimal number"')
            write(b"-1\n")
            guest.wait_for("value=-1 ")
        guest.ask_to_end()
        assert guest.exit_code() == 0


@pytest.mark.parametrize("target", ["microvm", "pc-qboot", "q35-root-port-qboot"])
def test_a_guest_says_its_first_line_within_milliseconds_of_its_own_time(build: Path, tmp_path: Path, target: str) -> None:
    """Counted in instructions, at one a nanosecond, so that it says something about the guest and nothing about what else runs here."""
    with running(build, tmp_path, target, "sensor", "--count", "1", devices=("-icount", "shift=0,sleep=off")) as guest:
        assert guest.exit_code() == 0
        took = float(guest.text().split("uptime=")[1].split()[0])
    assert took < 0.01


def test_every_image_is_small(build: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in build.iterdir() if "-" in path.name and path.is_file()}
    for name, size in sorted(sizes.items()):
        print(f"{name}: {size / 1000:.0f} kB")
        assert size < 150_000, name
    assert {"sensor-kvm-amd64", "caller-kvm-amd64", "sensor-process-arm64", "caller-process-arm64"} <= set(sizes)
