# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What such a host boots: Debian's kernel, a small initrd, and a disk with Debian and the packages of the host's kind.

Everything comes from Debian's archive as the machine's own apt knows it, by the same recipe as the lab's bases. The kernel package is
unpacked, not installed: its maintainer scripts would build a large initrd for minutes. Needs root (mmdebstrap keeps owners).
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_apt, lab_recipe, lab_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SCRATCH = Path("/dev/shm")  # noqa: S108 - dpkg syncs every file; on a disk that takes three times as long

_FETCH_KERNEL = r"""chroot "$1" sh -ec 'cd /var/tmp
kernel=$(apt-cache depends --important {kernel} | sed -n "s/.*Depends: \(linux-image-[^ ]*\)/\1/p" | head -n 1)
apt-get -q download "$kernel"
mv linux-image*.deb kernel.deb'"""

_DRIVERS_NOT_NEEDED = ("gpu", "media", "net/ethernet", "net/wireless", "infiniband", "scsi")
_FIRST_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")

_INITRD_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/$module"; done < /order
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /root || exec /bin/busybox sh
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root {init}
"""


class ArchiveUnavailableError(UnifleetError):
    """Debian's packages cannot be had: nothing is wrong with the code, and nothing can be tested."""


@dataclass(frozen=True)
class Disk:
    """What a kind of host is made of. kernel: the package that depends on Debian's newest. init: the first process.

    files: path below the root -> mode and content. links: path -> target. boot_files: pattern below the root -> the name under which the
    one file that matches, unpacked, is kept beside the disk.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    kernel: str
    init: str
    size: int
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    boot_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> lab_recipe.Recipe:
        return lab_recipe.recipe(self.suite, "amd64", "amd64", ("busybox-static", *self.packages))

    @property
    def key(self) -> str:
        """What an image is cached under: it changes with everything that goes into one, but not with the archive's own updates."""
        parts = [self.recipe.key, Path(__file__).read_text(encoding="utf-8"), repr(self)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Image:
    """The files to boot, all in one directory, and the key that opens the host."""

    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"


def build(directory: Path, wanted: Disk) -> Image:
    """Build an image into the (empty) directory. Raises ArchiveUnavailableError, or UnifleetError when a step fails."""
    image = Image(directory)
    if os.geteuid() != 0:
        raise ArchiveUnavailableError("such a host's disk can only be made by root", "run as root")
    room = SCRATCH.is_dir() and shutil.disk_usage(SCRATCH).free > 3 * 1024**3
    with tempfile.TemporaryDirectory(prefix=f"unifleet-{wanted.name}-", dir=SCRATCH if room else None) as scratch:
        root = Path(scratch) / "root"
        _bootstrap(wanted, root, Path(scratch))
        version = _unpack_kernel(root)
        image.initrd.write_bytes(cpio(_initrd_files(root, version, wanted.init)))
        for pattern, name in wanted.boot_files.items():
            (found,) = root.glob(pattern)
            content = found.read_bytes()
            (directory / name).write_bytes(gzip.decompress(content) if found.suffix == ".gz" else content)
        shutil.copyfile(root / f"boot/vmlinuz-{version}", image.kernel)
        for leftover in (root / "boot").iterdir():
            leftover.unlink()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", wanted.name, "-f", str(image.key))
        _make_it_a_host(wanted, root, image.key.with_suffix(".pub").read_text(encoding="ascii"))
        with image.disk.open("wb") as disk:
            disk.truncate(wanted.size)
        # No journal: the disk is a throw-away, and its writes are emulated.
        _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(image.disk))
    return image


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A "newc" archive (cpio(5)) of path -> mode and content; directories have a mode and no content."""
    out = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)


def _bootstrap(wanted: Disk, root: Path, scratch: Path) -> None:
    sources = lab_apt.debian_archive(lab_root.machine_sources(), lab_root.codename(), wanted.suite)
    settings = lab_apt.settings(_run("apt-config", "dump"))
    tarball = scratch / "root.tar"
    program, *words = lab_recipe.bootstrap(wanted.recipe, str(tarball), settings)
    command = [program, f"--customize-hook={_FETCH_KERNEL.replace('{kernel}', wanted.kernel)}", *words]
    done = subprocess.run(
        command, input=lab_apt.render(sources), text=True, capture_output=True, check=False, env={**os.environ, "TMPDIR": str(scratch)}
    )
    if done.returncode != 0:
        said = " | ".join(done.stderr.strip().splitlines()[-5:])
        raise ArchiveUnavailableError(f"Debian's archive did not give the host {wanted.name}: {said}")
    root.mkdir()
    _run("tar", "--extract", "--numeric-owner", "--xattrs", "--file", str(tarball), "--directory", str(root))
    tarball.unlink()


def _unpack_kernel(root: Path) -> str:
    package = root / "var/tmp/kernel.deb"
    unpack = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(root), "--exclude=./usr/share"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            [*unpack, *(f"--exclude=lib/modules/*/kernel/drivers/{path}" for path in _DRIVERS_NOT_NEEDED)],
            stdin=archive.stdout,
            check=True,
        )
    package.unlink()
    (version,) = (path.name for path in (root / "lib/modules").iterdir())
    _run("depmod", "-b", str(root), version)
    return version


def _initrd_files(root: Path, version: str, init: str) -> dict[str, tuple[int, bytes]]:
    files = dict.fromkeys(("bin", "proc", "dev", "root"), (0o040755, b""))
    files["bin/busybox"] = (0o100755, (root / "bin/busybox").read_bytes())
    files["init"] = (0o100755, _INITRD_INIT.replace("{init}", init).encode())
    order: list[str] = []
    for module in _FIRST_MODULES:
        for line in _run("modprobe", "-d", str(root), "-S", version, "--show-depends", module).splitlines():
            kind, _space, rest = line.strip().partition(" ")
            if kind != "insmod":
                continue
            path = Path(rest.split()[0])
            packed = path.suffix == ".xz"
            name = path.stem if packed else path.name
            # crc32c's version for Intel processors depends on what the emulator does not have.
            if name not in order and name != "crc32c-intel.ko":
                order.append(name)
                content = path.read_bytes()
                files[name] = (0o100644, lzma.decompress(content) if packed else content)
    files["order"] = (0o100644, "".join(f"{name}\n" for name in order).encode())
    return files


def _make_it_a_host(wanted: Disk, root: Path, public_key: str) -> None:
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    for pattern in ("etc/apt/sources.list", "etc/apt/sources.list.d/*", "etc/resolv.conf"):
        for path in root.glob(pattern):
            path.unlink()
    usual = {
        "root/.ssh/authorized_keys": (0o600, public_key),
        "etc/hostname": (0o644, f"{wanted.name}\n"),
        "etc/hosts": (0o644, f"127.0.0.1 localhost {wanted.name}\n"),
        "etc/resolv.conf": (0o644, "nameserver 10.0.2.3\n"),
    }
    for name, (mode, content) in {**usual, **wanted.files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(mode)
    for name, target in wanted.links.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    _run("ssh-keygen", "-A", "-f", str(root))


def _run(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ArchiveUnavailableError(
            f"{words[0]} is not installed", "tools/prepare installs what tools/debian-packages.txt names"
        ) from error
    if done.returncode != 0:
        raise UnifleetError(f"{' '.join(words[:3])} failed: {' | '.join((done.stderr or done.stdout).strip().splitlines()[-3:])}")
    return done.stdout
