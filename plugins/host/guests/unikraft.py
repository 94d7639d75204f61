# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Unikraft family: `unikraft PREFIX.PARAMETER=VALUE ... -- ARGUMENT ...`.

Where the rules come from (Unikraft's sources): words are cut by lib/ukargparse (quotes of both kinds; the backslash is a newer addition,
so that no encoding here depends on it), parameters are read by lib/uklibparam up to the word --, the application gets the rest, lib/ukboot
has room for 60 words. The first word is the program's own name: QEMU's multiboot loader puts one in front, other loaders do not, so we send
a word without a dot, which uklibparam passes over.

Since 0.16.1 the network is `netdev.ip=ADDRESS/PREFIX:GATEWAY:DNS:DNS:HOSTNAME:DOMAIN`, variables are `env.vars=[ ... ]` and an initrd is a
line of `vfs.fstab=[ ... ]`; before, the network was three parameters, the initrd `vfs.rootfs=initrd`, and there were no variables.
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

WORDS_MOST = 58
"""CONFIG_LIBUKBOOT_MAXNBARGS is 60 unless an image was built with another; one is the loader's, and a sixtieth would be left unread: it is
all of the rest of the line, with its quotes."""
LINE_MOST = 4095
XEN_LINE_MOST = 1023
"""MAX_GUEST_CMDLINE of Xen's start_info, which a paravirtual guest gets its line through."""

_NAME = "unikraft"
_PLAIN = re.compile(r"[^\s'\"\\]+")
_RETURNED = re.compile(rb"^(?:\[[ 0-9.]+\] )?[^\n]*\bmain returned (-?[0-9]{1,10})(?:, halting system)?\r?$", re.MULTILINE)
_CRASHED = re.compile(rb"^(?:\[[ 0-9.]+\] )?[^\n]*\bUnikraft crash - ", re.MULTILINE)
_CURRENT = (0, 16, 1)
_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:[-+~.].*)?")


class UnikraftGuest:
    """Unikraft applications, kraft's and others."""

    family = "unikraft"
    can_shut_down = False

    def command_line(self, args: Sequence[str], env: Sequence[tuple[str, str]], network: Network | None, platform: Platform = ANY) -> str:
        """The kernel command line. Of the name servers the first two are told. Raises UnifleetError naming what cannot be carried."""
        current = _is_current(platform.version)
        words = [*check_parameters(platform.parameters)]
        if network is not None:
            words += _network(network) if current else _old_network(network)
        if platform.initrd and not any(word.startswith(("vfs.fstab", "vfs.rootfs")) for word in words):
            words += ["vfs.fstab=[", "initrd0:/:extract:::", "]"] if current else ["vfs.rootfs=initrd"]
        words += _variables(env) if current else _no_variables(env, platform.version)
        # Without a parameter before it, uk_libparam_parse() would leave the -- to the application.
        words = [_NAME, *(words or [_NAME]), "--", *(_word(arg, f"argument {number}") for number, arg in enumerate(args, 1))]
        if len(words) > WORDS_MOST:
            raise UnifleetError(
                f"arguments and environment make {len(words)} words of a kernel command line; Unikraft takes {WORDS_MOST}",
                "pass less in args and env",
            )
        return check_length(" ".join(words), XEN_LINE_MOST if platform.hypervisor == "xen" else LINE_MOST, "Unikraft")

    def hardware(self, platform: Platform) -> GuestHardware:
        """Machine type pc: its virtio devices are transitional and on the first PCI bus, where every Unikraft's driver finds them."""
        machine = "virt" if platform.architecture == "arm64" else "pc"
        return GuestHardware(machine=machine, memory_bytes=64 << 20, memory_least=2 << 20)

    def exit_code(self, console_tail: bytes) -> int | None:
        """What main() returned, if the kernel was built to say so, or 134 after a crash. Unikraft cannot hand it to the hypervisor."""
        returned, crashed = (last_match(pattern, console_tail) for pattern in (_RETURNED, _CRASHED))
        if crashed is not None and (returned is None or returned.start() < crashed.start()):
            return 134
        return None if returned is None else int(returned.group(1)) & 0xFF


def _is_current(version: str) -> bool:
    if not version:
        return True
    found = _VERSION.fullmatch(version)
    if found is None:
        raise UnifleetError(f"the image's Unikraft version {version!r} is no version", "write it as 0.16.1")
    return tuple(int(part or 0) for part in found.groups()) >= _CURRENT


def _network(network: Network) -> list[str]:
    servers = [*network.nameservers[:2], "", ""][:2]
    return [f"netdev.ip={on_link(network)}:{network.gateway}:{servers[0]}:{servers[1]}::"]


def _old_network(network: Network) -> list[str]:
    address = on_link(network)
    words = [f"netdev.ipv4_addr={address.ip}", f"netdev.ipv4_subnet_mask={address.netmask}"]
    return [*words, f"netdev.ipv4_gw_addr={network.gateway}"] if network.gateway else words


def _variables(env: Sequence[tuple[str, str]]) -> list[str]:
    """The list form; a value that ends with the list's own ] has a parameter of its own, which uklibparam adds to the list."""
    listed, single = [], []
    for name, value in env:
        word = f"{check_variable_name(name)}={value}"
        if not value.endswith("]"):
            listed.append(_word(word, f"environment variable {name}"))
        elif not name.startswith("["):
            single.append(_word(f"env.vars={word}", f"environment variable {name}"))
        else:
            raise UnifleetError(f"environment variable {name!r} with a value that ends with ] is a list to Unikraft", "rename it")
    return [*(["env.vars=[", *listed, "]"] if listed else []), *single]


def _no_variables(env: Sequence[tuple[str, str]], version: str) -> list[str]:
    if env:
        raise UnifleetError(
            f"environment variable {env[0][0]} cannot be passed: Unikraft {version} has no way to get one (0.16.1 and newer have)",
            "pass it as an argument",
        )
    return []


def _word(text: str, what: str) -> str:
    """One word for ukargparse, with and without its backslash: ' inside "", all else inside ''. It knows no empty word."""
    check_text(text, what)
    if not text:
        raise UnifleetError(f"{what} is empty, and Unikraft's command line cannot carry an empty word", "leave it out")
    if text[0] == " ":
        raise UnifleetError(f"{what} begins with a space, which Unikraft's command line loses", "take it out")
    if _PLAIN.fullmatch(text) and text.isascii():
        return text
    return "".join(f'"{part}"' if part.startswith("'") else f"'{part}'" for part in re.findall(r"'+|[^']+", text))
