# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What labs share: there as long as one lab needs it, then as it was before the first, whoever leaves first, crashes or is deleted.

The thing shared is a file that stands for a kernel setting; register and ledgers are real files.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_ledger, lab_names, lab_register
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_commons import Commons
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Ledger, Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_machine import Machine, boot_id
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_register import Common, Register


class Setting:
    """A machine with one setting that labs need to be 1, and the labs on it."""

    def __init__(self, directory: Path, value: str = "0") -> None:
        self.directory = directory
        self.path = directory / "ip_forward"
        self.path.write_text(f"{value}\n", encoding="ascii")
        self.run = directory / "run"
        self.run.mkdir()

    def machine(self, name: str) -> Machine:
        return Machine(lab_names.lab(name, str(self.directory / name), "10.77.51.0/24"), _no_command)

    def commons(self, name: str) -> Commons:
        return Commons(self.machine(name), self.run / "labs.json")

    def up(self, name: str) -> bool:
        return self.commons(name).use(Record(Kind.SYSCTL, str(self.path)), lambda: self.value == "1", lambda: self.path.write_text("1"))

    def down(self, name: str) -> None:
        self.commons(name).leave()
        self.machine(name).remove_state()

    def older(self, name: str, was: str) -> None:
        """A lab that was made before there was a register."""
        self.machine(name).note(Record(Kind.SYSCTL, str(self.path), was=was))
        self.path.write_text("1", encoding="ascii")

    @property
    def value(self) -> str:
        return self.path.read_text(encoding="ascii").strip()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.run.iterdir())


def _no_command(*words: object, **more: object) -> object:
    raise AssertionError(f"no command is needed for a setting: {words} {more}")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_the_last_lab_to_leave_puts_back_what_was_there_before_the_first(setting: Setting, order: tuple[str, str]) -> None:
    assert setting.up("one")
    assert not setting.up("two")
    setting.down(order[0])
    assert setting.value == "1"
    setting.down(order[1])
    assert (setting.value, setting.left()) == ("0", [])


def test_what_was_there_before_any_lab_stays(tmp_path: Path) -> None:
    setting = Setting(tmp_path, "1")
    assert not setting.up("one")
    setting.up("two")
    setting.down("one")
    setting.down("two")
    assert (setting.value, setting.left()) == ("1", [])


def test_a_lab_brought_up_twice_leaves_once(setting: Setting) -> None:
    setting.up("one")
    assert not setting.up("one")
    setting.down("one")
    assert (setting.value, setting.left()) == ("0", [])


def test_a_lab_whose_directory_was_deleted_uses_nothing(setting: Setting) -> None:
    setting.up("one")
    setting.up("two")
    shutil.rmtree(setting.directory / "one")
    setting.down("two")
    assert (setting.value, setting.left()) == ("0", [])


def test_taking_down_a_lab_whose_directory_was_deleted_puts_back_what_it_made_and_makes_no_directory(setting: Setting) -> None:
    setting.up("one")
    shutil.rmtree(setting.directory / "one")
    assert [record.name for record in setting.commons("one").leaving()] == [str(setting.path)]
    setting.commons("one").leave()
    assert (setting.value, setting.left()) == ("0", [])
    assert not (setting.directory / "one").exists()


def test_a_lab_that_takes_over_from_a_deleted_one_puts_back_what_was_before_both(setting: Setting) -> None:
    setting.up("one")
    shutil.rmtree(setting.directory / "one")
    assert not setting.up("two")
    setting.down("two")
    assert (setting.value, setting.left()) == ("0", [])


def test_a_deleted_lab_does_not_take_from_a_running_one(setting: Setting) -> None:
    setting.up("one")
    setting.up("two")
    shutil.rmtree(setting.directory / "one")
    setting.commons("one").leave()
    assert setting.value == "1"


def test_a_lab_whose_ledger_cannot_be_understood_still_counts_until_the_ledger_is_removed(setting: Setting) -> None:
    setting.up("one")
    setting.up("two")
    ledger = setting.machine("one").lab.ledger
    ledger.write_text("{", encoding="ascii")
    setting.down("two")
    assert setting.value == "1"
    ledger.unlink()
    setting.commons("one").leave()
    assert (setting.value, setting.left()) == ("0", [])


def test_a_reboot_clears_all(setting: Setting) -> None:
    setting.up("one")
    setting.up("two")
    register = setting.run / "labs.json"
    ledgers = [setting.machine(name).lab.ledger for name in ("one", "two")]
    for path in (register, *ledgers):
        path.write_text(path.read_text(encoding="utf-8").replace(boot_id(), "boot-before"), encoding="utf-8")
    setting.path.write_text("1\n", encoding="ascii")
    setting.up("one")
    setting.down("two")
    setting.down("one")
    assert (setting.value, setting.left()) == ("1", [])


