#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Label and taint all nodes of a cluster in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_labels
short_description: Label and taint all nodes of a cluster in one call
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Brings the labels and taints of any number of nodes to what the inventory says, with few requests in parallel.
  - Owns what it sets, by an annotation on the node. A label or taint that is no longer wanted is removed when this module set it, and
    stays when somebody else did.
  - A node with a C(virtual-kubelet) gives itself the labels that NodeRestriction allows to nodes, from its labels file. There this
    module sets the others (such as C(node-role.kubernetes.io/...) and C(*.node-restriction.kubernetes.io/...)) and waits until the agent
    has taken over the rest. On any other node it sets all labels.
  - The whole of O(nodes) is checked before any node is touched.
options:
  kubeconfig:
    description: Path of an administrator's kubeconfig, JSON or YAML, on the host that the module runs on.
    type: path
    required: true
  nodes:
    description:
      - Name of a node to what is wanted of it, a mapping of C(labels) (key to value, all strings) and C(taints)
        (C(KEY:EFFECT) to value, for example C(dedicated:NoSchedule) to C(iot)). Both may be left out.
      - C(observed) holds labels that say what was found on the host, null for what was not. They are set and removed as given, and nobody
        owns them, so that a call without them leaves them alone. C(labels) win over them.
      - Nodes that are not named are not looked at.
    type: dict
    required: true
  missing:
    description:
      - What to do when a node does not exist. V(fail) fails after the others are done, V(ignore) lists it in RV(missing),
        V(wait) waits up to O(timeout) for it to register.
    type: str
    choices: [fail, ignore, wait]
    default: fail
  timeout:
    description: How many seconds to wait for nodes to register (with O(missing=wait)) and for agents to take over their labels file.
    type: int
    default: 30
  parallel:
    description: How many requests to make at once.
    type: int
    default: 8
extends_documentation_fragment:
  - unifleet.hybrid.attributes
"""

EXAMPLES = r"""
- name: Label all nodes as the inventory says
  unifleet.hybrid.node_labels:
    kubeconfig: /etc/kubernetes/admin.kubeconfig
    nodes:
      pi1:
        labels:
          sensor: temperature
          node-role.kubernetes.io/iot: ""
        taints:
          dedicated:NoSchedule: iot
      server1:
        labels:
          rack: r7
"""

RETURN = r"""
changed_nodes:
  description: The nodes that were, or in check mode would be, changed, in order.
  returned: success
  type: list
  elements: str
  sample: [pi1]
missing:
  description: The nodes that do not exist.
  returned: always
  type: list
  elements: str
  sample: []
waiting:
  description: Labels that the agent of a node has not taken over yet, by node. Only in check mode, or when the module fails for it.
  returned: always
  type: dict
  sample: {}
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ApiRefusedError, ClusterApi
from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import LabelError, subdomain_problem
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import NodePlan, NodeWish, parse_wish, plan_node

CONFLICTS = 5
PAUSE = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one node. plan: the first thing found to do; None when the node does not exist."""

    name: str
    plan: Optional[NodePlan] = None
    waiting: Optional[dict[str, str]] = None
    error: str = ""

    @property
    def changed(self) -> bool:
        """Whether there was something to write."""
        return self.plan is not None and bool(self.plan.body)


def parse_nodes(nodes: dict[str, Any]) -> dict[str, NodeWish]:
    """Check all that is wanted. Raises UnifleetError with everything that is wrong."""
    wishes: dict[str, NodeWish] = {}
    troubles = []
    for name in sorted(nodes, key=str):
        wanted = nodes[name] or {}
        trouble = subdomain_problem(str(name))
        if trouble:
            troubles.append(f"node name {name!r} {trouble}")
            continue
        if not isinstance(wanted, dict) or set(wanted) - {"labels", "taints", "observed"}:
            troubles.append(f"node {name}: must be a mapping of labels, taints and observed")
            continue
        parts = {part: wanted.get(part) or {} for part in ("labels", "taints", "observed")}
        wrong = [part for part, value in parts.items() if not isinstance(value, dict)]
        if wrong:
            troubles.append(f"node {name}: {' and '.join(wrong)} must be a mapping")
            continue
        try:
            wishes[name] = parse_wish(parts["labels"], parts["taints"], f"node {name}", parts["observed"])
        except LabelError as error:
            troubles.append(str(error))
    if troubles:
        raise UnifleetError("; ".join(troubles))
    return wishes


def settle(api: ClusterApi, name: str, wish: NodeWish, *, dry: bool, wait_for_node: bool, deadline: float) -> Outcome:
    """Bring one node to what is wanted; another's write in between means another look. Raises UnifleetError."""
    first: Optional[NodePlan] = None
    conflicts = 0
    while True:
        node = api.find(f"/api/v1/nodes/{name}")
        if node is None:
            if wait_for_node and not dry and time.monotonic() < deadline:
                time.sleep(PAUSE)
                continue
            return Outcome(name)
        plan = plan_node(node, wish)
        first = first or plan
        if dry:
            return Outcome(name, plan, dict(plan.waiting))
        if plan.body:
            body = {**plan.body, "metadata": {**plan.body.get("metadata", {}), "resourceVersion": node["metadata"]["resourceVersion"]}}
            try:
                api.patch(f"/api/v1/nodes/{name}", body)
            except ApiRefusedError as refused:
                conflicts += 1
                if refused.status != 409 or conflicts > CONFLICTS:
                    raise
                continue
        if not plan.waiting or time.monotonic() >= deadline:
            return Outcome(name, first, dict(plan.waiting))
        time.sleep(PAUSE)


