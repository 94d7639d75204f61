# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines of etcd and of Kubernetes' control plane: pure functions of a version and a few settings.

One place for them, because flags come and go with versions, and because the role's systemd units and the tests' cluster on
loopback must not drift apart. Sources: the flag definitions in k/k cmd/kube-*/app/options and pkg/kubeapiserver/options at
1.20 and later, the urgent upgrade notes of CHANGELOG-1.24 (--insecure-port and --port removed), and the CIS benchmark for
what is switched off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.pki_cluster import USED_BY

OLDEST = (1, 20)
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ROUTER = "pod-router"
"""The host of a control plane is no node, but its API server asks pods: webhooks, aggregated APIs, `proxy` subresources."""
AUDIT_LEVELS = ("none", "metadata", "request")


@dataclass(frozen=True)
class ControlPlane:
    """What a control plane on one host is told. credentials is the directory its programs read their files from."""

    address: str
    credentials: str
    port: int = 6443
    service_cidr: str = "10.96.0.0/16"
    pod_cidr: str = "10.244.0.0/16"
    node_mask: int = 24
    cluster_name: str = "unifleet"
    cluster_domain: str = "cluster.local"
    etcd_data: str = "/var/lib/etcd/kubernetes"
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    controller_manager_port: int = 10257
    scheduler_port: int = 10259
    bind_address: str = "0.0.0.0"  # noqa: S104 - an API server is there to be reached
    client_certificate_hours: int = 8760
    audit_policy: str = ""
    audit_log: str = ""
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parse_version(text: str) -> tuple[int, int]:
    """(major, minor) of "v1.20.2", "1.33.1+build" and the like; refuses what is older than the flags below were written for."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.\d+)?(?:[-+].*)?", text.strip())
    if not found:
        raise UnifleetError(f"{text!r} is not a Kubernetes version", "write it like 1.33.1")
    version = int(found.group(1)), int(found.group(2))
    if version < OLDEST:
        raise UnifleetError(f"Kubernetes {text} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that is supported")
    return version


def command_line(program: str, version: str, plane: ControlPlane) -> list[str]:
    """The arguments of one program, without its own name, one "--flag=value" each. version is Kubernetes' own ("" for etcd)."""
    if program == "etcd":
        flags = _etcd(plane)
    elif program == ROUTER:
        flags = {"kubeconfig": _reader(plane)("pod-router.kubeconfig")}
    elif program in PROGRAMS:
        make = {"kube-apiserver": _apiserver, "kube-controller-manager": _controller_manager, "kube-scheduler": _scheduler}[program]
        flags = make(plane, parse_version(version))
    else:
        raise UnifleetError(f"{program} is not a program of the control plane", f"one of {', '.join([*PROGRAMS, ROUTER])}")
    flags.update(plane.extra.get(program, {}))
    return [f"--{name}={value}" for name, value in flags.items()]


def credential_files(program: str) -> tuple[str, ...]:
    """The files below the credentials directory that the program reads."""
    return USED_BY[program]


def _etcd(plane: ControlPlane) -> dict[str, str]:
    path = _reader(plane)
    client, peer = f"https://127.0.0.1:{plane.etcd_port}", f"https://127.0.0.1:{plane.etcd_peer_port}"
    return {
        "name": "default",
        "data-dir": plane.etcd_data,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": path("etcd-ca.crt"),
        "cert-file": path("etcd-server.crt"),
        "key-file": path("etcd-server.key"),
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": path("etcd-ca.crt"),
        "peer-cert-file": path("etcd-peer.crt"),
        "peer-key-file": path("etcd-peer.key"),
        "snapshot-count": "10000",
        "logger": "zap",
    }


def _apiserver(plane: ControlPlane, version: tuple[int, int]) -> dict[str, str]:
    path = _reader(plane)
    flags = {
        "advertise-address": plane.address,
        "bind-address": plane.bind_address,
        "secure-port": str(plane.port),
        "etcd-servers": f"https://127.0.0.1:{plane.etcd_port}",
        "etcd-cafile": path("etcd-ca.crt"),
        "etcd-certfile": path("apiserver-etcd-client.crt"),
        "etcd-keyfile": path("apiserver-etcd-client.key"),
        "encryption-provider-config": path("encryption.json"),
        "tls-cert-file": path("apiserver.crt"),
        "tls-private-key-file": path("apiserver.key"),
        "tls-min-version": "VersionTLS12",
        "client-ca-file": path("cluster-ca.crt"),
        "anonymous-auth": "false",
        "enable-bootstrap-token-auth": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "kubelet-certificate-authority": path("cluster-ca.crt"),
        "kubelet-client-certificate": path("apiserver-kubelet-client.crt"),
        "kubelet-client-key": path("apiserver-kubelet-client.key"),
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "service-account-issuer": f"https://kubernetes.default.svc.{plane.cluster_domain}",
        "service-account-key-file": path("service-account.pub"),
        "service-account-signing-key-file": path("service-account.key"),
        "service-cluster-ip-range": plane.service_cidr,
        "requestheader-client-ca-file": path("front-proxy-ca.crt"),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": path("front-proxy-client.crt"),
        "proxy-client-key-file": path("front-proxy-client.key"),
        # There is no kube-proxy on this host: aggregated APIs and webhooks are asked at their pods' addresses instead of the service's.
        "enable-aggregator-routing": "true",
        "profiling": "false",
    }
    if version < (1, 24):
        flags["insecure-port"] = "0"
    if plane.audit_policy:
        flags.update(
            {
                "audit-policy-file": plane.audit_policy,
                "audit-log-path": plane.audit_log,
                "audit-log-maxage": "30",
                "audit-log-maxbackup": "5",
                "audit-log-maxsize": "100",
            }
        )
    return flags


def _controller_manager(plane: ControlPlane, version: tuple[int, int]) -> dict[str, str]:
    path = _reader(plane)
    return {
        **_client(path("controller-manager.kubeconfig"), plane.controller_manager_port, version),
        "cluster-name": plane.cluster_name,
        "controllers": "*,bootstrapsigner,tokencleaner",
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "true",
        "cluster-cidr": plane.pod_cidr,
        "node-cidr-mask-size": str(plane.node_mask),
        "service-cluster-ip-range": plane.service_cidr,
        "cluster-signing-cert-file": path("cluster-ca.crt"),
        "cluster-signing-key-file": path("cluster-ca.key"),
        "cluster-signing-duration": f"{plane.client_certificate_hours}h",
        "root-ca-file": path("cluster-ca.crt"),
        "service-account-private-key-file": path("service-account.key"),
        "kube-api-qps": "100",
        "kube-api-burst": "200",
    }


def _scheduler(plane: ControlPlane, version: tuple[int, int]) -> dict[str, str]:
    return _client(_reader(plane)("scheduler.kubeconfig"), plane.scheduler_port, version)


def _client(kubeconfig: str, port: int, version: tuple[int, int]) -> dict[str, str]:
    """What the two programs share that talk to the API server. One instance of each: electing a leader would only slow a restart."""
    flags = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": str(port),
        "leader-elect": "false",
        "profiling": "false",
    }
    if version < (1, 24):
        flags["port"] = "0"
    return flags


def _reader(plane: ControlPlane) -> Callable[[str], str]:
    return lambda name: f"{plane.credentials}/{name}"
