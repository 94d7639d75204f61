# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns which label and taint of a node, and what has to change: the pure half of the agent's labelling and of the module node_labels.

An owner remembers the keys that it set in an annotation of the node. A key that it no longer wants is removed because it is in that
list; a key that somebody else set is not in it and stays. There are two owners, with an annotation each:

- the agent (virtual-kubelet) owns what a node may set on itself: built-in labels, its file, environment and flag;
- the inventory (module node_labels) owns the rest: on a node that has an agent only the labels that NodeRestriction keeps from nodes,
  on a node with a stock kubelet all of them; and the taints of both kinds, which no node may change after it registered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import (
    EFFECTS,
    LOCKED_LABELS,
    LabelError,
    Problem,
    key_problem,
    label_problems,
    node_refusal,
    value_problem,
)

AGENT_LABELS = "unifleet.io/agent-labels"
INVENTORY_LABELS = "unifleet.io/inventory-labels"
INVENTORY_TAINTS = "unifleet.io/inventory-taints"


@dataclass(frozen=True)
class Taint:
    """One taint; key and effect together name it, as in the API."""

    key: str
    effect: str
    value: str = ""

    @property
    def identity(self) -> str:
        """KEY:EFFECT."""
        return f"{self.key}:{self.effect}"

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else self.identity

    def to_api(self) -> dict[str, str]:
        """The entry of a node's spec.taints."""
        entry = {"key": self.key, "effect": self.effect}
        if self.value:
            entry["value"] = self.value
        return entry


@dataclass(frozen=True)
class LabelPlan:
    """What to change. patch: key -> new value, None removes. owned: the keys to remember, sorted."""

    patch: Mapping[str, Optional[str]]
    owned: tuple[str, ...]


