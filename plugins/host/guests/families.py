# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unikernel families that Unifleet knows, by the name that an image's /unikernel.json gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Guest


def _plain() -> Guest:
    from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest

    return PlainGuest()


def _unikraft() -> Guest:
    from ansible_collections.unifleet.hybrid.plugins.host.guests.unikraft import UnikraftGuest

    return UnikraftGuest()


def _mirage() -> Guest:
    from ansible_collections.unifleet.hybrid.plugins.host.guests.mirage import MirageGuest

    return MirageGuest()


def _linux() -> Guest:
    from ansible_collections.unifleet.hybrid.plugins.host.guests.linux import LinuxGuest

    return LinuxGuest()


class _Families(Mapping[str, "Guest"]):
    """Name -> family. Each is imported when it is asked for: a start of a container needs one of them."""

    makers: Mapping[str, Callable[[], Guest]] = {"plain": _plain, "unikraft": _unikraft, "mirage": _mirage, "linux": _linux}

    def __getitem__(self, name: str) -> Guest:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


FAMILIES: Mapping[str, Guest] = _Families()
"""Family name -> an object that speaks its dialect; they hold no state."""


def family(name: str) -> Guest:
    """The family of this name. Raises UnifleetError naming those that there are."""
    guest = FAMILIES.get(name)
    if guest is None:
        raise UnifleetError(f"unikernel family {name!r} is not known", f"known: {', '.join(sorted(FAMILIES))}")
    return guest
