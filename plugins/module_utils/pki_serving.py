# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kubelets' requests for serving certificates may be approved. Pure.

Kubernetes approves none by itself, because only somebody who knows the hosts can tell whether a node may serve under a name: that is
the inventory here. The rules of the signer kubernetes.io/kubelet-serving
(https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers) are checked again, so
that nothing is approved that the signer then refuses.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_x509
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SIGNER = "kubernetes.io/kubelet-serving"
USAGES = frozenset({"digital signature", "key encipherment", "server auth"})


@dataclass(frozen=True)
class Verdict:
    """request is the name of the CertificateSigningRequest; why is empty when it may be approved."""

    request: str
    node: str
    why: str = ""

    @property
    def approved(self) -> bool:
        return not self.why


def is_pending(request: Mapping[str, Any]) -> bool:
    """For a serving certificate, and neither approved nor denied nor failed yet."""
    conditions = request.get("status", {}).get("conditions") or []
    return request["spec"].get("signerName") == SIGNER and not conditions


def judge(request: Mapping[str, Any], hosts: Mapping[str, Sequence[str]]) -> Verdict:
    """hosts: for each node of the inventory the names and addresses under which it may serve (its own name is one of them)."""
    spec, name = request["spec"], request["metadata"]["name"]
    user = str(spec.get("username", ""))
    node = user[len("system:node:") :] if user.startswith("system:node:") else ""
    if not node or "system:nodes" not in spec.get("groups", []):
        return Verdict(name, node, f"made by {user or 'nobody'}, which is not a node")
    if node not in hosts:
        return Verdict(name, node, f"{node} is not in the inventory")
    usages = set(spec.get("usages", []))
    if "server auth" not in usages or not usages <= USAGES:
        return Verdict(name, node, f"asks for the usages {', '.join(sorted(usages))}")
    try:
        facts = pki_x509.read_request(base64.b64decode(spec.get("request", ""), validate=True))
    except (UnifleetError, binascii.Error) as error:
        return Verdict(name, node, str(error))
    return Verdict(name, node, _objection(facts, user, {_canonical(item) for item in (node, *hosts[node])}))


def approval(request: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The body for the request's subresource "approval"; now is an RFC 3339 time."""
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "InventoryHost",
        "message": "Names and addresses are those of the inventory.",
        "lastUpdateTime": now,
    }
    return {**request, "status": {**request.get("status", {}), "conditions": [condition]}}


def _objection(facts: pki_x509.RequestFacts, user: str, allowed: set[str]) -> str:
    if facts.common_name != user or facts.organizations != ("system:nodes",):
        return f"its subject is {facts.common_name} of {', '.join(facts.organizations) or 'nothing'}, not {user} of system:nodes"
    asked = [_canonical(item) for item in (*facts.dns_names, *facts.addresses)]
    if facts.other_names or not asked:
        return "it must ask for DNS names or addresses, and for nothing else"
    foreign = sorted(set(asked) - allowed)
    return f"asks for {', '.join(foreign)}, which the inventory does not give to it" if foreign else ""


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text.lower()
