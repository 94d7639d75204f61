# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns which label and taint, and what has to change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import LabelError
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import (
    AGENT_LABELS,
    INVENTORY_LABELS,
    INVENTORY_TAINTS,
    NodeWish,
    Taint,
    merge_layers,
    parse_taints,
    parse_wish,
    plan_labels,
    plan_node,
    plan_taints,
    read_owned,
    split_labels,
    write_owned,
)

KEYS = st.sampled_from(["a", "b", "c", "d", "node-role.kubernetes.io/x"])
LABELS = st.dictionaries(KEYS, st.sampled_from(["", "1", "2"]))


def node(labels: dict[str, str], annotations: dict[str, str], taints: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": {"taints": taints}}


def applied(before: dict[str, Any], body: Any) -> dict[str, Any]:
    """What the API server makes of a merge patch of a Node."""
    result = node(dict(before["metadata"]["labels"]), dict(before["metadata"]["annotations"]), list(before["spec"]["taints"]))
    for part in ("labels", "annotations"):
        for key, value in body.get("metadata", {}).get(part, {}).items():
            if value is None:
                result["metadata"][part].pop(key, None)
            else:
                result["metadata"][part][key] = value
    if "spec" in body:
        result["spec"]["taints"] = body["spec"]["taints"]
    return result


def test_a_label_dropped_from_the_inventory_disappears() -> None:
    plan = plan_labels({"site": "attic", "sensor": "t"}, ["site", "sensor"], {"sensor": "t"})
    assert plan.patch == {"site": None}
    assert plan.owned == ("sensor",)


def test_a_label_that_somebody_else_set_stays() -> None:
    assert plan_labels({"foreign": "yes"}, [], {}).patch == {}


def test_a_foreign_value_on_our_key_is_set_back() -> None:
    assert plan_labels({"sensor": "wrong"}, ["sensor"], {"sensor": "t"}).patch == {"sensor": "t"}


def test_a_mangled_ownership_annotation_owns_nothing() -> None:
    for text in ("", "{", "5", '{"a": 1}', "null"):
        assert read_owned({"x": text}, "x") == frozenset()
    assert read_owned({"x": '["a", 5]'}, "x") == frozenset({"a"})


@given(current=LABELS, owned=st.sets(KEYS), desired=LABELS)
def test_after_a_plan_ours_are_as_wanted_and_all_others_as_they_were(
    current: dict[str, str], owned: set[str], desired: dict[str, str]
) -> None:
    plan = plan_labels(current, owned, desired)
    after = {key: value for key, value in {**current, **plan.patch}.items() if value is not None}
    assert {key: after[key] for key in desired} == desired
    assert {key: value for key, value in after.items() if key not in desired} == {
        key: value for key, value in current.items() if key not in desired and key not in owned
    }
    assert plan_labels(after, plan.owned, desired).patch == {}


def test_taints_of_others_keep_their_place_and_their_time() -> None:
    foreign = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    found = plan_taints([foreign, {"key": "old", "effect": "NoSchedule"}], ["old:NoSchedule"], [Taint("new", "NoSchedule", "x")])
    assert found == [foreign, {"key": "new", "effect": "NoSchedule", "value": "x"}]


def test_a_taint_that_is_right_is_not_written_again() -> None:
    assert plan_taints([{"key": "a", "effect": "NoSchedule", "value": "x"}], ["a:NoSchedule"], [Taint("a", "NoSchedule", "x")]) is None


def test_one_key_may_have_two_effects() -> None:
    wanted = parse_taints({"a:NoSchedule": "1", "a:NoExecute": "2"}, "x")
    assert plan_taints([{"key": "a", "effect": "NoSchedule", "value": "1"}], [], wanted) == [
        {"key": "a", "effect": "NoSchedule", "value": "1"},
        {"key": "a", "effect": "NoExecute", "value": "2"},
    ]


@given(
    labels=LABELS,
    agent=st.none() | st.sets(KEYS),
    owned=st.sets(KEYS),
    wish=LABELS,
    taints=st.lists(st.sampled_from(["a:NoSchedule", "b:NoExecute", "c:NoSchedule"]), unique=True),
    wanted=st.dictionaries(st.sampled_from(["a:NoSchedule", "b:NoExecute"]), st.sampled_from(["", "1"])),
    owned_taints=st.sets(st.sampled_from(["a:NoSchedule", "b:NoExecute", "c:NoSchedule"])),
)
def test_a_second_run_never_changes_anything(
    labels: dict[str, str],
    agent: Any,
    owned: set[str],
    wish: dict[str, str],
    taints: list[str],
    wanted: dict[str, str],
    owned_taints: set[str],
) -> None:
    annotations = {INVENTORY_LABELS: write_owned(owned), INVENTORY_TAINTS: write_owned(owned_taints)}
    if agent is not None:
        annotations[AGENT_LABELS] = write_owned(agent)
    now = [{"key": text.split(":")[0], "effect": text.split(":")[1]} for text in taints]
    before = node(labels, annotations, now)
    want = parse_wish(wish, wanted, "x")
    after = applied(before, plan_node(before, want).body)
    assert plan_node(after, want).body == {}


def test_on_a_node_with_an_agent_only_what_the_agent_may_not_set_is_set_here() -> None:
    before = node({}, {AGENT_LABELS: "[]"}, [])
    plan = plan_node(before, NodeWish({"sensor": "t", "node-role.kubernetes.io/iot": ""}))
    assert plan.body["metadata"]["labels"] == {"node-role.kubernetes.io/iot": ""}
    assert plan.waiting == {"sensor": "t"}


def test_on_a_stock_node_all_labels_are_set_here() -> None:
    plan = plan_node(node({}, {}, []), NodeWish({"sensor": "t", "node-role.kubernetes.io/iot": ""}))
    assert plan.body["metadata"]["labels"] == {"sensor": "t", "node-role.kubernetes.io/iot": ""}
    assert plan.waiting == {}


def test_a_node_that_got_an_agent_keeps_the_label_that_the_agent_took_over() -> None:
    before = node({"sensor": "t"}, {INVENTORY_LABELS: '["sensor"]', AGENT_LABELS: '["sensor"]'}, [])
    after = applied(before, plan_node(before, NodeWish({"sensor": "t"})).body)
    assert after["metadata"]["labels"] == {"sensor": "t"}
    assert INVENTORY_LABELS not in after["metadata"]["annotations"]


def test_nothing_wanted_and_nothing_owned_writes_nothing() -> None:
    assert plan_node(node({"a": "b"}, {}, []), NodeWish()).body == {}


def test_a_wish_names_all_that_is_wrong_with_it() -> None:
    with pytest.raises(LabelError, match="node pi1, labels: 'a b' .*; 'kubernetes.io/arch' says what the host is"):
        parse_wish({"a b": "x", "kubernetes.io/arch": "arm"}, {}, "node pi1")


@pytest.mark.parametrize("identity", ["a", "a:Never", ":NoSchedule", "a b:NoSchedule", "a:NoSchedule:x"])
def test_a_taint_needs_a_key_and_a_known_effect(identity: str) -> None:
    with pytest.raises(LabelError, match="node x"):
        parse_taints({identity: ""}, "node x")


def test_a_taint_value_must_be_a_string() -> None:
    with pytest.raises(LabelError, match="boolean true"):
        parse_taints({"a:NoSchedule": True}, "x")


def test_later_layers_win_and_null_removes() -> None:
    assert merge_layers([{"a": "1", "b": "1"}, None, {"a": None, "b": "2"}, {"c": "3"}]) == {"b": "2", "c": "3"}
    assert merge_layers([{"a": "1"}, {"a": None}, {"a": "3"}]) == {"a": "3"}


@given(LABELS)
def test_a_split_loses_nothing(labels: dict[str, str]) -> None:
    settable, restricted = split_labels(labels)
    assert {**settable, **restricted} == labels
    assert set(restricted) <= {"node-role.kubernetes.io/x"}
