# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The register of what the labs of one machine share: who uses it, and what was there before any lab.

IP forwarding, the binfmt_misc mount and its entries, and the mount of named network namespaces are the machine's: a second lab
needs them as well, so the lab that made them may not take them away while the other stands. Each lab therefore signs in as a
user of each of them, and the last one to leave puts back what the first one found. A thing that was there before any lab is
registered too, as not made: a lab whose ledger says that it did make it (one older than the register) may go while others stay.

A user is the path of a lab's ledger. One whose ledger is gone, or from another boot, uses nothing any more. Pure: lab_commons
reads and writes the file, looks at the ledgers and does what is decided here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Callable, Iterable, Sequence

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Record

VERSION = 1

_COMMON = frozenset({Kind.MOUNT, Kind.SYSCTL, Kind.BINFMT})


def is_common(record: Record) -> bool:
    """Whether the record of a ledger names a thing of the machine that other labs may use as well."""
    return record.kind in _COMMON and not record.owner


@dataclass(frozen=True)
class Common:
    """One shared thing: its record (`was`: the value before any lab), whether labs made it, and the labs that use it."""

    record: Record
    made: bool = False
    users: tuple[str, ...] = ()

    def made_by_lab(self, record: Record) -> Common:
        """As made, and with the value that the record of its maker keeps; the first maker's value stands."""
        return self if self.made else replace(self, record=record, made=True)

    def used_by(self, user: str) -> Common:
        return self if user in self.users else replace(self, users=(*self.users, user))


@dataclass(frozen=True)
class Register:
    """The shared things, in the order in which the first lab came to use them, in one boot of the machine."""

    boot: str
    commons: tuple[Common, ...] = ()

    def of(self, record: Record) -> Common:
        """The shared thing; one that no lab has used before was not made by any."""
        return next((common for common in self.commons if common.record.same(record)), Common(record))

    def with_common(self, common: Common) -> Register:
        if any(common.record.same(mine.record) for mine in self.commons):
            return Register(self.boot, tuple(common if common.record.same(mine.record) else mine for mine in self.commons))
        return Register(self.boot, (*self.commons, common))

    def told(self, user: str, records: Iterable[Record]) -> Register:
        """Knowing what a lab's ledger says: that labs made these things, and this one uses them. A lab may be older than the register."""
        register = self
        for record in filter(is_common, records):
            register = register.with_common(register.of(record).made_by_lab(record).used_by(user))
        return register

    def without(self, user: str) -> Register:
        """With the lab signed out everywhere."""
        return self.kept(lambda each: each != user)

    def kept(self, lives: Callable[[str], bool]) -> Register:
        """With the labs only that live."""
        return Register(self.boot, tuple(replace(common, users=tuple(filter(lives, common.users))) for common in self.commons))

    def abandoned(self) -> tuple[Record, ...]:
        """What labs made and none uses any more, newest first: to be put back as it was."""
        return tuple(common.record for common in reversed(self.commons) if common.made and not common.users)

    def used(self, stuck: Sequence[Record] = ()) -> Register:
        """With the things only that somebody uses, and those that could not be put back."""
        return Register(self.boot, tuple(common for common in self.commons if common.users or common.record in stuck))

    def after_boot(self, boot: str) -> Register:
        """The register as it holds in this boot: the kernel has forgotten everything that one of another boot tells of."""
        return self if self.boot == boot else Register(boot)


def dump(register: Register) -> str:
    """The register as JSON text, one thing a line so that a person can read it."""
    things = [
        {"kind": common.record.kind.value, "name": common.record.name, "made": common.made, "was": common.record.was, "users": common.users}
        for common in register.commons
    ]
    lines = "".join(f"\n    {json.dumps(thing)}," for thing in things).rstrip(",")
    return f'{{"version": {VERSION}, "boot": {json.dumps(register.boot)}, "things": [{lines}\n]}}\n'


def load(text: str, where: str) -> Register:
    """The register from JSON text; `where` (its file) goes into the UnifleetError about a text that is not one."""
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise ValueError(f"its version is {data['version']}, not {VERSION}")
        return Register(str(data["boot"]), tuple(_common(thing) for thing in data["things"]))
    except (ValueError, KeyError, TypeError) as error:
        hint = "take every lab of this machine down with the version of the collection that made it, then remove the file"
        raise UnifleetError(f"{where} is not the register of this machine's labs: {error}", hint) from error


def _common(thing: dict[str, object]) -> Common:
    users, made = thing["users"], thing["made"]
    if not isinstance(users, list) or not isinstance(made, bool):
        raise TypeError(f"{thing['name']} has users {users!r} and made {made!r}")
    return Common(Record(Kind(thing["kind"]), str(thing["name"]), was=str(thing["was"])), made, tuple(map(str, users)))
