# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every unikernel family tells the rest: how it wants its command line, whether it can be asked to stop, what its end means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol


@dataclass(frozen=True)
class Network:
    """What a guest is told of its network: address "10.0.0.5/24", gateway "10.0.0.1", name servers."""

    address: str
    gateway: str
    nameservers: tuple[str, ...] = ()


class Guest(Protocol):
    """One unikernel family."""

    family: str
    can_shut_down: bool
    """Whether the guest ends by itself when asked (ACPI power button, xenstore); an image's profile may override it."""

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Optional[Network]) -> str:
        """The kernel command line for these arguments. Raises UnifleetError when the dialect cannot carry one of them."""

    def exit_code(self, console_tail: bytes) -> Optional[int]:
        """The exit code that the guest wrote at the end of its console, or None when it wrote none."""
