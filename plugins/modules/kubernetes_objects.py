#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of module_utils/kubernetes_objects."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_objects
short_description: Have Kubernetes objects be as given
version_added: 0.1.0
description:
  - Creates objects that are missing and patches those that differ, all in one call and with nothing but Python's standard library on
    the host. Fields that are not given are left alone.
  - Waits until the API server is ready.
author:
  - Unifleet developers (@unifleet)
options:
  kubeconfig:
    description: Path of a kubeconfig on the host, as JSON; as YAML where PyYAML is installed.
    type: path
    default: /etc/kubernetes/pki/admin.kubeconfig
  objects:
    description: The objects, each with C(apiVersion), C(kind) and C(metadata.name).
    type: list
    elements: dict
    default: []
  cluster_roles:
    description:
      - Add the bindings that every cluster of this collection has, those by which hosts may join with a bootstrap token and have
        their client certificates approved, and by which the API server may call kubelets.
    type: bool
    default: false
  wait:
    description: For how many seconds to wait for the API server to be ready.
    type: int
    default: 90
attributes:
  check_mode:
    description: On a host that has no cluster yet, says that everything would be created.
    support: full
  diff_mode:
    description: Shows the fields that differ; not for Secrets.
    support: full
"""

EXAMPLES = r"""
- name: Have the runtime class
  unifleet.hybrid.kubernetes_objects:
    objects:
      - apiVersion: node.k8s.io/v1
        kind: RuntimeClass
        metadata: {name: runu}
        handler: runu
"""

RETURN = r"""
applied:
  description: Kind and name of the objects that were created or patched.
  type: list
  elements: str
  returned: success
  sample: [RuntimeClass/runu]
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_objects
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi


def apply_all(module: AnsibleModule) -> dict[str, Any]:
    """Compare, apply unless in check mode, describe."""
    objects = list(module.params["objects"]) + (kubernetes_objects.cluster_roles() if module.params["cluster_roles"] else [])
    if module.check_mode and not Path(module.params["kubeconfig"]).exists():
        names = [f"{item.get('kind')}/{item.get('metadata', {}).get('name')}" for item in objects]
        return {"changed": bool(objects), "applied": names, "diff": {"before": "", "after": json.dumps(objects, indent=2) + "\n"}}
    with ClusterApi.from_kubeconfig(module.params["kubeconfig"]) as api:
        api.wait_ready(module.params["wait"])
        changes = kubernetes_objects.pending_changes(api, objects)
        if not module.check_mode:
            for change in changes:
                kubernetes_objects.apply(api, change)
    shown = [kubernetes_objects.shown(change) for change in changes]
    before, after = ("".join(json.dumps(pair[side], indent=2, sort_keys=True) + "\n" for pair in shown) for side in (0, 1))
    return {"changed": bool(changes), "applied": [change.name for change in changes], "diff": {"before": before, "after": after}}


def main() -> None:
    """Read the parameters, apply, answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/pki/admin.kubeconfig"},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "cluster_roles": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    try:
        result = apply_all(module)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
