# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where labels come from, which wins, and what a changed file does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import (
    LabelSource,
    LabelSourcesError,
    NodeLabels,
    builtin_labels,
    go_architecture,
    merge_sources,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

BUILTIN = builtin_labels("pi1", "arm64", "process")


def labels(file: Path, environment: dict[str, str], *flags: str) -> NodeLabels:
    return NodeLabels(BUILTIN, {"who": "config", "config": "1"}, file, environment, flags)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    path.write_text('{"who": "file", "file": "1"}')
    return path


def test_each_source_wins_over_the_ones_before_it(file: Path) -> None:
    assert labels(file, {}).wanted["who"] == "file"
    assert labels(file, {"LABELS": "who=old,old=1"}).wanted["who"] == "old"
    both = labels(file, {"LABELS": "who=old,old=1", "UNIFLEET_NODE_LABELS": "who=env"}).wanted
    assert (both["who"], both["old"]) == ("env", "1")
    flagged = labels(file, {"LABELS": "who=env"}, "who=flag", "more=1,who=last").wanted
    assert (flagged["who"], flagged["more"], flagged["file"], flagged["config"], flagged["type"]) == (
        "last",
        "1",
        "1",
        "1",
        "virtual-kubelet",
    )


def test_a_builtin_may_be_replaced_but_not_what_the_host_is() -> None:
    assert merge_sources(BUILTIN, [LabelSource("x", {"type": "mine"})])["type"] == "mine"
    with pytest.raises(LabelSourcesError, match="kubernetes.io/arch"):
        merge_sources(BUILTIN, [LabelSource("x", {"kubernetes.io/arch": "amd64"})])


def test_saying_what_is_true_anyway_does_no_harm() -> None:
    assert merge_sources(BUILTIN, [LabelSource("x", {"kubernetes.io/arch": "arm64"})]) == BUILTIN


def test_all_refused_labels_of_all_sources_are_named_with_their_source() -> None:
    sources = [LabelSource("one", {"kubernetes.io/role": "x", "n": 5}), LabelSource("two", {"node-role.kubernetes.io/a": ""})]
    with pytest.raises(LabelSourcesError) as caught:
        merge_sources(BUILTIN, sources)
    assert [line.split(" ")[0] for line in caught.value.lines] == ["one:", "one:", "two:"]


def test_a_changed_file_is_noticed_once_and_taken_over(file: Path) -> None:
    node = labels(file, {})
    assert not node.changed_on_disk()
    fresh = file.with_suffix(".new")
    fresh.write_text('{"who": "new"}')
    fresh.replace(file)
    assert node.changed_on_disk()
    assert not node.changed_on_disk()
    assert node.reload()
    assert node.wanted["who"] == "new"
    assert "file" not in node.wanted
    assert not node.reload()


@pytest.mark.parametrize("text", ["{", "[]", '{"kubernetes.io/role": "x"}', '{"a": null}', '{"a": {"b": "c"}}'])
def test_a_bad_file_keeps_the_old_labels(file: Path, text: str) -> None:
    node = labels(file, {})
    before = dict(node.wanted)
    file.write_text(text)
    with pytest.raises(UnifleetError, match="labels.json"):
        node.reload()
    assert node.wanted == before


def test_a_file_that_went_away_keeps_the_old_labels(file: Path) -> None:
    node = labels(file, {})
    file.unlink()
    assert node.changed_on_disk()
    with pytest.raises(UnifleetError, match="does not exist"):
        node.reload()
    assert node.wanted["who"] == "file"


def test_a_file_touched_without_a_change_changes_nothing(file: Path) -> None:
    node = labels(file, {})
    os.utime(file, (1, 1))
    assert node.changed_on_disk()
    assert not node.reload()


def test_a_toml_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "labels.toml"
    path.write_text('"example.com/a" = "b"\n')
    assert labels(path, {}).wanted["example.com/a"] == "b"


def test_pairs_without_an_equals_sign_are_told_with_the_variable(file: Path) -> None:
    with pytest.raises(LabelSourcesError, match="the environment variable LABELS: 'a' is not of the form"):
        labels(file, {"LABELS": "a"})


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("armv6l", "arm"), ("armv8l", "arm"), ("riscv64", "riscv64")],
)
def test_architectures_are_named_as_go_does(machine: str, name: str) -> None:
    assert go_architecture(machine) == name


def test_builtin_labels_are_ones_that_a_node_may_set() -> None:
    from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import label_problems, node_refusal

    many = builtin_labels("a" * 70, "arm64", "kvm", "tcg")
    assert label_problems(many) == ()
    assert [key for key in many if node_refusal(key)] == []
    assert json.dumps(many)
    assert many["unifleet.io/accelerator"] == "tcg"
