# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe of a base image: which Debian, which packages, and the few files that make it boot as a container.

A base holds nothing of the machine it was made on (no mirror, no key, no name), so it is cached under a hash of its recipe
and shared, read-only, below the overlay of every host. Pure.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Mapping

RECIPE = 1
"""Raise it when a base made by older code must not be used any more for a reason that the fields below do not show."""

PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iptables",
    "kmod",
    "libpam-systemd",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
"""What makes a minbase a machine that Ansible can manage."""

_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

_CGROUP_UNIT = """\
# systemd-nspawn mounts version 1 control groups read-only; containers need to make groups of their own.
[Unit]
DefaultDependencies=no
Before=sysinit.target
ConditionPathExists=/sys/fs/cgroup/pids
ConditionPathIsReadWrite=!/sys/fs/cgroup/pids

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for c in cpu cpuacct cpuset memory devices freezer blkio pids; do \
if [ -d /sys/fs/cgroup/$$c ]; then mount -o remount,rw,bind /sys/fs/cgroup/$$c; fi; done'

[Install]
WantedBy=sysinit.target
"""

_EMULATED_DROPIN = """\
# qemu-user can pass neither credentials nor private network namespaces on; services that ask for them would not start.
[Service]
LoadCredential=
SetCredential=
PrivateNetwork=no
"""


@dataclass(frozen=True)
class Recipe:
    """A base image: Debian suite, Debian architecture, whether it runs emulated here, and all packages by name."""

    suite: str
    architecture: str
    emulated: bool
    packages: tuple[str, ...]

    @property
    def key(self) -> str:
        """Readable and unique: bookworm-amd64-0123456789ab."""
        facts = {"recipe": RECIPE, "files": files(self), "excluded": _EXCLUDED, **asdict(self)}
        return f"{self.suite}-{self.architecture}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"


def recipe(suite: str, architecture: str, machine: str, packages: tuple[str, ...]) -> Recipe:
    """The recipe for a suite and architecture on a machine of Debian architecture `machine`, with more packages besides PACKAGES."""
    return Recipe(suite, architecture, architecture != machine, tuple(sorted({*PACKAGES, *packages})))


def files(wanted: Recipe) -> Mapping[str, str]:
    """Files that a base gets besides its packages: path below the root -> text."""
    made = {"etc/systemd/system/unifleet-lab-cgroup.service": _CGROUP_UNIT}
    if wanted.emulated:
        made["etc/systemd/system/service.d/10-emulated.conf"] = _EMULATED_DROPIN
    return made


LINKS: Mapping[str, str] = {"etc/systemd/system/sysinit.target.wants/unifleet-lab-cgroup.service": "../unifleet-lab-cgroup.service"}
"""Symbolic links of a base: path below the root -> target."""

REMOVED = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "var/lib/dbus/machine-id",
)
"""What belongs to one host or one machine and so must not be in a base (glob patterns below the root)."""


def bootstrap(wanted: Recipe, tarball: str, apt_settings: tuple[str, ...]) -> list[str]:
    """The mmdebstrap command that writes the base as a tar file; the sources come on its standard input."""
    options = ['Acquire::Languages "none";', *apt_settings]
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--architectures={wanted.architecture}",
        f"--include={','.join(wanted.packages)}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        *(f"--aptopt={option.rstrip(';')}" for option in options),
        wanted.suite,
        tarball,
        "-",
    ]
