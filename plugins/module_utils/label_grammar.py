# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a label, a taint and a node name may look like, and which labels a node may set on itself.

The first are Kubernetes' own rules (apimachinery/pkg/util/validation/validation.go: IsQualifiedName, IsValidLabelValue,
IsDNS1123Subdomain). The second is the admission plugin NodeRestriction (plugin/pkg/admission/noderestriction/admission.go:
getForbiddenLabels; pkg/kubelet/apis/well_known_labels.go: IsKubeletLabel), checked here before the API server would refuse them, so
that a mistake in an inventory is told with every offending key named and not as the first 403.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

LOCKED_LABELS = frozenset(
    {"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"},
)
"""What is true of a host and no matter of wish: no source of labels may change them."""

_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    },
)
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBERNETES_NAMESPACES = ("kubernetes.io", "k8s.io")
_RESTRICTED_NAMESPACE = "node-restriction.kubernetes.io"


@dataclass(frozen=True)
class Problem:
    """One key that cannot be, and why (a sentence without the key)."""

    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.key!r} {self.why}"


class LabelError(UnifleetError):
    """Labels or taints that Kubernetes would refuse; problems has every one of them."""

    def __init__(self, source: str, problems: tuple[Problem, ...], hint: str = "") -> None:
        super().__init__(f"{source}: " + "; ".join(str(problem) for problem in problems), hint)
        self.source = source
        self.problems = problems


def subdomain_problem(name: str) -> str:
    """Why this is no DNS subdomain (a node name, the prefix of a label key); "" when it is one."""
    if not name:
        return "is empty"
    if len(name) > 253:
        return f"has {len(name)} characters, 253 are allowed"
    if not _SUBDOMAIN.fullmatch(name):
        return "must be lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
    return ""


def key_problem(key: object) -> str:
    """Why this is no label or taint key; "" when it is one."""
    if not isinstance(key, str):
        return f"is {_kind(key)}, not a string: quote it"
    prefix, slash, name = key.rpartition("/")
    if slash:
        if prefix.count("/"):
            return "has more than one '/'"
        trouble = subdomain_problem(prefix)
        if trouble:
            return f"has a prefix that {trouble}"
    if not name:
        return "has no name" + (" after the '/'" if slash else "")
    if len(name) > 63:
        return f"has a name of {len(name)} characters, 63 are allowed"
    if not _NAME.fullmatch(name):
        return (
            "must be letters, digits, '-', '_' and '.' (after an optional DNS prefix and '/'), beginning and ending with a letter or digit"
        )
    return ""


def value_problem(value: object) -> str:
    """Why this is no label or taint value; "" when it is one ("" itself is one)."""
    if not isinstance(value, str):
        return f"has a value that is {_kind(value)}, not a string: quote it"
    if len(value) > 63:
        return f"has a value of {len(value)} characters, 63 are allowed"
    if value and not _NAME.fullmatch(value):
        return f"has the value {value!r}: letters, digits, '-', '_' and '.' are allowed, beginning and ending with a letter or digit"
    return ""


def node_refusal(key: str) -> str:
    """Why NodeRestriction would not let a node set (or change, or remove) this label on itself; "" when it may."""
    namespace = key.partition("/")[0] if "/" in key else ""
    if _within(namespace, (_RESTRICTED_NAMESPACE,)):
        return "is reserved for administrators (node-restriction.kubernetes.io): a node may not set it on itself"
    if _within(namespace, _KUBERNETES_NAMESPACES) and key not in _KUBELET_LABELS and not _within(namespace, _KUBELET_NAMESPACES):
        return (
            f"is in {namespace}, where a node may set on itself only well-known labels "
            "and those under node.kubernetes.io or kubelet.kubernetes.io"
        )
    return ""


def label_problems(labels: Mapping[Any, Any]) -> tuple[Problem, ...]:
    """Every label that breaks the grammar, in the order of the keys."""
    found = []
    for key in sorted(labels, key=str):
        why = key_problem(key) or value_problem(labels[key])
        if why:
            found.append(Problem(str(key), why))
    return tuple(found)


def node_label_problems(labels: Mapping[Any, Any]) -> tuple[Problem, ...]:
    """Every label that a node cannot give itself: the grammar, NodeRestriction, and what is locked."""
    broken = label_problems(labels)
    seen = {problem.key for problem in broken}
    refused = []
    for key in sorted(str(key) for key in labels if str(key) not in seen):
        why = "says what the host is and cannot be set" if key in LOCKED_LABELS else node_refusal(key)
        if why:
            refused.append(Problem(key, why))
    return tuple(sorted(broken + tuple(refused), key=lambda problem: problem.key))


def parse_label_list(text: str, source: str) -> dict[str, str]:
    """ "k=v,k2=v2" as a mapping; the last of equal keys wins, blanks around items do not count.

    Raises LabelError naming every item that is no pair. What the keys and values may be is not checked here.
    """
    labels: dict[str, str] = {}
    problems = []
    for item in (piece.strip() for piece in text.split(",")):
        key, equals, value = item.partition("=")
        if not item:
            continue
        if not equals:
            problems.append(Problem(item, "is not of the form KEY=VALUE"))
        else:
            labels[key.strip()] = value.strip()
    if problems:
        raise LabelError(source, tuple(problems))
    return labels


def _within(namespace: str, domains: tuple[str, ...]) -> bool:
    return any(namespace == domain or namespace.endswith(f".{domain}") for domain in domains)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return f"a {type(value).__name__}"
