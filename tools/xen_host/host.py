# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Xen host: Debian's Xen with its own tools, whose bridge xenbr0 is on QEMU's user network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.unifleet.hybrid.tools.qemu_host.host import Kind, QemuHost, running
from ansible_collections.unifleet.hybrid.tools.qemu_host.image import Disk, Image

XenHost = QemuHost
_XEN_LINE = "console=com1 com1=115200,8n1 dom0_mem=768M,max:768M loglvl=warning"
_KERNEL_LINE = "root=/dev/vda console=hvc0 net.ifnames=0 quiet mitigations=off"


def _boot(image: Image) -> tuple[str, ...]:
    xen = image.directory / "xen"
    return ("-kernel", str(xen), "-append", _XEN_LINE, "-initrd", f"{image.kernel} {_KERNEL_LINE},{image.initrd}")


KIND = Kind(
    disk=Disk(
        name="xen",
        suite="bookworm",
        packages=("xen-hypervisor-4.17-amd64", "xen-utils-4.17"),
        kernel="linux-image-amd64",
        init="/sbin/xen-host-init",
        size=1500 * 1024**2,
        files={"sbin/xen-host-init": (0o755, Path(__file__).with_name("init.sh").read_text(encoding="ascii"))},
        boot_files={"boot/xen-*-amd64.gz": "xen"},
    ),
    # No SMAP (dom0 would die at once) and no MONITOR (Xen would panic): see docs of QEMU 7.2's emulator. One processor: more of them
    # wait for each other when the machine below is busy.
    machine=("-M", "q35", "-cpu", "qemu64,+svm,+npt", "-smp", "1", "-m", "1536"),
    boot=_boot,
    up="xen-host: up",
    down=("Panic", "crashed:"),
)


@contextmanager
def xen_host() -> Iterator[XenHost]:
    """A Xen host, from the cache where it is there. Raises ArchiveUnavailableError when it cannot be built for want of packages."""
    with running(KIND) as host:
        yield host
