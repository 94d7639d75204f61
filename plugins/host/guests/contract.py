# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every unikernel family tells the rest: its command line and hardware, whether it can be asked to stop, what its end means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # typing takes longer to import than all that a start of a container wants to know of its guest


@dataclass(frozen=True)
class Network:
    """What a guest is told of its network: address "10.0.0.5/24", gateway "10.0.0.1", name servers."""

    address: str
    gateway: str
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Platform:
    """What a command line depends on besides the pod: where the guest runs and what the image says of it.

    hypervisor and architecture: as in an image's kernel table. version: of the family's system ("0.16.1"; "" is a current one). initrd:
    whether the guest gets one. parameters: words for the kernel itself, from the image.
    """

    hypervisor: str = "kvm"
    architecture: str = "amd64"
    version: str = ""
    initrd: bool = False
    parameters: tuple[str, ...] = ()


ANY = Platform()
"""A KVM host, amd64, and an image that says nothing."""


@dataclass(frozen=True)
class GuestHardware:
    """The virtual hardware that a family drives; an image's profile may say otherwise.

    machine: QEMU machine type, "" where the host may choose. nic: libvirt's model. memory_bytes: what it gets when neither pod nor image
    says. memory_least: below it no guest of the family comes up. debug_exit: the port of the isa-debug-exit device without which it cannot
    power off, or 0.
    """

    machine: str = ""
    nic: str = "virtio"
    memory_bytes: int = 0
    memory_least: int = 0
    debug_exit: int = 0


class Guest(Protocol):
    """One unikernel family."""

    family: str
    can_shut_down: bool
    """Whether the guest ends by itself when asked (ACPI power button, xenstore); an image's profile may override it."""

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> str:
        """The kernel command line for these arguments. Raises UnifleetError when the dialect cannot carry one of them."""

    def hardware(self, platform: Platform) -> GuestHardware:
        """What the guest wants to find on such a host."""

    def exit_code(self, console_tail: bytes) -> int | None:
        """The exit code that the guest wrote at the end of its console, or None when it wrote none."""
