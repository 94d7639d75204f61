# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux family: a kernel and an initrd whose /init is the workload, `... ip=... NAME=value ... -- ARGUMENT ...`.

Where the rules come from (Linux): lib/cmdline.c next_arg() cuts words: a space (and byte 0xA0) ends one outside of double quotes, a quote
at the word's or its value's beginning and end is dropped, one elsewhere stays, and nothing escapes a quote. init/main.c: words after -- are
init's arguments, up to a second --; words before it that no kernel parameter has taken and that hold a = are init's environment, unless
the name has a dot; 32 of each, or the kernel panics. So that no variable is taken for a kernel parameter (root=, debug=), names in lower
case are refused. arch/*/include/asm/setup.h: COMMAND_LINE_SIZE.

A kernel with CONFIG_IP_PNP configures eth0 by ip=; without it (Debian's has none) /init finds ip in its environment and in /proc/cmdline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import ANY, GuestHardware, Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.words import (
    check_length,
    check_parameters,
    check_text,
    check_variable_name,
    last_match,
    on_link,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

ARGUMENTS_MOST = 32
VARIABLES_MOST = 31
"""MAX_INIT_ENVS (32) plus one, less HOME and TERM, which the kernel has."""
LINE_MOST = {"arm": 1023, "riscv64": 1023}
"""COMMAND_LINE_SIZE less the NUL where it is not 2048."""
XEN_LINE_MOST = 1023

_CONSOLES = {"arm64": "ttyAMA0", "arm": "ttyAMA0"}
_QUOTE = ord('"')
_SPACES = b"\t\n\v\f\r \xa0"
_NAME = re.compile(r"[A-Z_][A-Z0-9_-]*|(?:https?|ftp|all|no)_proxy")
_KERNEL = rb"^(?:<[0-9]>)?\[[ 0-9.]+\](?: ?\[[^\]\n]*\])? "
_DIED = re.compile(_KERNEL + rb"Kernel panic - not syncing: Attempted to kill init! exitcode=0x([0-9a-f]{8})\r?$", re.MULTILINE)
_PANIC = re.compile(_KERNEL + rb"Kernel panic - not syncing: ", re.MULTILINE)
_DOWN = re.compile(_KERNEL + rb"reboot: (?:Power down|System halted|Restarting system)\b", re.MULTILINE)


class LinuxGuest:
    """A Linux kernel that boots one program."""

    family = "linux"
    can_shut_down = False

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> str:
        """The kernel command line. Raises UnifleetError naming what cannot be carried.

        quiet keeps the kernel's own chatter out of the pod's log; panic=-1 ends the machine when /init ends.
        """
        console = "hvc0" if platform.hypervisor == "xen" else _CONSOLES.get(platform.architecture, "ttyS0")
        words = [f"console={console}", "quiet", "panic=-1", *check_parameters(platform.parameters)]
        if network is not None:
            words.append(_network(network))
        if len(args) > ARGUMENTS_MOST or len(dict(env)) + (network is not None) > VARIABLES_MOST:
            raise UnifleetError(
                f"{len(args)} arguments and {len(env)} environment variables; Linux gives its init {ARGUMENTS_MOST} and {VARIABLES_MOST}",
                "pass less in args and env",
            )
        words += [_variable(name, value) for name, value in env]
        words += ["--", *(_argument(arg, f"argument {number}") for number, arg in enumerate(args, 1))]
        most = XEN_LINE_MOST if platform.hypervisor == "xen" else LINE_MOST.get(platform.architecture, 2047)
        return check_length(" ".join(words), most, f"Linux on {platform.architecture}")

    def hardware(self, platform: Platform) -> GuestHardware:
        """Any machine type will do; distributions' kernels want more memory than a unikernel."""
        machine = "virt" if platform.architecture in ("arm64", "arm", "riscv64") else ""
        return GuestHardware(machine=machine, memory_bytes=256 << 20, memory_least=16 << 20)

    def exit_code(self, console_tail: bytes) -> int | None:
        """How /init ended, which the kernel says as it panics for it: its exit code, or 128+n for signal n; 134 for any other panic.

        A program that powers the machine off says no code. What stands last counts.
        """
        down, panic, died = (last_match(pattern, console_tail) for pattern in (_DOWN, _PANIC, _DIED))
        if panic is None or (down is not None and down.start() > panic.start()):
            return None
        if died is None or died.start() < panic.start():
            return 134
        status = int(died.group(1), 16)
        return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _network(network: Network) -> str:
    """Documentation/admin-guide/nfs/nfsroot.rst: ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1."""
    address = on_link(network)
    servers = "".join(f":{server}" for server in network.nameservers[:2])
    return f"ip={address.ip}::{network.gateway}:{address.netmask}::eth0:off{servers}"


def _variable(name: str, value: str) -> str:
    check_variable_name(name)
    if _NAME.fullmatch(name) is None:
        raise UnifleetError(
            f"environment variable {name} cannot be passed: Linux may take the word for a kernel parameter of its own",
            "use upper case letters, digits and _ in the names of variables",
        )
    return _word(f"{name}={value}", f"environment variable {name}")


def _argument(text: str, what: str) -> str:
    if text == "--":
        raise UnifleetError(f"{what} is --, at which Linux stops reading init's arguments", "leave it out")
    return _word(text, what)


def _word(text: str, what: str) -> str:
    """The word for next_arg(): as it is, or in quotes, or with its value in quotes, whichever is read back as the word."""
    raw = check_text(text, what).encode("utf-8")
    name, equals, value = raw.partition(b"=")
    spellings = (raw, b'"' + raw + b'"', name + b'="' + value + b'"' if equals else b"")
    for spelling in spellings:
        if spelling and _read_back(spelling) == raw:
            return spelling.decode("utf-8")
    raise UnifleetError(f"{what} has its \" in a place where Linux's command line cannot carry it", 'take the " out, or encode the value')


def _read_back(spelling: bytes) -> bytes | None:
    """What next_arg() and repair_env_string() make of a word that others follow; None when it is not one word.

    isspace() is true for byte 0xA0, which many letters have in UTF-8 (the second of \u00e0).
    """
    quoted = spelling.startswith(b'"')
    word = spelling[1:] if quoted else spelling
    inside = quoted
    for byte in word:
        if byte == _QUOTE:
            inside = not inside
        elif byte in _SPACES and not inside:
            return None
    if inside:
        return None
    equals = word.find(b"=", 1)
    if equals > 0 and word[equals + 1 : equals + 2] == b'"':
        value = word[equals + 2 :]
        return word[: equals + 1] + (value[:-1] if value.endswith(b'"') else value)
    return word[:-1] if quoted and word.endswith(b'"') else word
