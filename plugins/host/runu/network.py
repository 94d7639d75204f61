# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod's network, handed on to the guest: its link's address, MAC, MTU and gateway become the guest's.

    pod's namespace:  eth0  <- what comes in goes out of ->  tap  --- QEMU's virtio card

Two filters redirect every frame, as kata and urunc do it. What the pod's ordinary containers need stays with the kernel: their own
connections leave from the kernel's ephemeral ports, which are therefore made 32768-49151 here and kept by a filter, while guests use 49152
and up (lwIP, Unikraft); and ports named by the pod annotation io.unifleet.container-ports are theirs too. ARP goes to
both, which answer with the same MAC, so that the rest of the network sees one host. What the guest says to the pod's localhost
(loopback.py) stays here.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct
import zlib

from ansible_collections.unifleet.hybrid.plugins.host.runu import loopback, netlink, syscalls
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

CONTAINER_PORTS = "io.unifleet.container-ports"
PORTS_MOST = 32
_PREFIX = "runu"
_TUNSETIFF, _TAP, _NO_PI, _VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
_GETIFADDR, _GETNETMASK, _GETHWADDR, _GETMTU, _SETMTU, _GETFLAGS, _SETFLAGS = 0x8915, 0x891B, 0x8927, 0x8921, 0x8922, 0x8913, 0x8914
_UP = 1
_ARP, _TCP, _UDP, _DESTINATION, _PORTS = 0x0806, 6, 17, 16, 20


class Link:
    """The pod's link and the tap beside it. tap: the open tap. address: "10.0.0.5/24"; gateway: "" where there is none.

    lacks: a sentence on what the pod's network goes without, or "".
    """

    __slots__ = ("address", "gateway", "lacks", "mac", "mtu", "name", "tap", "tap_name")

    def __init__(self, name: str, tap_name: str, tap: int, address: str, gateway: str) -> None:
        self.name = name
        self.tap_name = tap_name
        self.tap = tap
        self.address = address
        self.gateway = gateway
        self.mac = ""
        self.mtu = 1500
        self.lacks = ""


def container_ports(annotation: str) -> tuple[int, ...]:
    """The ports of "8080,9090", which the pod's ordinary containers serve. Raises UnifleetError."""
    words = [word.strip() for word in annotation.split(",") if word.strip()]
    if len(words) > PORTS_MOST or not all(word.isdigit() and word.isascii() and len(word) < 6 and 0 < int(word) < 65536 for word in words):
        raise UnifleetError(f"annotation {CONTAINER_PORTS} is {annotation[:80]!r}", f"write at most {PORTS_MOST} ports such as 8080,9090")
    return tuple(int(word) for word in words)


def default_route(table: str) -> Optional[tuple[str, str]]:
    """(link, gateway) of the best IPv4 default route in the text of /proc/net/route; gateway "" when it is on the link."""
    best: Optional[tuple[int, str, str]] = None
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[1] == "00000000" and fields[7] == "00000000" and int(fields[3], 16) & _UP:
            gateway = _socket.inet_ntoa(struct.pack("=I", int(fields[2], 16))) if fields[2] != "00000000" else ""
            entry = (int(fields[6]), fields[0], gateway)
            best = entry if best is None or entry < best else best
    return None if best is None else best[1:]


def tap_name(container: str) -> str:
    """The tap's name: one for each container, and known to be ours."""
    return f"{_PREFIX}{zlib.crc32(container.encode()):08x}"


def attach(container: str, ports: tuple[int, ...] = ()) -> Optional[Link]:
    """Make the tap and the filters in the network namespace that this process is in. Returns None where there is no default route.

    Raises UnifleetError when the namespace has a unikernel already, or the link has no IPv4 address; OSError when the kernel refuses.
    """
    with open("/proc/self/net/route", encoding="utf-8") as file:
        route = default_route(file.read())
    if route is None:
        return None
    name, gateway = route
    others = [other for other in _links() if other.startswith(_PREFIX)]
    if others:
        raise UnifleetError(
            "the pod's network belongs to another unikernel of this pod already",
            "one unikernel of a pod can have its network; put the other into a pod of its own, or build it without network",
        )
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        try:
            address = _socket.inet_ntoa(_ask(probe, _GETIFADDR, name)[20:24])
        except OSError as error:
            raise UnifleetError(f"the pod's link {name} has no IPv4 address", "this runtime hands on IPv4") from error
        prefix = bin(struct.unpack_from(">I", _ask(probe, _GETNETMASK, name), 20)[0]).count("1")
        mac = ":".join(f"{byte:02x}" for byte in _ask(probe, _GETHWADDR, name)[18:24])
        mtu = struct.unpack_from("=i", _ask(probe, _GETMTU, name), 16)[0]
        own = tap_name(container)
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", own.encode(), _TAP | _NO_PI | _VNET_HDR))
            fcntl.ioctl(probe, _SETMTU, struct.pack("16si20x", own.encode(), mtu))
            _ipv6_off(own)
            flags = struct.unpack_from("=H", _ask(probe, _GETFLAGS, own), 16)[0]
            fcntl.ioctl(probe, _SETFLAGS, struct.pack("16sH22x", own.encode(), flags | _UP))
            _redirect(_socket.if_nametoindex(name), _socket.if_nametoindex(own), ports)
        except BaseException:
            os.close(tap)
            raise
    finally:
        probe.close()
    _keep_ephemeral_ports()
    link = Link(name, own, tap, f"{address}/{prefix}", gateway)
    link.mac, link.mtu = mac, mtu
    link.lacks = _join_localhost(link)
    return link