def test_a_lab_from_before_the_boot_does_not_keep_what_a_lab_of_this_boot_made(setting: Setting) -> None:
    setting.up("one")
    setting.up("two")
    ledger = setting.machine("two").lab.ledger
    ledger.write_text(lab_ledger.dump(Ledger("two", "boot-before")), encoding="utf-8")
    setting.down("one")
    assert (setting.value, setting.left()) == ("0", [])


def test_a_lab_older_than_the_register_is_taken_down_as_before(setting: Setting) -> None:
    setting.older("one", was="0")
    setting.down("one")
    assert (setting.value, setting.left()) == ("0", [])


def test_a_lab_older_than_the_register_may_go_first_too(setting: Setting) -> None:
    setting.older("one", was="0")
    assert not setting.up("two")
    setting.down("one")
    assert setting.value == "1"
    setting.down("two")
    assert (setting.value, setting.left()) == ("0", [])


def test_what_somebody_turned_off_under_a_lab_is_turned_on_by_its_next_start_and_kept_as_before_the_labs(setting: Setting) -> None:
    setting.up("one")
    setting.path.write_text("0\n", encoding="ascii")
    assert setting.up("two")
    setting.down("one")
    assert setting.value == "1"
    setting.down("two")
    assert setting.value == "0"


def test_a_start_that_crashed_before_it_made_the_thing_is_taken_away(setting: Setting) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setting.commons("one").use(Record(Kind.SYSCTL, str(setting.path)), lambda: False, crash)
    setting.down("one")
    assert (setting.value, setting.left()) == ("0", [])


def test_a_teardown_that_crashed_is_repeated(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.up("one")
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "strike", _no_command)
        with pytest.raises(AssertionError):
            setting.down("one")
    assert setting.up("two")
    setting.down("one")
    assert setting.value == "1"
    setting.down("two")
    assert (setting.value, setting.left()) == ("0", [])


def test_what_a_deleted_lab_left_and_cannot_be_put_back_does_not_stop_another_lab_from_leaving(setting: Setting) -> None:
    setting.up("one")
    register = setting.run / "labs.json"
    gone = Common(Record(Kind.LINK, "lo"), made=True, users=(str(setting.directory / "gone/state.json"),))
    register.write_text(lab_register.dump(lab_register.load(register.read_text(), "").with_common(gone)))
    commons = setting.commons("one")
    commons.machine = Machine(commons.machine.lab, lambda *_words, **_more: (1, "", "Operation not supported"))
    commons.leave()
    assert setting.value == "0"
    assert [common.record for common in lab_register.load(register.read_text(), "").commons] == [gone.record]


def test_a_lab_that_waited_for_the_lock_of_a_register_that_went_takes_the_new_lock(setting: Setting) -> None:
    lock = setting.run / "labs.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=setting.up, args=("two",))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        lock.unlink()
    waiting.join(10)
    assert setting.left() == ["labs.json", "labs.lock"]
    setting.down("two")
    assert setting.left() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "boot": "b", "things": []}',
        '{"version": 1, "boot": "b", "things": [{"kind": "soul", "name": "x", "made": true, "was": "", "users": []}]}',
        '{"version": 1, "boot": "b", "things": [{"kind": "mount", "name": "x", "made": true, "was": "", "users": "a"}]}',
        '{"version": 1, "boot": "b", "things": [{"kind": "mount", "name": "x", "made": "no", "was": "", "users": []}]}',
    ],
)
def test_a_register_that_is_none_is_named_with_what_to_do(text: str) -> None:
    with pytest.raises(UnifleetError, match="/run/labs.json is not the register") as caught:
        lab_register.load(text, "/run/labs.json")
    assert "remove the file" in str(caught.value)


things = st.builds(
    Common,
    st.builds(Record, st.sampled_from([Kind.MOUNT, Kind.SYSCTL, Kind.BINFMT]), st.text(min_size=1, max_size=9), was=st.text(max_size=3)),
    st.booleans(),
    st.lists(st.text(max_size=9), max_size=3).map(tuple),
)


@given(st.lists(things, max_size=5))
def test_a_register_that_is_written_is_read_again(commons: list[Common]) -> None:
    register = Register("boot-1", tuple(commons))
    assert lab_register.load(lab_register.dump(register), "labs.json") == register
    assert json.loads(lab_register.dump(register))["boot"] == "boot-1"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20), st.sampled_from("01"))
def test_a_setting_is_on_while_a_lab_stands_and_as_it_was_when_none_does(steps: list[tuple[str, bool]], before: str) -> None:
    record = Record(Kind.SYSCTL, "/x", was=before)
    register, value, standing = Register("boot-1"), before, set[str]()
    for lab, comes in steps:
        if comes:
            common = register.of(record).used_by(lab)
            register = register.with_common(common if value == "1" else common.made_by_lab(Record(Kind.SYSCTL, "/x", was=value)))
            value = "1"
            standing.add(lab)
        else:
            register = register.without(lab)
            value = next((put_back.was for put_back in register.abandoned()), value)
            register = register.used()
            standing.discard(lab)
        assert value == ("1" if standing else before)
