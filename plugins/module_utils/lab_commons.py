# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab shares with the other labs of its machine: signed in for before it is made, put back by the last to leave.

The register (lab_register) lies in /run, outside every lab's directory, and is there only while a lab is. It decides who is the
last; each lab's own ledger still has everything that labs made and this one uses, so that a lab can be taken down without a
register, as one that is older than it. A lab writes its ledger before it signs in and signs out before the ledger goes: so
whoever holds the register's lock can tell from the ledgers alone which labs live.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Callable, Iterator

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_ledger, lab_register
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_machine import Machine, boot_id, replace_text
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_register import Register

REGISTER = Path("/run/unifleet-labs.json")


class Commons:
    """The machine's shared things, seen from one lab."""

    def __init__(self, machine: Machine, register: Path = REGISTER) -> None:
        self.machine = machine
        self.path = register
        self.user = os.path.realpath(machine.lab.ledger)

    def use(self, record: Record, in_force: Callable[[], bool], do: Callable[[], object]) -> bool:
        """Sign the lab in as a user of the thing, and make it unless it is in force; whether it had to be made."""
        with self._locked():
            self.machine.open_ledger()
            register = self._told()
            common = register.of(record).used_by(self.user)
            missing = not in_force()
            if missing:
                common = common.made_by_lab(self.machine.as_it_is(record))
            self._write(register.with_common(common))
            if common.made:
                self.machine.note(common.record)
            if missing:
                do()
            return missing

    def leaving(self) -> tuple[Record, ...]:
        """What would be put back if the lab left now, newest first."""
        return self._left().abandoned()

    def leave(self) -> None:
        """Sign the lab out of everything; put back what no lab uses any more.

        That includes what labs left that died. If it resists, that is not this lab's failure: it stays in the register for the next.
        """
        with self._locked():
            told, left = self._told(), self._left()
            stuck = []
            for record in left.abandoned():
                try:
                    self.machine.take_away(record)
                except UnifleetError:
                    if self.user in told.of(record).users:
                        raise
                    stuck.append(record)
            self._write(left.used(stuck))
            for record in filter(lab_register.is_common, self.machine.ledger().records):
                self.machine.strike(record)

    def _told(self) -> Register:
        return self._read().told(self.user, self.machine.ledger().records)

    def _left(self) -> Register:
        return self._told().without(self.user).kept(lives)

    def _read(self) -> Register:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Register(boot_id())
        return lab_register.load(text, str(self.path)).after_boot(boot_id())

    def _write(self, register: Register) -> None:
        if register.commons:
            replace_text(self.path, lab_register.dump(register))
        else:
            for path in (self.path, self.path.with_suffix(".new")):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """No other lab at work on the shared things. The lock file goes with the register; so one that was waited for may be gone."""
        path = self.path.with_suffix(".lock")
        while True:
            with path.open("w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    mine = os.path.samestat(os.fstat(lock.fileno()), path.stat())
                except FileNotFoundError:
                    mine = False
                if not mine:
                    continue
                try:
                    yield
                finally:
                    if not self.path.exists():
                        path.unlink()
                return


def lives(user: str) -> bool:
    """Whether the lab with that ledger still stands; one whose ledger cannot be understood does, until the ledger is removed."""
    try:
        text = Path(user).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    try:
        return lab_ledger.load(text, user).boot == boot_id()
    except UnifleetError:
        return True
