# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests on a network for real, on every kind of card and as programs: they answer, call, give up, and survive what a network may bring."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from guest_network import ADDRESS, FAR, HOST, TARGETS, Service, build, name_server, namespace, ping, running, service

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network

__all__ = ["build", "name_server", "namespace", "service"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


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
        asked_first = time.monotonic()
        first, answered_first = json.loads(guest.get()[1])["uptime"], time.monotonic()
        with closing(http.client.HTTPConnection(guest.address, guest.port, timeout=10)) as connection:
            while time.monotonic() < answered_first + 2:
                asked_last = time.monotonic()
                connection.request("GET", "/")
                last = json.loads(connection.getresponse().read())["uptime"]
        # A crowded machine answers late, so all that is known is between which moments the guest looked at its clock.
        assert asked_last - answered_first - 0.3 <= last - first <= time.monotonic() - asked_first + 0.3


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
