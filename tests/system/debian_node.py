# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated Debian 13 host as tests want it: with runu from this checkout, or on a network of its own with a cluster to join.

The network is a namespace that holds the other end of the host's second card; whoever is inside it (inside()) reaches the host at GUEST,
and the host reaches a control plane there at GATEWAY. The host's first card leads out as QEMU leads, and carries ssh.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from runu_host import build
from worker_pods import busybox

from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import pack
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import FileOrLink
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile, profile_bytes
from ansible_collections.unifleet.hybrid.tools.debian_host.host import DebianHost, debian_host
from ansible_collections.unifleet.hybrid.tools.qemu_host.image import ArchiveUnavailableError

ROOT = Path(__file__).resolve().parents[2]
GATEWAY, GUEST = "10.78.0.1", "10.78.0.2"
UNIKERNEL, PROGRAM, BUSYBOX = "unifleet.test/sensor:1", "unifleet.test/program:1", "unifleet.test/busybox:1"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


@contextlib.contextmanager
def node(tap: int | None = None) -> Iterator[DebianHost]:
    """A Debian 13 host; skips the test where Debian's packages cannot be had."""
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(debian_host(tap))
        except ArchiveUnavailableError as error:
            pytest.skip(f"NOTHING ABOUT CGROUP VERSION 2 IS TESTED HERE: {error}")
        yield host


def install_runu(host: DebianHost) -> None:
    """The programs as the role installs them, machines emulated."""
    app = pack(ROOT, {"runu": "runu"}, {})
    place = f"/usr/local/lib/unifleet/{app.version}"
    steps = (
        f"mkdir -p {place} /etc/unifleet",
        f"tar -xzf - -C {place}",
        f"python3 -m compileall -q {place}",
        f"ln -sfn {place}/bin/runu /usr/local/bin/runu",
        """echo '{"accelerator": "tcg"}' > /etc/unifleet/runu.json""",
    )
    host.run(" && ".join(steps), app.archive())


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, and what it starts, in a network namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as before, Path("/run/netns", namespace).open("rb") as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(before.fileno(), os.CLONE_NEWNET)


@contextlib.contextmanager
def network() -> Iterator[tuple[str, int]]:
    """(name of the namespace, descriptor of the tap in it)."""
    name = f"unifleet-debian-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with contextlib.ExitStack() as stack:
            with inside(name):
                tap = stack.enter_context(Path("/dev/net/tun").open("r+b", buffering=0))
                fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"host", _IFF_TAP | _IFF_NO_PI))
                for command in ("link set lo up", f"address add {GATEWAY}/24 dev host", "link set host up"):
                    subprocess.run(["ip", *command.split()], check=True)
            yield name, tap.fileno()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def import_images(host: DebianHost, namespace: str = "default") -> None:
    """The sensor as a unikernel and as a program, and busybox, in the host's containerd."""
    for content in (
        sensor(UNIKERNEL, "kvm/amd64", "sensor-kvm-amd64"),
        sensor(PROGRAM, "process/amd64", "sensor-process-amd64"),
        busybox(BUSYBOX),
    ):
        host.run(f"cat > /root/image.tar && ctr -n {namespace} images import /root/image.tar && rm /root/image.tar", content)


def sensor(name: str, target: str, kernel: str) -> bytes:
    """An image as an OCI archive that says its own name, as containerd wants it."""
    files: dict[str, FileOrLink] = {
        "boot/kernel": ((build() / kernel).read_bytes(), True),
        "unikernel.json": (profile_bytes(Profile("plain", {target: "/boot/kernel"}, memory_bytes=8 << 20, network=True)), False),
    }
    return archive(ContainerImage(name, "amd64", files, entrypoint=("/boot/kernel",)))
