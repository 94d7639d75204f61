# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a label may look like, and which a node may set on itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import (
    LOCKED_LABELS,
    LabelError,
    key_problem,
    label_problems,
    node_label_problems,
    node_refusal,
    parse_label_list,
    subdomain_problem,
    value_problem,
)

NAMES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
PARTS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize("key", ["a", "A", "9", "a.b_c-d", "example.com/a", "a" * 63, f"{'a' * 63}.{'b' * 63}/x", "x/" + "y" * 63])
def test_a_qualified_name_is_a_key(key: str) -> None:
    assert key_problem(key) == ""


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "no name"),
        ("a/", "no name after"),
        ("/a", "prefix that is empty"),
        ("a/b/c", "more than one"),
        ("-a", "letters"),
        ("a-", "letters"),
        ("a b", "letters"),
        ("a\n", "letters"),
        ("ä", "letters"),
        ("a" * 64, "64 characters"),
        ("Example.com/a", "lower-case"),
        ("a..b/c", "lower-case"),
        (f"{'a' * 254}/x", "253 are allowed"),
        (5, "the number 5"),
        (None, "null"),
    ],
)
def test_anything_else_is_none_and_says_why(key: object, why: str) -> None:
    assert why in key_problem(key)


@pytest.mark.parametrize("value", ["", "a", "1.2", "A_b-c.D", "x" * 63])
def test_a_value_may_be_empty_or_a_name(value: str) -> None:
    assert value_problem(value) == ""


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("x" * 64, "64"),
        ("a b", "'a b'"),
        ("-x", "'-x'"),
        ("x\n", "allowed"),
        (True, "boolean true"),
        (1.1, "number 1.1"),
        (None, "null"),
        ({}, "dict"),
        (["a"], "list"),
    ],
)
def test_a_value_that_yaml_made_something_else_of_is_told_as_such(value: object, why: str) -> None:
    assert why in value_problem(value)


@pytest.mark.parametrize(
    "key",
    [
        "plain",
        "example.com/a",
        "kubernetes.io",
        "notkubernetes.io/a",
        "kubernetes.io.example.com/a",
        "node.kubernetes.io/a",
        "a.node.kubernetes.io/b",
        "kubelet.kubernetes.io/a",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "unifleet.io/provider",
    ],
)
def test_a_node_may_set_labels_outside_of_kubernetes_domains_and_the_well_known_ones(key: str) -> None:
    assert node_refusal(key) == ""


@pytest.mark.parametrize(
    "key",
    [
        "kubernetes.io/role",
        "node-role.kubernetes.io/worker",
        "k8s.io/a",
        "a.b.k8s.io/c",
        "topology.kubernetes.io/rack",
        "alpha.service-controller.kubernetes.io/exclude-balancer",
        "xnode.kubernetes.io/a",
    ],
)
def test_a_node_may_not_set_others_in_kubernetes_domains(key: str) -> None:
    assert "well-known" in node_refusal(key)


@pytest.mark.parametrize("key", ["node-restriction.kubernetes.io/a", "example.com.node-restriction.kubernetes.io/a"])
def test_restriction_labels_are_for_administrators(key: str) -> None:
    assert "administrators" in node_refusal(key)


def test_every_offending_label_is_named_once() -> None:
    problems = node_label_problems({"kubernetes.io/role": "x", "b a d": "y", "kubernetes.io/arch": "mips", "ok": "fine", "v": "a b"})
    assert [problem.key for problem in problems] == ["b a d", "kubernetes.io/arch", "kubernetes.io/role", "v"]


@pytest.mark.parametrize("key", sorted(LOCKED_LABELS))
def test_what_the_host_is_cannot_be_said_otherwise(key: str) -> None:
    assert [problem.key for problem in node_label_problems({key: "x"})] == [key]


def test_a_list_of_pairs_takes_blanks_repeats_and_equals_signs_in_values() -> None:
    assert parse_label_list(" a=b, c= ,,a=d", "x") == {"a": "d", "c": ""}
    assert parse_label_list("", "x") == {}
    assert parse_label_list("a=b=c", "x") == {"a": "b=c"}


def test_every_item_without_an_equals_sign_is_named_with_the_source() -> None:
    with pytest.raises(LabelError, match="the flag: 'a' is not of the form KEY=VALUE; 'c' is") as caught:
        parse_label_list("a,b=1,c", "the flag")
    assert len(caught.value.problems) == 2


@given(
    labels=st.dictionaries(
        st.builds(lambda parts, name: ".".join(parts) + "/" + name, st.lists(PARTS, min_size=1, max_size=4), NAMES), NAMES, max_size=6
    )
)
def test_well_formed_labels_have_no_problems_and_survive_the_list_form(labels: dict[str, str]) -> None:
    assert label_problems(labels) == ()
    assert parse_label_list(",".join(f"{key}={value}" for key, value in labels.items()), "x") == labels


@given(st.text(), st.text())
def test_no_text_makes_the_grammar_fail(key: str, value: str) -> None:
    label_problems({key: value})
    node_label_problems({key: value})
    subdomain_problem(key)


@given(st.text(alphabet="abc-_./\n 0A", max_size=8))
def test_a_key_that_is_accepted_has_only_what_the_api_server_accepts(key: str) -> None:
    if not key_problem(key):
        name = key.rpartition("/")[2]
        assert name[0].isalnum()
        assert name[-1].isalnum()
        assert "\n" not in key
        assert key.count("/") <= 1
