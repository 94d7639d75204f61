#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a cluster with its inventory: everything that differs, in one list."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_verify
short_description: Compare a cluster with its inventory
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Lists everything in which the cluster differs from the inventory. Nodes that are missing, not Ready or cordoned, labels and taints
    that differ, certificates that end soon, units that do not run, programs of another version, routes to pods that are missing.
  - Fails when there is anything to list. Changes nothing.
options:
  kubeconfig:
    description: Path of an administrator's kubeconfig where the module runs.
    type: path
    required: true
  nodes:
    description: By node name, its C(labels) and C(taints) (C(KEY:EFFECT) to value), as M(unifleet.hybrid.inventory_check) returns them.
    type: dict
    required: true
  hosts:
    description: By host name, what M(unifleet.hybrid.host_info) returned there, or how it failed.
    type: dict
    default: {}
  node_hosts:
    description: By node name, the host that it is, as M(unifleet.hybrid.inventory_check) returns them. Its own pods need no route.
    type: dict
    default: {}
  programs:
    description: By host name, what M(unifleet.hybrid.host_app) returned there in check mode.
    type: dict
    default: {}
  only_these:
    description: Whether O(nodes) are not all nodes of the cluster, so that others are no fault.
    type: bool
    default: false
  wait:
    description: For how many seconds to wait until there is nothing wrong with the nodes.
    type: int
    default: 0
  certificate_days:
    description: A certificate that ends in fewer days is listed, unless its life is so short that its renewal is not due yet.
    type: float
    default: 30
extends_documentation_fragment:
  - unifleet.hybrid.attributes
attributes:
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Wait until all nodes are as the inventory says
  unifleet.hybrid.cluster_verify:
    kubeconfig: .lab/admin.kubeconfig
    nodes: "{{ inventory.nodes }}"
    wait: 120
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
problems:
  description: Everything that differs.
  returned: always
  type: list
  elements: str
  sample: ["node pi1 is not in the cluster"]
nodes:
  description: The names of the nodes in the cluster.
  returned: when the API server answered
  type: list
  elements: str
  sample: [kvm1, pi1]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.cluster_state import (
    host_problems,
    node_problems,
    program_problems,
    route_problems,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi

POLL = 1.0


def nodes_of(kubeconfig: str) -> list[dict[str, Any]]:
    """All nodes of the cluster. Raises UnifleetError when there is no answer."""
    with ClusterApi.from_kubeconfig(kubeconfig, timeout=10) as api:
        found: list[dict[str, Any]] = api.get("/api/v1/nodes")["items"]
        return found


def compare(parameters: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """(problems with nodes, nodes) once there are none or the time is over."""
    deadline = time.monotonic() + parameters["wait"]
    while True:
        try:
            nodes = nodes_of(parameters["kubeconfig"])
            if parameters["only_these"]:
                nodes = [node for node in nodes if node["metadata"]["name"] in parameters["nodes"]]
            problems = node_problems(parameters["nodes"], nodes)
        except (UnifleetError, OSError) as error:
            problems, nodes = [f"the API server does not answer: {error}"], []
        if not problems or time.monotonic() >= deadline:
            return problems, nodes
        time.sleep(POLL)


def main() -> None:
    """Parse, compare, answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "hosts": {"type": "dict", "default": {}},
            "node_hosts": {"type": "dict", "default": {}},
            "programs": {"type": "dict", "default": {}},
            "only_these": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 0},
            "certificate_days": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    problems, nodes = compare(module.params)
    names = sorted(node["metadata"]["name"] for node in nodes)
    for name, info in sorted(module.params["hosts"].items()):
        problems += host_problems(name, info, module.params["certificate_days"])
        problems += route_problems(name, info, nodes, module.params["node_hosts"])
    for name, answer in sorted(module.params["programs"].items()):
        problems += program_problems(name, answer)
    if problems:
        lines = "".join(f"\n- {problem}" for problem in problems)
        module.fail_json(msg=f"The cluster differs from its inventory in {len(problems)} point(s):{lines}", problems=problems, nodes=names)
    module.exit_json(changed=False, problems=[], nodes=names)


if __name__ == "__main__":
    main()
