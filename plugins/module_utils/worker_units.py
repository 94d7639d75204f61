# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines and configuration files of the stock kubelet and kube-proxy, and pod-router's arguments: pure functions of a few settings.

Sources: k/k cmd/kubelet/app/options/options.go and staging/src/k8s.io/kubelet/config/v1beta1/types.go at 1.20 and later; CHANGELOG-1.24
(dockershim gone) and CHANGELOG-1.27 (--container-runtime gone, containerRuntimeEndpoint in the file); the CIS benchmark for what is
switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_units import parse_version

PROGRAMS = ("kubelet", "kube-proxy")
ROUTER = "pod-router"


@dataclass(frozen=True)
class Worker:
    """What a worker's programs are told. configuration is the directory of their files, state the kubelet's own."""

    node_name: str
    configuration: str = "/etc/kubernetes"
    state: str = "/var/lib/kubelet"
    runtime_socket: str = "/run/containerd/containerd.sock"
    sandbox_image: str = ""
    node_ip: str = ""
    cgroup_driver: str = "systemd"
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    pod_cidr: str = "10.244.0.0/16"
    translation: str = "unifleet_worker_pods=/etc/containerd/pods.nft"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Mapping[str, str] = field(default_factory=dict)
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    proxy: Mapping[str, Any] = field(default_factory=dict)


def arguments(program: str, version: str, worker: Worker) -> list[str]:
    """The arguments of one program, one "--flag=value" each. version is Kubernetes' own. ${NAME} is what registration() says."""
    release = parse_version(version)
    if program == "kube-proxy":
        return [f"--config={worker.configuration}/kube-proxy.json"]
    if program == ROUTER:
        return [
            f"--kubeconfig={worker.configuration}/kube-proxy.kubeconfig",
            f"--node={worker.node_name}",
            f"--pods={worker.pod_cidr}",
            f"--translation={worker.translation}",
        ]
    _known(program)
    flags = {
        "config": f"{worker.configuration}/kubelet.json",
        "kubeconfig": f"{worker.state}/kubeconfig",
        "bootstrap-kubeconfig": f"{worker.state}/bootstrap-kubeconfig",
        "cert-dir": f"{worker.state}/pki",
        "hostname-override": worker.node_name,
        "node-labels": "${NODE_LABELS}",
        "register-with-taints": "${NODE_TAINTS}",
    }
    if worker.node_ip:
        flags["node-ip"] = worker.node_ip
    if release < (1, 24):
        flags["container-runtime"] = "remote"
    if release < (1, 27):
        flags["container-runtime-endpoint"] = f"unix://{worker.runtime_socket}"
        # The image that the garbage collection of images spares; newer runtimes say themselves which one it is.
        if worker.sandbox_image:
            flags["pod-infra-container-image"] = worker.sandbox_image
    return [f"--{name}={value}" for name, value in flags.items()]


def registration(worker: Worker) -> dict[str, str]:
    """The labels and taints that the kubelet registers with, as the environment of its unit: a change of them restarts nothing."""
    taints = [(*identity.rpartition(":")[::2], value or "") for identity, value in sorted(worker.taints.items())]
    return {
        "NODE_LABELS": ",".join(f"{key}={value}" for key, value in sorted(worker.labels.items())),
        "NODE_TAINTS": ",".join(f"{key}={value}:{effect}" for key, effect, value in taints),
    }


def configuration(program: str, version: str, worker: Worker) -> dict[str, Any]:
    """The configuration file of one program; the worker's own settings are laid over it."""
    release = parse_version(version)
    _known(program)
    if program == ROUTER:
        return {}
    if program == "kubelet":
        return laid_over(_kubelet(worker, release), worker.kubelet)
    return laid_over(_proxy(worker), worker.proxy)


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged at every depth; null takes a key away."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = laid_over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _known(program: str) -> None:
    if program not in (*PROGRAMS, ROUTER):
        raise UnifleetError(f"{program} is not a program of a worker", f"one of {', '.join([*PROGRAMS, ROUTER])}")


def _kubelet(worker: Worker, release: tuple[int, int]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{worker.configuration}/cluster-ca.pem"},
        },
        "authorization": {"mode": "Webhook"},
        "readOnlyPort": 0,
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "tlsMinVersion": "VersionTLS12",
        "cgroupDriver": worker.cgroup_driver,
        "clusterDomain": worker.cluster_domain,
        "failSwapOn": False,
        "serializeImagePulls": False,
    }
    if worker.cluster_dns:
        config["clusterDNS"] = list(worker.cluster_dns)
    if release >= (1, 27):
        config["containerRuntimeEndpoint"] = f"unix://{worker.runtime_socket}"
    else:
        # What newer ones have by default (kubernetes/kubernetes#116121): with 5 requests a second, two for each status, the API learns
        # half a minute late of fifty pods that run.
        config.update(kubeAPIQPS=50, kubeAPIBurst=100, eventRecordQPS=50, eventBurst=100)
    return config


def _proxy(worker: Worker) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{worker.configuration}/kube-proxy.kubeconfig"},
        "hostnameOverride": worker.node_name,
        "mode": "iptables",
        "clusterCIDR": worker.pod_cidr,
        "metricsBindAddress": "127.0.0.1:10249",
    }
