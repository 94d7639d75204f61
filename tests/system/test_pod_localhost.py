# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pod's localhost and the guest behind its tap: bytes in bulk, half-closes, refusals, containers that come first, firewalls in the pod.

The guest is a network namespace with Linux's own TCP, which does what a machine's stack may do: offloads, great windows, resets. The pod's
namespace, its filters and its rules are runu's. test_runu_machine.py and the ladder have the same path with machines in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runu_host import pod_namespace, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
POD, GATEWAY, PEER = "10.77.41.22", "10.77.41.21", "192.0.0.8"
MAC, TAP = "02:77:41:00:00:05", "runutest"
BULK = 20 << 20
RUNU = f"""
import socket, sys
sys.path.insert(0, {str(ROOT / "collections")!r})
from ansible_collections.unifleet.hybrid.plugins.host.runu import loopback, network
"""
JOIN = f"""
network._redirect(socket.if_nametoindex("eth0"), socket.if_nametoindex({TAP!r}), ())
loopback.attach({POD!r}, {MAC!r}, {TAP!r})
"""


def run(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Pod:
    """Names of the two namespaces: what the containers see, and what the guest is."""

    inside: str
    guest: str

    def runu(self, script: str) -> None:
        """Let runu's own code do something in the pod's namespace."""
        subprocess.run(["ip", "netns", "exec", self.inside, sys.executable, "-c", RUNU + script], check=True)

    def do(self, namespace: str, command: str) -> str:
        return run(f"ip netns exec {namespace} {command}")

    def segments(self, namespace: str) -> int:
        """How many TCP segments a namespace's own stack has had."""
        names, values = (line.split() for line in self.do(namespace, "cat /proc/net/snmp").splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("InSegs")])

    def endpoint(self, namespace: str) -> socket.socket:
        """A TCP socket of one of the namespaces; it stays there, whoever uses it."""
        made: list[socket.socket] = []

        def make() -> None:  # a thread can be in another namespace than its process
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                os.setns(descriptor, os.CLONE_NEWNET)
                made.append(socket.socket())
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def listener(self, namespace: str, port: int, address: str = "0.0.0.0") -> socket.socket:
        made = self.endpoint(namespace)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(128)
        return made

    def connect(self, namespace: str, port: int, address: str = "127.0.0.1", seconds: float = 5) -> socket.socket:
        made = self.endpoint(namespace)
        made.settimeout(seconds)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made


@pytest.fixture
def pod() -> Iterator[Pod]:
    name = f"lo{os.getpid()}"
    guest = f"{name}g"
    with pod_namespace(name, 5):
        try:
            for command in (
                f"ip netns add {guest}",
                f"ip -n {name} link set eth0 address {MAC}",
                f"ip link add {TAP} netns {name} type veth peer name eth0 netns {guest} address {MAC}",
                f"ip -n {name} link set {TAP} up",
                f"ip -n {guest} addr add {POD}/30 dev eth0",
                f"ip -n {guest} link set lo up",
                f"ip -n {guest} link set eth0 up",
                f"ip -n {guest} route add default via {GATEWAY}",
            ):
                run(command)
            made = Pod(name, guest)
            made.runu(JOIN)
            yield made
        finally:
            subprocess.run(["ip", "netns", "del", guest], check=False)


