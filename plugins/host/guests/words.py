# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dialects share: which text can be a word of a kernel command line at all, how long a line is, how /32 addresses are told.

A dialect here carries a word exactly or refuses it by name; nothing is dropped, cut or replaced.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PARAMETER = re.compile(r"[!-~]+")


def check_text(text: str, what: str) -> str:
    """The text, if a kernel command line can carry its characters: no control character (libvirt's XML has none), valid UTF-8.

    what: "argument 2" or "environment variable X", for the error.
    """
    found = _CONTROL.search(text)
    if found is not None:
        raise UnifleetError(f"{what} holds the control character {found[0]!r}, which a kernel command line cannot carry", "take it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnifleetError(f"{what} is not valid text: {error.reason}", "pass UTF-8") from error
    return text


def check_parameters(parameters: Sequence[str]) -> Sequence[str]:
    """An image's words for the kernel itself: printable, no space, no quote, so that they are what they seem in every dialect."""
    for word in parameters:
        if _PARAMETER.fullmatch(word) is None or set(word) & set("\"'\\") or word == "--":
            raise UnifleetError(f"the image's kernel parameter {word!r} cannot be passed", "a parameter is one word without quotes")
    return parameters


def check_length(line: str, most: int, kind: str) -> str:
    """The line, if it is at most so many bytes long; a longer one would be cut without a word."""
    size = len(line.encode("utf-8"))
    if size > most:
        longest = max(line.split(" "), key=len)
        raise UnifleetError(
            f"arguments and environment make a kernel command line of {size} bytes; {kind} takes {most}; "
            f"the longest word begins with {longest[:40]!r}",
            "pass less in args and env",
        )
    return line


def on_link(network: Network) -> ipaddress.IPv4Interface:
    """The guest's address with a prefix that holds its gateway too, for network stacks that know no route to a gateway but the link's.

    Clouds and CNI plugins give /32 (or gateways elsewhere, such as 169.254.1.1). The rule: the longest prefix that is no longer than the
    given one, holds address and gateway, and has neither of them as its first or last address (which stacks take for broadcasts). What the
    wider prefix covers besides is then asked for by ARP on the link; hosts that give /32 answer for it (proxy ARP). Raises UnifleetError.
    """
    try:
        address = ipaddress.IPv4Interface(network.address)
        gateway = ipaddress.IPv4Address(network.gateway) if network.gateway else None
    except ValueError as error:
        raise UnifleetError(f"the pod's network {network.address} by {network.gateway} is no IPv4 network: {error}") from error
    if gateway == address.ip:
        raise UnifleetError(f"the pod's network {network.address} has the pod itself as its gateway", "give the pod another address")
    if gateway is None or gateway in address.network:
        return address
    for prefix in range(address.network.prefixlen - 1, -1, -1):
        wider = ipaddress.IPv4Interface(f"{address.ip}/{prefix}")
        ends = (wider.network.network_address, wider.network.broadcast_address)
        if gateway in wider.network and gateway not in ends and address.ip not in ends:
            return wider
    raise UnifleetError(f"the pod's network {network.address} by {network.gateway} cannot be told to a unikernel")


def last_match(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes] | None:
    """The last place where the pattern is found."""
    found = None
    for each in pattern.finditer(text):
        found = each
    return found


def check_variable_name(name: str) -> str:
    """The name of an environment variable, checked as far as every dialect needs it."""
    if not name or "=" in name:
        raise UnifleetError(f"environment variable name {name!r} cannot be passed to a unikernel", "a name is not empty and has no =")
    return check_text(name, f"the name of environment variable {name!r}")
