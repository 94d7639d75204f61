# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MirageOS family: `--ipv4=ADDRESS/PREFIX --ipv4-gateway=GATEWAY KEY ...`, on Solo5 (virtio, xen, hvt, spt) and as a Linux program.

Where the rules come from: Solo5 hands over the line as it is but for its own `--solo5:quiet` and `--solo5:debug` at the beginning
(bindings/cmdline.c); mirage-bootvar cuts it into words (parse_argv.ml). Both generations of that parser take a backslash before any
character as that character, and both lose empty words. There are no environment variables. Solo5's virtio machine cannot power off: it asks
QEMU's isa-debug-exit device at port 0x501 to end (bindings/virtio/platform.c), and halts for ever where there is none.

hvt and spt unikernels run under their tender, which is an ordinary Linux program: a process machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import ANY, GuestHardware, Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.words import check_length, check_parameters, check_text, last_match, on_link
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LINE_MOST = 8191
"""HVT_CMDLINE_SIZE and the buffers of the other bindings, without the NUL."""
MEMORY_LEAST = 4 << 20
SOLO5_OPTIONS = ("--solo5:quiet", "--solo5:debug")

_SPECIAL = re.compile(r"([\s\"'\\])")
_EXITED = re.compile(rb"^Solo5: solo5_(?:exit\(([0-9]{1,10})\)|(abort)\(\)) called\r?$", re.MULTILINE)


class MirageGuest:
    """MirageOS unikernels (and other applications on Solo5 that read their line alike)."""

    family = "mirage"
    can_shut_down = False

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> str:
        """The kernel command line. Name servers have no common key: an image that needs them has one of its own.

        Raises UnifleetError naming the argument that cannot be carried, and for any variable: there is no environment.
        """
        return check_length(" ".join(self.words(args, env, network, platform)), LINE_MOST, "Solo5")

    def words(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> list[str]:
        """The command line's words as a tender takes them: one argument each, which it joins with spaces."""
        if env:
            raise UnifleetError(
                f"environment variable {env[0][0]} cannot be passed: a MirageOS unikernel has no environment",
                "pass it as a key in args, such as --name=value",
            )
        own = 0
        while own < len(args) and args[own] in SOLO5_OPTIONS:
            own += 1
        keys = []
        if network is not None:
            keys.append(f"--ipv4={on_link(network)}")
            if network.gateway:
                keys.append(f"--ipv4-gateway={network.gateway}")
        return [
            *args[:own],
            *check_parameters(platform.parameters),
            *keys,
            *(_word(arg, f"argument {number}") for number, arg in enumerate(args[own:], own + 1)),
        ]

    def hardware(self, platform: Platform) -> GuestHardware:
        """Machine type pc: the virtio bindings drive one legacy PCI device of each kind on the first bus."""
        if platform.hypervisor == "xen":
            return GuestHardware(memory_bytes=32 << 20, memory_least=MEMORY_LEAST)
        return GuestHardware(machine="pc", memory_bytes=32 << 20, memory_least=MEMORY_LEAST, debug_exit=0x501)

    def exit_code(self, console_tail: bytes) -> int | None:
        """What the unikernel gave solo5_exit(), or 134 after solo5_abort(); nothing is said with --solo5:quiet."""
        last = last_match(_EXITED, console_tail)
        if last is None:
            return None
        return 134 if last.group(2) else int(last.group(1)) & 0xFF


def tender_arguments(
    tender: str,
    kernel: str,
    words: Sequence[str],
    *,
    memory_bytes: int,
    taps: Mapping[str, str],
    devices: Sequence[tuple[str, str]] = (),
) -> tuple[str, ...]:
    """The program that runs an hvt or spt unikernel: its tender's arguments.

    tender, kernel: absolute paths in the program's root. words: MirageGuest.words(). taps: device name of the unikernel's manifest -> tap
    interface. devices: (kind, name) of that manifest, kind "net" or "block"; a tender runs nothing that has a device unattached, so that is
    said here, by name. Source: Solo5's tenders/spt/spt_main.c.
    """
    for kind, name in devices:
        if kind != "net" or name not in taps:
            raise UnifleetError(
                f"the unikernel's manifest asks for the {kind} device {name!r}, and none can be given to it here",
                "run its virtio build on a node with virtual machines, or build it without the device",
            )
    megabytes = max(memory_bytes, MEMORY_LEAST) >> 20
    check_length(" ".join(words), LINE_MOST, "Solo5")
    return (tender, f"--mem={megabytes}", *(f"--net:{name}={tap}" for name, tap in sorted(taps.items())), "--", kernel, *words)


def _word(text: str, what: str) -> str:
    check_text(text, what)
    if not text:
        raise UnifleetError(f"{what} is empty, and a MirageOS command line cannot carry an empty word", "leave it out, or write --key=")
    return _SPECIAL.sub(r"\\\1", text)
