# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab host is told at every cold start: its name, its keys, and how the machine reaches the outside.

The base knows nothing of the machine, so mirrors, name servers and certificate authorities are handed over here, from
the machine's own configuration of this moment. The root may hold links that somebody in the host made: nothing is written through them.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Callable, Sequence

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_apt, lab_boot
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import Host

AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
"""The bundle of certificate authorities, on the machine and in the host."""

_UPLINK = Path("/run/systemd/resolve/resolv.conf")


class Root:
    """A host's root directory while the host is off."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """The path of a file below the root; UnifleetError when a link on the way leads out of it."""
        path = self.directory / name
        real = path.parent.resolve()
        if real != self.directory.resolve() and self.directory.resolve() not in real.parents:
            raise UnifleetError(f"{path.parent} leads out of the host's root (to {real})", "remove the link in the host, or the host")
        return path

    def read(self, name: str) -> str | None:
        """The text of a regular file, None when there is none."""
        path = self.path(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() and not path.is_symlink() else None

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a fresh file in place of whatever has the name."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w", encoding="utf-8") as out:
            out.write(text)


def hand_over(root: Root, host: Host, run: Callable[[Sequence[str]], str]) -> str:
    """Write everything into the root; the host's public ssh key ("ssh-ed25519 AAAA...")."""
    root.write("etc/hostname", f"{host.name}\n")
    root.write("etc/hosts", lab_boot.hosts_file(host))
    uplink = _UPLINK.read_text(encoding="utf-8") if _UPLINK.is_file() else None
    root.write("etc/resolv.conf", lab_boot.name_servers(Path("/etc/resolv.conf").read_text(encoding="utf-8"), uplink))
    for name, text in lab_boot.kernel_files().items():
        root.write(name, text)
    if not root.read("etc/machine-id"):
        root.write("etc/machine-id", secrets.token_hex(16) + "\n", 0o444)
    _hand_over_packages(root, run)
    bundle = Path("/") / AUTHORITIES
    if bundle.is_file():
        root.write(AUTHORITIES, bundle.read_text(encoding="utf-8"))
    ssh = root.path("root/.ssh")
    ssh.mkdir(mode=0o700, exist_ok=True)
    root.write("root/.ssh/authorized_keys", host.lab.key.with_suffix(".pub").read_text(encoding="utf-8"), 0o600)
    return _host_key(root, run)


def make_kvm_node(root: Root, node: Path) -> None:
    """A node for the machine's KVM that the host's group kvm may use, as udev would make it in a host with a kernel of its own.

    With a group that QEMU's user is not in, libvirt would find KVM changed at every start and ask QEMU all its questions again.
    """
    group = next((int(line.split(":")[2]) for line in (root.read("etc/group") or "").splitlines() if line.startswith("kvm:")), 0)
    node.unlink(missing_ok=True)
    os.mknod(node, 0o660 | stat.S_IFCHR, Path(lab_boot.KVM).stat().st_rdev)
    os.chown(node, 0, group)
    node.chmod(0o660)


def _hand_over_packages(root: Root, run: Callable[[Sequence[str]], str]) -> None:
    release = os_release((root.path("usr/lib/os-release")).read_text(encoding="utf-8"))
    suite = release.get("VERSION_CODENAME", "sid") if "VERSION_ID" in release else "sid"
    root.write("etc/apt/sources.list.d/debian.sources", lab_apt.render(lab_apt.debian_archive(machine_sources(), codename(), suite)))
    settings = lab_apt.settings(run(["apt-config", "dump"]))
    root.write("etc/apt/apt.conf.d/90lab", "".join(line + "\n" for line in settings))


def _host_key(root: Root, run: Callable[[Sequence[str]], str]) -> str:
    name = "etc/ssh/ssh_host_ed25519_key"
    public = root.read(f"{name}.pub")
    if root.read(name) is None or public is None:
        for leftover in (root.path(name), root.path(f"{name}.pub")):
            if leftover.is_symlink() or leftover.exists():
                leftover.unlink()
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(root.path(name))])
        public = root.path(f"{name}.pub").read_text(encoding="ascii")
    return " ".join(public.split()[:2])


def os_release(text: str) -> dict[str, str]:
    """The variables of an os-release file (os-release(5)), quotes removed."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, value in pairs}


def machine_sources() -> tuple[lab_apt.Source, ...]:
    """Every package source of this machine."""
    directory = Path("/etc/apt/sources.list.d")
    paths = [Path("/etc/apt/sources.list"), *sorted(directory.glob("*.list")), *sorted(directory.glob("*.sources"))]
    return lab_apt.parse({str(path): path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()})


def codename() -> str:
    """The Debian release this machine runs."""
    name = os_release(Path("/etc/os-release").read_text(encoding="utf-8")).get("VERSION_CODENAME")
    if name is None:
        raise UnifleetError("/etc/os-release names no VERSION_CODENAME", "the lab needs a Debian release")
    return name
