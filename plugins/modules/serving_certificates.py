#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of pki_serving."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_certificates
short_description: Approve the serving certificates that nodes asked for
version_added: 0.1.0
description:
  - Nodes ask for a certificate under which the API server can trust them when it fetches logs. Kubernetes approves none by itself.
    This module approves, in one call for all nodes, the requests whose names and addresses are those that the inventory gives to
    the node, and leaves all others as they are, saying why.
author:
  - Unifleet developers (@unifleet)
requirements:
  - cryptography >= 38 where the module runs (ansible-core brings it to the controller)
options:
  kubeconfig:
    description: Path of an administrator's kubeconfig where the module runs.
    type: path
    default: /etc/kubernetes/pki/admin.kubeconfig
  nodes:
    description: By node name, the further names and addresses under which that node may serve. Its own name is always allowed.
    type: dict
    required: true
  wait_for:
    description: Names of nodes whose request is awaited because they are just joining.
    type: list
    elements: str
    default: []
  wait:
    description: For how many seconds at most.
    type: int
    default: 30
attributes:
  check_mode:
    description: Judges the requests that are pending now; waits for none.
    support: full
  diff_mode:
    description: Lists the requests that are approved.
    support: full
"""

EXAMPLES = r"""
- name: Approve the nodes' serving certificates
  unifleet.hybrid.serving_certificates:
    nodes:
      pi1: [10.77.0.13]
      kvm1: [10.77.0.12, kvm1.example.org]
  delegate_to: cp1
  run_once: true
"""

RETURN = r"""
approved:
  description: Names of the nodes whose requests were approved.
  type: list
  elements: str
  returned: success
refused:
  description: Pending requests that were left alone, with the reason.
  type: list
  elements: dict
  returned: success
  sample: [{request: csr-x2, node: pi1, why: "asks for 10.0.0.9, which the inventory does not give to it"}]
"""

import datetime
import time
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_serving
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi

try:
    import cryptography  # noqa: F401  # pylint: disable=unused-import

    CRYPTOGRAPHY_ERROR = ""
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def approve(module: AnsibleModule) -> dict[str, Any]:
    """Judge what is pending, approve what may be; repeat until the awaited nodes have asked."""
    hosts = {node: [str(item) for item in names or []] for node, names in module.params["nodes"].items()}
    awaited = set(module.params["wait_for"]) if not module.check_mode else set()
    approved: list[pki_serving.Verdict] = []
    refused: dict[str, pki_serving.Verdict] = {}
    deadline = time.monotonic() + module.params["wait"]
    with ClusterApi.from_kubeconfig(module.params["kubeconfig"]) as api:
        while True:
            for request in api.get(REQUESTS).get("items", []):
                node = str(request["spec"].get("username", ""))[len("system:node:") :]
                if request["spec"].get("signerName") == pki_serving.SIGNER and not pki_serving.is_pending(request):
                    awaited.discard(node)
                if not pki_serving.is_pending(request) or request["metadata"]["name"] in refused:
                    continue
                verdict = pki_serving.judge(request, hosts)
                awaited.discard(verdict.node)
                if not verdict.approved:
                    refused[verdict.request] = verdict
                    continue
                approved.append(verdict)
                if not module.check_mode:
                    now = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
                    api.replace(f"{REQUESTS}/{verdict.request}/approval", pki_serving.approval(request, now))
            if not awaited:
                break
            if time.monotonic() >= deadline:
                nodes = ", ".join(sorted(awaited))
                raise UnifleetError(f"no request for a serving certificate came from {nodes}", "the agent's journal on the host says why")
            time.sleep(0.5)
    return {
        "changed": bool(approved),
        "approved": [verdict.node for verdict in approved],
        "refused": [{"request": item.request, "node": item.node, "why": item.why} for item in refused.values()],
        "diff": {"before": "", "after": "".join(f"{item.request} of {item.node}: approved\n" for item in approved)},
    }


def main() -> None:
    """Read the parameters, approve, answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/pki/admin.kubeconfig"},
            "nodes": {"type": "dict", "required": True},
            "wait_for": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not Path(module.params["kubeconfig"]).exists():
        module.exit_json(changed=False, approved=[], refused=[])
    if CRYPTOGRAPHY_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    try:
        result = approve(module)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    for item in result["refused"]:
        module.warn(f"serving certificate request {item['request']} left alone: {item['why']}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
