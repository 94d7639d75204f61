# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plain family: the project's own unikernels (guest/).

Their command line is `[NAME=value ...] -- [argument ...]`: words with single spaces between, in which every byte that is not
plainly harmless is %XX, and the empty word is a lone %. Only letters, digits and a few signs are left, so that QEMU, libvirt's XML and
any boot loader carry it unharmed, and what the pod says is exactly what the guest's argv and environment get (guest/os/words.c is
the other half). The exit code is the console's last line, `unikernel: exit CODE`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import ANY, GuestHardware, Network, Platform
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

COMMAND_LINE_MOST = 4095
"""What QEMU's PVH loader carries (pc-bios/optionrom/pvh_main.c: a buffer of 4096), and COMMAND_LINE_MAX of guest/os/os.h."""
WORDS_MOST = 2048

_HARMLESS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:=,+@")
_EXIT = re.compile(rb"(?:\A|\n)unikernel: exit (0|[1-9][0-9]{0,2})\r?\n\Z")


class PlainGuest:
    """The project's own unikernels."""

    family = "plain"
    can_shut_down = True

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> str:
        """The kernel command line. The network travels as UNIFLEET_ADDRESS, UNIFLEET_GATEWAY and UNIFLEET_NAMESERVERS (the last wins).

        Raises UnifleetError naming the argument or variable that cannot be carried, or when all of it is too long.
        """
        del platform  # the same line everywhere
        words = [_variable(name, value) for name, value in env]
        if network is not None:
            words.append(_variable("UNIFLEET_ADDRESS", network.address))
            words.append(_variable("UNIFLEET_GATEWAY", network.gateway))
            words.append(_variable("UNIFLEET_NAMESERVERS", ",".join(network.nameservers)))
        words.append("--")
        words.extend(_word(arg, f"argument {number}") for number, arg in enumerate(args, 1))
        line = " ".join(words)
        if len(line) > COMMAND_LINE_MOST or len(words) > WORDS_MOST:
            largest = max(words, key=len)
            raise UnifleetError(
                f"arguments and environment make a kernel command line of {len(line)} bytes and {len(words)} words; "
                f"a unikernel takes {COMMAND_LINE_MOST} bytes and {WORDS_MOST} words; the longest begins with {largest[:40]!r}",
                "pass less in args and env",
            )
        return line

    def hardware(self, platform: Platform) -> GuestHardware:
        """Any machine type; the least memory that QEMU's machines start with."""
        return GuestHardware(machine="virt" if platform.architecture == "arm64" else "", memory_bytes=8 << 20, memory_least=2 << 20)

    def exit_code(self, console_tail: bytes) -> int | None:
        """The code in the very last line; None when that line is anything else, so that what the workload printed before is no matter."""
        found = _EXIT.search(console_tail)
        if found is None:
            return None
        code = int(found.group(1))
        return code if code <= 255 else None


def _variable(name: str, value: str) -> str:
    if not name or "=" in name:
        raise UnifleetError(f"environment variable name {name!r} cannot be passed to a unikernel", "a name is not empty and has no =")
    return _word(f"{name}={value}", f"environment variable {name}")


def _word(text: str, what: str) -> str:
    if not text:
        return "%"
    if "\0" in text:
        raise UnifleetError(f"{what} holds a NUL byte, which a command line cannot carry", "take it out")
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UnifleetError(f"{what} is not valid text: {error.reason}", "pass UTF-8") from error
    return "".join(chr(byte) if byte in _HARMLESS else f"%{byte:02X}" for byte in encoded)
