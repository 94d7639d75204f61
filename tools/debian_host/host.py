# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian host: what a user's Debian 13 server has, with the packages that the worker's roles ask for there already.

What is done to it is systemd's defaults and Debian's; only what wakes up by itself (package lists, file system checks) is switched off,
for it is emulated, and time jumps when it is thawed. eth0 leads out through QEMU; eth1, unconfigured, is for whoever passes a tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from ansible_collections.unifleet.hybrid.tools.qemu_host.host import Kind, QemuHost, running
from ansible_collections.unifleet.hybrid.tools.qemu_host.image import Disk, Image

DebianHost = QemuHost
PACKAGES = (
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "ethtool",
    "python3-jeepney",
    "python3-pytest",
    "qemu-system-x86",
    "runc",
    "socat",
    "util-linux",
)
_QUIET = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
)
_UNITS = "etc/systemd/system"
_NETWORK = """\
[Match]
Name=eth0

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
IPv6AcceptRA=no
LinkLocalAddressing=no
"""
_UP = """\
[Unit]
Description=Say on the console that the host is up
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo debian-host: up > /dev/console'

[Install]
WantedBy=multi-user.target
"""


def _boot(image: Image) -> tuple[str, ...]:
    line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet mitigations=off systemd.show_status=no"
    return ("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", line)


KIND = Kind(
    disk=Disk(
        name="debian13",
        suite="trixie",
        packages=PACKAGES,
        kernel="linux-image-cloud-amd64",
        init="/sbin/init",
        size=4 * 1024**3,
        files={
            "etc/systemd/network/eth0.network": (0o644, _NETWORK),
            f"{_UNITS}/debian-host-up.service": (0o644, _UP),
            "etc/machine-id": (0o444, "756e69666c65657464656269616e3133\n"),
        },
        links={
            **{f"{_UNITS}/{name}": "/dev/null" for name in _QUIET},
            f"{_UNITS}/multi-user.target.wants/debian-host-up.service": "../debian-host-up.service",
            f"{_UNITS}/multi-user.target.wants/systemd-networkd.service": "/usr/lib/systemd/system/systemd-networkd.service",
        },
    ),
    machine=("-M", "q35", "-cpu", "Westmere", "-smp", "2", "-m", "2048"),
    boot=_boot,
    up="debian-host: up",
    down=("Kernel panic", "emergency mode"),
    settle="systemctl is-system-running --wait",
    second_card=True,
)


@contextmanager
def debian_host(tap: Optional[int] = None) -> Iterator[DebianHost]:
    """A Debian 13 host, from the cache where it is there. Raises ArchiveUnavailableError when it cannot be built for want of packages."""
    with running(KIND, tap) as host:
        yield host
