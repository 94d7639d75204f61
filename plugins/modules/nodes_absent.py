#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take nodes out of the cluster's list, in one call for all of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nodes_absent
short_description: Remove nodes from a cluster
version_added: 0.1.0
description:
  - Deletes the Node objects of hosts that are no nodes any more. Kubernetes then forgets the pods that were bound to them.
  - A host whose agent still runs would register again.
author:
  - Unifleet developers (@unifleet)
options:
  kubeconfig:
    description: Path of an administrator's kubeconfig where the module runs.
    type: path
    default: /etc/kubernetes/pki/admin.kubeconfig
  nodes:
    description: Names of the nodes.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Names the nodes that are there and would be removed.
    support: full
  diff_mode:
    description: Names the nodes before and after.
    support: full
"""

EXAMPLES = r"""
- name: Forget the nodes that were reset
  unifleet.hybrid.nodes_absent:
    kubeconfig: ~/.kube/unifleet.kubeconfig
    nodes: [pi1]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
removed:
  description: Names of the nodes that were, or in check mode would be, removed.
  type: list
  elements: str
  returned: success
  sample: [pi1]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi


def remove(module: AnsibleModule) -> dict[str, Any]:
    """Delete those that are there; the result for exit_json."""
    with ClusterApi.from_kubeconfig(module.params["kubeconfig"]) as api:
        there = {item["metadata"]["name"] for item in api.get("/api/v1/nodes")["items"]}
        removed = sorted(there & set(module.params["nodes"]))
        for name in removed if not module.check_mode else ():
            api.delete(f"/api/v1/nodes/{name}")
    return {"changed": bool(removed), "removed": removed, "diff": {"before": "".join(f"{name}\n" for name in removed), "after": ""}}


def main() -> None:
    """Read the parameters, remove, answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/pki/admin.kubeconfig"},
            "nodes": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = remove(module)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