@contextlib.contextmanager
def serving(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve each connection in a thread until the block ends."""

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def loop() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def everything(connection: socket.socket) -> bytes:
    found = bytearray()
    while part := connection.recv(1 << 16):
        found += part
    return bytes(found)


def saying(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text)


def said(pod: Pod, namespace: str, port: int, address: str = "127.0.0.1") -> bytes:
    with pod.connect(namespace, port, address) as connection:
        return everything(connection)


def refused(pod: Pod, namespace: str, port: int, address: str = "127.0.0.1") -> bool:
    """Whether a connection is refused, and at once."""
    begun = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        pod.connect(namespace, port, address)
    return time.monotonic() - begun < 1


def test_the_guests_port_answers_on_the_pods_localhost(pod: Pod) -> None:
    with serving(pod.listener(pod.guest, 80), lambda c: c.sendall(c.getpeername()[0].encode())):
        assert said(pod, pod.inside, 80) == PEER.encode()


def test_bytes_in_bulk_pass_both_ways_after_a_half_close(pod: Pod) -> None:
    sent, answer = os.urandom(BULK), os.urandom(BULK)

    def serve(connection: socket.socket) -> None:
        digest = hashlib.sha256(everything(connection)).digest()
        connection.sendall(digest + answer)

    with serving(pod.listener(pod.guest, 80), serve), pod.connect(pod.inside, 80, seconds=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = everything(connection)
    assert found[:32] == hashlib.sha256(sent).digest()
    assert found[32:] == answer


def test_a_guest_that_does_not_read_holds_its_writer_back_and_loses_nothing(pod: Pod) -> None:
    go = threading.Event()
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        go.wait(30)
        got.append(everything(connection))
        connection.sendall(b"all")

    with serving(pod.listener(pod.guest, 80), serve), pod.connect(pod.inside, 80, seconds=2) as connection:
        sent, block = 0, bytes(range(256)) * 4096
        with contextlib.suppress(TimeoutError):
            while sent < 2 * BULK:
                sent += connection.send(block)
        assert sent < 2 * BULK, "more than both sockets' buffers was taken"
        go.set()
        connection.settimeout(30)
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"all"
    assert len(got[0]) == sent


def test_a_port_that_nobody_has_is_refused_at_once(pod: Pod) -> None:
    assert refused(pod, pod.inside, 81)


def test_a_container_has_its_port_and_the_guest_has_it_when_the_container_ends(pod: Pod) -> None:
    with serving(pod.listener(pod.guest, 80), saying(b"guest")):
        for address in ("127.0.0.1", "0.0.0.0"):
            with serving(pod.listener(pod.inside, 80, address), saying(b"container")):
                assert said(pod, pod.inside, 80) == b"container"
            wait_for("the guest's answer", lambda: said(pod, pod.inside, 80) == b"guest", 5)


def test_a_containers_localhost_is_as_good_as_ever(pod: Pod) -> None:
    """Every state of a connection, TIME_WAIT on either side among them, has a socket: the guest sees nothing of it."""
    payload = os.urandom(BULK)
    with serving(pod.listener(pod.inside, 8080), saying(b"container")):
        for _number in range(200):
            assert said(pod, pod.inside, 8080) == b"container"
    with serving(pod.listener(pod.inside, 8080), lambda c: c.sendall(everything(c))):
        for _number in range(5):
            with pod.connect(pod.inside, 8080, seconds=30) as connection:
                sender = threading.Thread(target=lambda c=connection: (c.sendall(payload), c.shutdown(socket.SHUT_WR)))
                sender.start()
                assert everything(connection) == payload
                sender.join()
    assert pod.segments(pod.guest) == 0


def test_a_caller_that_vanishes_ends_the_guests_connection(pod: Pod) -> None:
    ended: list[str] = []

    def serve(connection: socket.socket) -> None:
        try:
            ended.append("close" if everything(connection) == b"x" else "more")
        except ConnectionResetError:
            ended.append("reset")

    with serving(pod.listener(pod.guest, 80), serve):
        for linger in (b"\0" * 8, b"\1\0\0\0\0\0\0\0"):
            connection = pod.connect(pod.inside, 80)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(b"x")
            time.sleep(0.1)
            connection.close()
        wait_for("both ends", lambda: len(ended) == 2, 5)
    assert ended == ["close", "reset"]


def test_a_reset_by_the_guest_reaches_the_caller(pod: Pod) -> None:
    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with serving(pod.listener(pod.guest, 80), serve), pytest.raises(ConnectionResetError):
        said(pod, pod.inside, 80)


def test_bytes_for_a_caller_that_is_gone_are_answered_by_a_reset(pod: Pod) -> None:
    """As when containerd was killed: the guest must not hold the connection for ever."""
    resets = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        time.sleep(0.3)
        try:
            while True:
                connection.sendall(b"more")
                time.sleep(0.05)
        except OSError:
            resets.set()

    with serving(pod.listener(pod.guest, 80), serve):
        with pod.connect(pod.inside, 80) as connection:
            connection.sendall(b"x")
        assert resets.wait(5)


def test_many_connections_at_once_each_have_their_own_answer(pod: Pod) -> None:
    with serving(pod.listener(pod.guest, 80), lambda c: c.sendall(everything(c)[::-1])):
        connections = [pod.connect(pod.inside, 80) for _number in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(f"caller {number}".encode())
            connection.shutdown(socket.SHUT_WR)
        for number, connection in enumerate(connections):
            with connection:
                assert everything(connection) == f"caller {number}".encode()[::-1]


def test_the_guest_reaches_what_a_container_serves_on_localhost(pod: Pod) -> None:
    with serving(pod.listener(pod.inside, 8080, "127.0.0.1"), lambda c: c.sendall(c.getpeername()[0].encode())):
        assert said(pod, pod.guest, 8080, PEER) == b"127.0.0.1"
    with serving(pod.listener(pod.guest, 8081), saying(b"guest")):
        assert refused(pod, pod.guest, 8081, PEER), "a guest finds containers there, and not itself"


def test_a_guest_that_lies_about_its_address_reaches_nothing_on_localhost(pod: Pod) -> None:
    run(f"ip -n {pod.guest} addr add 10.77.41.99/32 dev eth0")
    with serving(pod.listener(pod.inside, 8080), saying(b"container")):
        connection = pod.endpoint(pod.guest)
        connection.settimeout(1.5)
        connection.bind(("10.77.41.99", 0))
        with connection, pytest.raises(TimeoutError):
            connection.connect((PEER, 8080))
    assert pod.segments(pod.inside) == 0


@pytest.mark.parametrize("rp_filter", [1, 2])
def test_it_works_where_the_kernel_checks_where_packets_come_from(pod: Pod, rp_filter: int) -> None:
    pod.do(pod.inside, f"sysctl -qw net.ipv4.conf.all.rp_filter={rp_filter}")
    with serving(pod.listener(pod.guest, 80), saying(b"guest")):
        assert said(pod, pod.inside, 80) == b"guest"


def test_it_works_beside_a_firewall_of_the_pod_that_tracks_connections(pod: Pod) -> None:
    """As a service mesh's sidecar makes it: NAT for what leaves, and nothing in that is not of a known connection or from lo."""
    rules = [
        "add table ip mesh",
        "add chain ip mesh out { type nat hook output priority -100; }",
        "add rule ip mesh out oif eth0 tcp dport 9999 redirect to :15001",
        "add chain ip mesh in { type filter hook input priority 0; policy drop; }",
        "add rule ip mesh in ct state established accept",
        "add rule ip mesh in ct state new iif lo accept",
    ]
    for rule in rules:
        subprocess.run(["ip", "netns", "exec", pod.inside, "nft", *rule.split()], check=True)
    with serving(pod.listener(pod.guest, 80), saying(b"guest")), serving(pod.listener(pod.inside, 8080), saying(b"container")):
        assert said(pod, pod.inside, 80) == b"guest"
        assert said(pod, pod.inside, 8080) == b"container"
        assert said(pod, pod.guest, 8080, PEER) == b"container"
    assert refused(pod, pod.inside, 81)


def test_a_guest_that_went_leaves_localhost_to_the_containers_and_the_next_guest_has_it(pod: Pod) -> None:
    pod.runu("loopback.detach()")
    assert "unifleet" not in pod.do(pod.inside, "nft list ruleset")
    pod.runu("loopback.detach()")
    with serving(pod.listener(pod.guest, 80), saying(b"guest")):
        assert refused(pod, pod.inside, 80)
        pod.runu(JOIN)
        assert said(pod, pod.inside, 80) == b"guest"
        pod.runu(JOIN)
        assert said(pod, pod.inside, 80) == b"guest"
    assert pod.do(pod.inside, "nft list ruleset").count("table ") == 2
