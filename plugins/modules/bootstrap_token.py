#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of kubernetes_objects.bootstrap_token."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bootstrap_token
short_description: Make a short-lived bootstrap token for hosts that have not joined
version_added: 0.1.0
description:
  - Makes a token with which hosts may ask for their first client certificate, and nothing else. It ends by itself within the hour.
  - Makes none when O(nodes) is empty, so that a run in which every host has joined changes nothing.
author:
  - Unifleet developers (@unifleet)
options:
  kubeconfig:
    description: Path of an administrator's kubeconfig where the module runs.
    type: path
    default: /etc/kubernetes/pki/admin.kubeconfig
  nodes:
    description: Names of the hosts that have no certificate yet.
    type: list
    elements: str
    required: true
  minutes:
    description: Life of the token in minutes, from 1 to 60.
    type: int
    default: 30
attributes:
  check_mode:
    description: Says that a token would be made; returns none.
    support: full
  diff_mode:
    description: Names the hosts that the token is for.
    support: full
"""

EXAMPLES = r"""
- name: Make a token for the hosts that have not joined
  unifleet.hybrid.bootstrap_token:
    nodes: [pi1, kvm1]
  register: token
  no_log: true
  delegate_to: cp1
  run_once: true
"""

RETURN = r"""
token:
  description: The token, empty when none was made. Register it under C(no_log).
  type: str
  returned: success
expires:
  description: When the token ends (UTC).
  type: str
  returned: when one was made
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_objects
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi


def make(module: AnsibleModule) -> dict[str, Any]:
    """Make the token's Secret; the result for exit_json."""
    nodes = sorted(module.params["nodes"])
    purpose = f"joining {', '.join(nodes)}"
    diff = {"before": "", "after": f"bootstrap token for {purpose}\n" if nodes else ""}
    life, now = datetime.timedelta(minutes=module.params["minutes"]), datetime.datetime.now(datetime.timezone.utc)
    token, secret = kubernetes_objects.bootstrap_token(life, now, purpose)
    if module.check_mode or not nodes:
        return {"changed": bool(nodes), "token": "", "diff": diff}
    with ClusterApi.from_kubeconfig(module.params["kubeconfig"]) as api:
        api.create("/api/v1/namespaces/kube-system/secrets", secret)
    return {"changed": True, "token": token, "expires": f"{now + life:%Y-%m-%dT%H:%M:%SZ}", "diff": diff}


def main() -> None:
    """Read the parameters, make a token, answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/pki/admin.kubeconfig"},
            "nodes": {"type": "list", "elements": "str", "required": True},
            "minutes": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = make(module)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
