# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's ledger: what it made on the machine, written down before it is made.

A lab that is torn down after a crash half-way must find everything it made and touch nothing else. So each thing is first
recorded, then made; taken away, then struck out. A record may name a thing that was never made (the crash came in between):
taking it away is then nothing. Pure: lab_machine reads and writes the file.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Iterable

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

VERSION = 1


class Kind(enum.Enum):
    """Everything that a lab makes outside its own directory."""

    CGROUP = "cgroup"
    """A directory under /sys/fs/cgroup; what runs in it is the host, and is killed with it."""
    UNIT = "unit"
    """A transient systemd service that holds a host (machines where systemd runs)."""
    NAMESPACE = "namespace"
    """A named network namespace."""
    LINK = "link"
    """A network interface of the machine: the bridge, or the outer end of a host's cable."""
    MOUNT = "mount"
    TABLE = "table"
    """An nftables table of family ip."""
    SYSCTL = "sysctl"
    """A file below /proc/sys whose value was changed; the record keeps the old value."""
    BINFMT = "binfmt"
    """A foreign architecture that the kernel was taught to run."""


@dataclass(frozen=True)
class Record:
    """One thing on the machine: its kind and name, the host it belongs to (empty: the lab) and, for a SYSCTL, the old value."""

    kind: Kind
    name: str
    owner: str = ""
    was: str = ""

    def same(self, other: Record) -> bool:
        return (self.kind, self.name) == (other.kind, other.name)


@dataclass(frozen=True)
class Ledger:
    """The lab's name, the machine's boot it was written in, and the records in the order in which things were made."""

    lab: str
    boot: str
    records: tuple[Record, ...] = ()

    def __contains__(self, record: object) -> bool:
        return isinstance(record, Record) and any(record.same(mine) for mine in self.records)

    def noted(self, record: Record) -> Ledger:
        """With the record; the first record of a thing stands, since it knows the old value."""
        return self if record in self else Ledger(self.lab, self.boot, (*self.records, record))

    def struck(self, record: Record) -> Ledger:
        return Ledger(self.lab, self.boot, tuple(mine for mine in self.records if not mine.same(record)))

    def undoing(self, owner: str | None = None) -> tuple[Record, ...]:
        """What is to be taken away, newest first: one host's things, or everything."""
        return tuple(record for record in reversed(self.records) if owner is None or record.owner == owner)

    def after_boot(self, boot: str) -> Ledger:
        """The ledger as it holds in this boot of the machine: nothing that a ledger records outlives the machine's kernel."""
        return self if self.boot == boot else Ledger(self.lab, boot)

    def owners(self) -> tuple[str, ...]:
        return tuple(sorted({record.owner for record in self.records if record.owner}))


def dump(ledger: Ledger) -> str:
    """The ledger as JSON text, one record a line so that a person can read it."""
    records = [{"kind": r.kind.value, "name": r.name, "owner": r.owner, "was": r.was} for r in ledger.records]
    lines = ",\n    ".join(json.dumps(record) for record in records)
    head = f'"version": {VERSION}, "lab": {json.dumps(ledger.lab)}, "boot": {json.dumps(ledger.boot)}'
    return f'{{{head},\n  "records": [\n    {lines}\n  ]}}\n' if records else f'{{{head}, "records": []}}\n'


def load(text: str, where: str) -> Ledger:
    """The ledger from JSON text; `where` (its file) goes into the UnifleetError about a text that is not one."""
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise UnifleetError(
                f"{where} was written by another version of the lab ({data['version']})", "take that lab down with the version that made it"
            )
        return Ledger(str(data["lab"]), str(data["boot"]), tuple(_records(data["records"])))
    except (ValueError, KeyError, TypeError) as error:
        hint = "it records what the lab made on this machine; restore it, or take those things away by hand and remove the file"
        raise UnifleetError(f"{where} is not a lab's ledger: {error}", hint) from error


def _records(items: Iterable[dict[str, str]]) -> Iterable[Record]:
    for item in items:
        yield Record(Kind(item["kind"]), str(item["name"]), str(item["owner"]), str(item["was"]))
