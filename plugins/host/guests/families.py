# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unikernel families that Unifleet knows, by the name that an image's /unikernel.json gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Guest
from ansible_collections.unifleet.hybrid.plugins.host.guests.linux import LinuxGuest
from ansible_collections.unifleet.hybrid.plugins.host.guests.mirage import MirageGuest
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.plugins.host.guests.unikraft import UnikraftGuest
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_GUESTS = (PlainGuest(), UnikraftGuest(), MirageGuest(), LinuxGuest())
FAMILIES: Mapping[str, Guest] = MappingProxyType({guest.family: guest for guest in _GUESTS})
"""Family name -> the one object that speaks its dialect; they hold no state."""


def family(name: str) -> Guest:
    """The family of this name. Raises UnifleetError naming those that there are."""
    guest = FAMILIES.get(name)
    if guest is None:
        raise UnifleetError(f"unikernel family {name!r} is not known", f"known: {', '.join(sorted(FAMILIES))}")
    return guest