def _join_localhost(link: Link) -> str:
    """Let the pod's localhost reach the guest. Returns why it does not, or ""; the machine is worth having all the same."""
    why = f"the pod's link {link.name} has no gateway"
    if link.gateway:
        try:
            loopback.attach(link.address.partition("/")[0], link.mac, link.tap_name)
        except OSError as error:
            why = f"{error.strerror} {error.filename or ''}".rstrip()
        else:
            return ""
    return f"the pod's localhost, and so kubectl port-forward, does not reach the unikernel: {why}"


def _redirect(link: int, tap: int, ports: tuple[int, ...]) -> None:
    route = netlink.Route()
    try:
        for index in (link, tap):
            route.ask(netlink.ingress(index, remove=True), (errno.EINVAL, errno.ENOENT))
            route.ask(netlink.ingress(index))
        everything = [netlink.Key(0, 0, 0)]
        priority = 1
        for protocol in (_TCP, _UDP):
            no_options = netlink.Key(0x45000000, 0xFF000000, 0)  # u32 knows where the ports are only behind a header of 20 bytes
            is_protocol = netlink.Key(protocol << 16, 0x00FF0000, 8)
            kept = [netlink.Key(0x8000, 0xC000, _PORTS), *(netlink.Key(port, 0xFFFF, _PORTS) for port in ports)]
            for key in kept:
                route.ask(netlink.redirect_filter(link, None, priority, (netlink.ETH_P_IP, [no_options, is_protocol, key])))
                priority += 1
        route.ask(netlink.redirect_filter(link, tap, priority, (_ARP, everything), copy=True))
        route.ask(netlink.redirect_filter(link, tap, priority + 1, (netlink.ETH_P_ALL, everything)))
        to_localhost = netlink.Key(struct.unpack(">I", _socket.inet_aton(loopback.GUESTS_PEER))[0], 0xFFFFFFFF, _DESTINATION)
        route.ask(netlink.redirect_filter(tap, None, 1, (netlink.ETH_P_IP, [to_localhost])))
        route.ask(netlink.redirect_filter(tap, link, 2, (netlink.ETH_P_ALL, everything)))
    finally:
        route.close()


def _keep_ephemeral_ports() -> None:
    """Let the namespace's own connections leave from ports that the filter keeps; it is the pod's namespace, nobody else's."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w", encoding="utf-8") as file:
            file.write("32768 49151")
    except OSError:
        return  # read-only /proc/sys: the pod's containers may then lose answers from outside


def _ipv6_off(name: str) -> None:
    """The tap is a wire: the kernel does not speak on it by itself."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w", encoding="utf-8") as file:
            file.write("1")
    except OSError:
        return


def detach(netns: str, link: str, tap: str) -> list[str]:
    """Take the filters away from a namespace that outlives its unikernel; the tap went with QEMU. Returns sentences on what failed.

    In a child, for the caller stays where it is. Another unikernel may have come since: then the link's filters are its own.
    """
    if not os.path.exists(netns):
        return []
    pid = os.fork()
    if pid:
        return [] if os.waitpid(pid, 0)[1] == 0 else [f"the filters on {link} or lo in {netns} could not be removed"]
    code = 1
    try:
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        names = _links()
        if link in names and not any(name.startswith(_PREFIX) and name != tap for name in names):
            route = netlink.Route()
            route.ask(netlink.ingress(_socket.if_nametoindex(link), remove=True), (errno.EINVAL, errno.ENOENT))
            loopback.detach()
        code = 0
    finally:
        os._exit(code)


def _links() -> list[str]:
    with open("/proc/self/net/dev", encoding="utf-8") as file:
        return [line.partition(":")[0].strip() for line in file if ":" in line]


def _ask(probe: _socket.socket, request: int, name: str) -> bytes:
    return bytes(fcntl.ioctl(probe, request, struct.pack("16s24x", name.encode())))
