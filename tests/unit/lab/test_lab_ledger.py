# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: written before a thing is made, so that a teardown finds everything and only that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Ledger, Record, dump, load

records = st.builds(
    Record, st.sampled_from(Kind), st.text(min_size=1, max_size=20), st.sampled_from(["", "cp1", "kvm1"]), st.text(max_size=5)
)


def _with(items: list[Record]) -> Ledger:
    ledger = Ledger("unifleet", "boot-1")
    for record in items:
        ledger = ledger.noted(record)
    return ledger


ledgers = st.lists(records, max_size=8).map(_with)


@given(ledgers)
def test_what_is_written_is_read_again(ledger: Ledger) -> None:
    assert load(dump(ledger), "state.json") == ledger


@given(ledgers)
def test_undoing_everything_leaves_nothing(ledger: Ledger) -> None:
    for record in ledger.undoing():
        ledger = ledger.struck(record)
    assert ledger.records == ()


@given(ledgers, records)
def test_noting_twice_is_noting_once(ledger: Ledger, record: Record) -> None:
    assert ledger.noted(record).noted(record) == ledger.noted(record)


def test_a_changed_setting_keeps_the_value_it_had_before_the_lab() -> None:
    forwarding = "/proc/sys/net/ipv4/ip_forward"
    ledger = _with([Record(Kind.SYSCTL, forwarding, was="0"), Record(Kind.SYSCTL, forwarding, was="1")])
    assert [record.was for record in ledger.undoing()] == ["0"]


def test_things_are_taken_away_newest_first() -> None:
    bridge, mount = Record(Kind.LINK, "br"), Record(Kind.MOUNT, "/x", "cp1")
    assert _with([bridge, mount]).undoing() == (mount, bridge)


def test_taking_one_host_away_leaves_the_others_and_the_bridge() -> None:
    bridge, one, other = Record(Kind.LINK, "br"), Record(Kind.MOUNT, "/1", "cp1"), Record(Kind.MOUNT, "/2", "kvm1")
    assert _with([bridge, one, other]).undoing("cp1") == (one,)


def test_after_the_machine_was_rebooted_nothing_of_the_lab_is_left_to_undo() -> None:
    ledger = _with([Record(Kind.LINK, "br")])
    assert ledger.after_boot("boot-1") == ledger
    assert ledger.after_boot("boot-2").records == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "lab": "x", "boot": "b", "records": [{"kind": "moon"}]}', "\x00", "null"])
def test_a_damaged_ledger_is_refused_with_its_path(text: str) -> None:
    with pytest.raises(UnifleetError, match=r"/lab/state\.json"):
        load(text, "/lab/state.json")


def test_a_ledger_of_another_version_is_not_guessed_at() -> None:
    with pytest.raises(UnifleetError, match="another version"):
        load('{"version": 99, "lab": "x", "boot": "b", "records": []}', "state.json")