def settle_all(
    connect: Callable[[], ClusterApi], wishes: dict[str, NodeWish], *, dry: bool, wait_for_node: bool, timeout: float, parallel: int
) -> list[Outcome]:
    """All nodes, in the order of their names; what goes wrong with one does not stop the others."""
    deadline = time.monotonic() + timeout

    def one(name: str) -> Outcome:
        try:
            with connect() as api:
                return settle(api, name, wishes[name], dry=dry, wait_for_node=wait_for_node, deadline=deadline)
        except UnifleetError as error:
            return Outcome(name, error=str(error))

    with ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        return list(pool.map(one, sorted(wishes)))


def difference(outcome: Outcome) -> dict[str, Any]:
    """One node's part of the diff."""
    plan = outcome.plan
    header = f"node {outcome.name}"
    return {
        "before_header": header,
        "after_header": header,
        "before": plan.before if plan else {},
        "after": plan.after if plan else {},
    }


def complaints(outcomes: list[Outcome], missing_fails: bool, dry: bool) -> list[str]:
    """What makes the module fail, one sentence each."""
    found = [f"node {outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    if missing_fails:
        found += [f"node {outcome.name} does not exist" for outcome in outcomes if outcome.plan is None and not outcome.error]
    if not dry:
        for outcome in outcomes:
            if outcome.waiting:
                labels = ", ".join(f"{key}={value}" for key, value in sorted(outcome.waiting.items()))
                found.append(
                    f"node {outcome.name}: its agent has not taken over {labels}; is it running, and does its labels file (and no stronger "
                    "source, a flag or the environment) say so?"
                )
    return found


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "missing": {"type": "str", "choices": ["fail", "ignore", "wait"], "default": "fail"},
            "timeout": {"type": "int", "default": 30},
            "parallel": {"type": "int", "default": 8},
        },
        supports_check_mode=True,
    )
    options = module.params
    dry = module.check_mode
    try:
        wishes = parse_nodes(options["nodes"])
        outcomes = settle_all(
            lambda: ClusterApi.from_kubeconfig(options["kubeconfig"]),
            wishes,
            dry=dry,
            wait_for_node=options["missing"] == "wait",
            timeout=options["timeout"],
            parallel=options["parallel"],
        )
    except UnifleetError as error:
        module.fail_json(msg=str(error), missing=[], waiting={})
    result: dict[str, Any] = {
        "changed": any(outcome.changed for outcome in outcomes),
        "changed_nodes": [outcome.name for outcome in outcomes if outcome.changed],
        "missing": [outcome.name for outcome in outcomes if outcome.plan is None and not outcome.error],
        "waiting": {outcome.name: outcome.waiting for outcome in outcomes if outcome.waiting},
        "diff": [difference(outcome) for outcome in outcomes if outcome.changed],
    }
    wrong = complaints(outcomes, options["missing"] != "ignore" and not dry, dry)
    if wrong:
        module.fail_json(msg="; ".join(wrong), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
