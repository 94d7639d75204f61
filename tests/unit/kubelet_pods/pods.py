# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods for tests, as the API server of Kubernetes 1.20 really hands them out, defaults and token volume included."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod, parse_pod

UID = "cb07321e-464b-49f2-92db-37462512e25d"
TOKEN_MOUNT = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "default-token-zxr2g", "readOnly": True}


def container(name: str = "main", **more: Any) -> dict[str, Any]:
    """A container with the fields that defaulting adds."""
    return {
        "name": name,
        "image": "registry.example/sensor:1",
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [dict(TOKEN_MOUNT)],
        **more,
    }


def raw_pod(uid: str = UID, name: str = "p", metadata: Any = None, status: Any = None, **spec: Any) -> dict[str, Any]:
    """A pod object; spec's keys replace or add fields."""
    return copy.deepcopy(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "creationTimestamp": "2026-11-21T23:17:52Z", **(metadata or {})},
            "spec": {
                "containers": [container()],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": True,
                "nodeName": "sim1",
                "preemptionPolicy": "PreemptLowerPriority",
                "priority": 0,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "serviceAccount": "default",
                "serviceAccountName": "default",
                "terminationGracePeriodSeconds": 5,
                "tolerations": [{"operator": "Exists"}],
                "volumes": [{"name": "default-token-zxr2g", "secret": {"defaultMode": 420, "secretName": "default-token-zxr2g"}}],
                **spec,
            },
            "status": status or {"phase": "Pending", "qosClass": "BestEffort"},
        }
    )


def pod(vm: bool = False, **more: Any) -> Pod:
    """The same, parsed."""
    return parse_pod(raw_pod(**more), vm=vm)