@dataclass(frozen=True)
class NodeWish:
    """What the inventory wants of one node. observed: labels that were found out on the host, which nobody owns; None: not there."""

    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    observed: Mapping[str, Optional[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class NodePlan:
    """What the module has to do for one node.

    body: a merge patch of the Node, empty when all is well. before, after: labels, taints as text, for people. waiting: labels that the
    node's agent has yet to take over from its file, key -> wanted value.
    """

    body: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    waiting: Mapping[str, str]


def read_owned(annotations: Mapping[str, str], annotation: str) -> frozenset[str]:
    """The keys in an ownership annotation. One that somebody mangled owns nothing: nothing is removed by mistake."""
    try:
        value = json.loads(annotations.get(annotation) or "[]")
    except ValueError:
        return frozenset()
    if not isinstance(value, list):
        return frozenset()
    return frozenset(entry for entry in value if isinstance(entry, str))


def write_owned(keys: Iterable[str]) -> str:
    """The text of an ownership annotation."""
    return json.dumps(sorted(keys), separators=(",", ":"))


def plan_labels(current: Mapping[str, str], owned: Iterable[str], desired: Mapping[str, str]) -> LabelPlan:
    """Bring the labels that we own to desired; every other stays. A desired key is ours from now on, whoever set it."""
    patch: dict[str, Optional[str]] = {key: value for key, value in desired.items() if current.get(key) != value}
    for key in owned:
        if key not in desired and key in current:
            patch[key] = None
    return LabelPlan(dict(sorted(patch.items())), tuple(sorted(desired)))


def plan_taints(current: Iterable[Mapping[str, Any]], owned: Iterable[str], desired: Iterable[Taint]) -> Optional[list[dict[str, Any]]]:
    """The whole new spec.taints, or None when it is right. Foreign taints keep their place and their timeAdded."""
    wanted = {taint.identity: taint for taint in desired}
    dropped = set(owned) - set(wanted)
    result: list[dict[str, Any]] = []
    changed = False
    for entry in current:
        identity = f"{entry.get('key', '')}:{entry.get('effect', '')}"
        taint = wanted.pop(identity, None)
        if taint is not None and entry.get("value", "") != taint.value:
            result.append(taint.to_api())
            changed = True
        elif taint is None and identity in dropped:
            changed = True
        else:
            result.append(dict(entry))
    result.extend(taint.to_api() for taint in sorted(wanted.values(), key=lambda taint: taint.identity))
    return result if changed or wanted else None


def plan_node(node: Mapping[str, Any], wish: NodeWish) -> NodePlan:
    """Compare one Node object with what the inventory wants of it."""
    metadata = node.get("metadata") or {}
    labels: dict[str, str] = dict(metadata.get("labels") or {})
    annotations: dict[str, str] = dict(metadata.get("annotations") or {})
    taints: list[dict[str, Any]] = list((node.get("spec") or {}).get("taints") or [])
    has_agent = AGENT_LABELS in annotations

    ours = {key: value for key, value in wish.labels.items() if not has_agent or node_refusal(key)}
    waiting = {key: value for key, value in wish.labels.items() if key not in ours and labels.get(key) != value}
    owned = read_owned(annotations, INVENTORY_LABELS)
    if has_agent:
        # Labels from the time before the agent came: it owns them now, or they go.
        owned -= read_owned(annotations, AGENT_LABELS) | set(waiting)
    plan = plan_labels(labels, owned, ours)
    plan = LabelPlan({**plan.patch, **_observations(labels, wish)}, plan.owned)
    new_taints = plan_taints(taints, read_owned(annotations, INVENTORY_TAINTS), wish.taints)

    notes = {
        INVENTORY_LABELS: write_owned(plan.owned) if plan.owned else None,
        INVENTORY_TAINTS: write_owned(taint.identity for taint in wish.taints) if wish.taints else None,
    }
    noted = {name: text for name, text in notes.items() if annotations.get(name) != text}
    body: dict[str, Any] = {}
    if plan.patch:
        body.setdefault("metadata", {})["labels"] = dict(plan.patch)
    if noted:
        body.setdefault("metadata", {})["annotations"] = noted
    if new_taints is not None:
        body["spec"] = {"taints": new_taints}
    after = {key: value for key, value in {**labels, **plan.patch}.items() if value is not None}
    touched = set(plan.patch)
    return NodePlan(
        body=body,
        before={"labels": {key: labels[key] for key in sorted(touched & set(labels))}, "taints": _texts(taints)},
        after={
            "labels": {key: after[key] for key in sorted(touched & set(after))},
            "taints": _texts(taints if new_taints is None else new_taints),
        },
        waiting=waiting,
    )


def _observations(labels: Mapping[str, str], wish: NodeWish) -> dict[str, Optional[str]]:
    """What has to change for the labels that were found out on the host."""
    found = {key: value for key, value in wish.observed.items() if key not in wish.labels}
    return {key: value for key, value in sorted(found.items()) if labels.get(key) != value}


def parse_taints(taints: Mapping[Any, Any], source: str) -> tuple[Taint, ...]:
    """{"KEY:EFFECT": VALUE} as taints, sorted. Raises LabelError naming every entry that is none."""
    problems = []
    result = []
    for identity in sorted(taints, key=str):
        value = "" if taints[identity] is None else taints[identity]
        key, colon, effect = str(identity).rpartition(":")
        if not colon or effect not in EFFECTS:
            problems.append(Problem(str(identity), f"is not of the form KEY:EFFECT with an effect of {', '.join(EFFECTS)}"))
            continue
        why = key_problem(key) or value_problem(value)
        if why:
            problems.append(Problem(str(identity), why))
        else:
            result.append(Taint(key, effect, value))
    if problems:
        raise LabelError(source, tuple(problems))
    return tuple(result)


def parse_wish(labels: Mapping[Any, Any], taints: Mapping[Any, Any], source: str, observed: Optional[Mapping[Any, Any]] = None) -> NodeWish:
    """Check one node's labels and taints, and the labels observed on its host. Raises LabelError."""
    seen = dict(observed or {})
    locked = tuple(Problem(key, "says what the host is and cannot be set") for key in sorted(LOCKED_LABELS & set(labels)))
    problems = label_problems(labels) + label_problems({key: value or "" for key, value in seen.items()}) + locked
    if problems:
        raise LabelError(f"{source}, labels", problems)
    return NodeWish(dict(labels), parse_taints(taints, f"{source}, taints"), seen)


def merge_layers(layers: Iterable[Optional[Mapping[Any, Any]]]) -> dict[Any, Any]:
    """Mappings laid over each other, the last one on top; null takes a key of the layers beneath away."""
    merged: dict[Any, Any] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = value
    return merged


def split_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(what a node may set on itself, what NodeRestriction keeps from it)."""
    settable = {key: value for key, value in labels.items() if not node_refusal(str(key))}
    return settable, {key: value for key, value in labels.items() if key not in settable}


def _texts(taints: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(str(Taint(str(entry.get("key", "")), str(entry.get("effect", "")), str(entry.get("value") or ""))) for entry in taints)
