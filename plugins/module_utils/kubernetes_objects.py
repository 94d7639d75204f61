# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applying Kubernetes objects idempotently, and the objects that every cluster of ours has.

"Already so" means that everything wanted is there with that value; what others added is left alone. Lists are compared
whole: in the objects used here (rules, subjects, taints) order and completeness matter.
"""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ApiRefusedError, ClusterApi

BOOTSTRAP_GROUP = "system:bootstrappers:unifleet"
LONGEST_TOKEN_LIFE = datetime.timedelta(hours=1)
RBAC = "rbac.authorization.k8s.io"
CSR = "system:certificates.k8s.io:certificatesigningrequests"


@dataclass(frozen=True)
class Change:
    """One object that is not as wanted; before is None when it does not exist."""

    path: str
    collection: str
    before: Optional[dict[str, Any]]
    after: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.after['kind']}/{self.after['metadata']['name']}"


def cluster_roles() -> list[dict[str, Any]]:
    """Who may join, whose certificates are approved unseen, that nodes may see each other, and what the API server may ask of kubelets.

    https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/ - the same bindings as kubeadm's, with a
    group of our own, so that tokens of other origin do not gain from them.
    """
    bootstrappers, nodes = _subject("Group", BOOTSTRAP_GROUP), _subject("Group", "system:nodes")
    return [
        _binding("unifleet:bootstrap", "system:node-bootstrapper", bootstrappers),
        _binding("unifleet:approve-first-client-certificates", f"{CSR}:nodeclient", bootstrappers),
        _binding("unifleet:approve-renewed-client-certificates", f"{CSR}:selfnodeclient", nodes),
        _node_reader(),
        _binding("unifleet:node-reader", "unifleet:node-reader", nodes, _subject("User", "unifleet:pod-router")),
        _binding("unifleet:apiserver-to-kubelets", "system:kubelet-api-admin", _subject("User", "kube-apiserver-kubelet-client")),
    ]


def bootstrap_token(life: datetime.timedelta, now: datetime.datetime, purpose: str) -> tuple[str, dict[str, Any]]:
    """A new token "id.secret" and the Secret that makes it valid; the controller manager removes it once it has expired.

    https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
    """
    if not datetime.timedelta(minutes=1) <= life <= LONGEST_TOKEN_LIFE:
        raise UnifleetError(f"a bootstrap token must live between one minute and one hour, not {life}")
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    identifier = "".join(secrets.choice(alphabet) for _number in range(6))
    secret = "".join(secrets.choice(alphabet) for _number in range(16))
    data = {
        "token-id": identifier,
        "token-secret": secret,
        "expiration": (now + life).astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": BOOTSTRAP_GROUP,
        "description": purpose,
    }
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{identifier}", "namespace": "kube-system"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    return f"{identifier}.{secret}", body


def differs(wanted: Any, present: Any) -> bool:
    """Whether something wanted is missing or other; keys that only the present object has do not count."""
    if isinstance(wanted, Mapping):
        return not isinstance(present, Mapping) or any(key not in present or differs(value, present[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        same_length = isinstance(present, list) and len(present) == len(wanted)
        return not same_length or any(differs(one, other) for one, other in zip(wanted, present))
    return bool(wanted != present)


def pending_changes(api: ClusterApi, objects: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Which of these objects the cluster does not have as wanted. Reads only."""
    plurals: dict[str, dict[str, Any]] = {}
    changes = []
    for wanted in objects:
        collection, path = _paths(api, wanted, plurals)
        present = api.find(path)
        if present is None or differs(wanted, present):
            changes.append(Change(path, collection, present, dict(wanted)))
    return changes


def apply(api: ClusterApi, change: Change) -> None:
    """Create or patch; a binding whose role changes is replaced, because the API server lets nobody change it in place."""
    if change.before is None:
        api.create(change.collection, change.after)
        return
    if "roleRef" in change.after and differs(change.after["roleRef"], change.before.get("roleRef")):
        api.delete(change.path)
        api.create(change.collection, change.after)
        return
    api.patch(change.path, change.after)


def shown(change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    """Before and after for a diff: of the present object only what is wanted otherwise, and never a secret's content."""
    if change.after["kind"] == "Secret":
        return {}, {"kind": "Secret", "metadata": change.after["metadata"]}
    return _overlap(change.after, change.before or {}), change.after


def _overlap(wanted: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in wanted.items():
        if key in present:
            other = present[key]
            result[key] = _overlap(value, other) if isinstance(value, Mapping) and isinstance(other, Mapping) else other
    return result


def _paths(api: ClusterApi, wanted: Mapping[str, Any], plurals: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """(path of the collection, path of the object), by asking the API server for the plural of the kind."""
    try:
        version, kind, metadata = str(wanted["apiVersion"]), str(wanted["kind"]), wanted["metadata"]
        name = str(metadata["name"])
    except (KeyError, TypeError) as error:
        raise UnifleetError(f"an object without {error}", "every object needs apiVersion, kind and metadata.name") from error
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if root not in plurals:
        try:
            resources = api.get(root)["resources"]
        except ApiRefusedError as refused:
            raise UnifleetError(f"{kind}/{name}: the cluster does not know {version}: {refused.message}") from refused
        plurals[root] = {item["kind"]: item for item in resources if "/" not in item["name"]}
    resource = plurals[root].get(kind)
    if resource is None:
        raise UnifleetError(f"{kind}/{name}: the cluster knows no kind {kind} in {version}")
    namespace = f"/namespaces/{metadata.get('namespace', 'default')}" if resource["namespaced"] else ""
    collection = f"{root}{namespace}/{resource['name']}"
    return collection, f"{collection}/{name}"


def _node_reader() -> dict[str, Any]:
    """Nodes, and the host of the control plane, keep routes to pods; the Node authorizer lets nodes see each other up to 1.31 alone."""
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "unifleet:node-reader", "labels": {"app.kubernetes.io/managed-by": "unifleet"}},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}],
    }


def _binding(name: str, role: str, *subjects: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "unifleet"}},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": list(subjects),
    }


def _subject(kind: str, name: str) -> dict[str, str]:
    return {"kind": kind, "apiGroup": RBAC, "name": name}
