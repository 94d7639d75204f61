# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificates, keys and kubeconfigs a control plane has, and which of them must be made anew: one pure function over file contents.

All files lie flat in one directory, so that a unit can hand just its own ones to a service (LoadCredential) under the same names.
Three authorities, so that a certificate for one purpose opens nothing else: the cluster's, etcd's, and the one for requests that
the API server forwards to extensions (https://kubernetes.io/docs/setup/best-practices/certificates/). An authority is renewed
with its old key: what it signed stays valid, and hosts that still hold the old certificate keep trusting what is signed next.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_x509
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.pki_x509 import CertificateSpec

ENCRYPTION_FILE = "encryption.json"
KUBECONFIGS = ("admin", "controller-manager", "scheduler", "pod-router")
USED_BY = {
    "etcd": ("etcd-ca.crt", "etcd-server.crt", "etcd-server.key", "etcd-peer.crt", "etcd-peer.key"),
    "kube-apiserver": (
        "cluster-ca.crt",
        "etcd-ca.crt",
        "front-proxy-ca.crt",
        "apiserver.crt",
        "apiserver.key",
        "apiserver-etcd-client.crt",
        "apiserver-etcd-client.key",
        "apiserver-kubelet-client.crt",
        "apiserver-kubelet-client.key",
        "front-proxy-client.crt",
        "front-proxy-client.key",
        "service-account.key",
        "service-account.pub",
        ENCRYPTION_FILE,
    ),
    "kube-controller-manager": ("cluster-ca.crt", "cluster-ca.key", "service-account.key", "controller-manager.kubeconfig"),
    "kube-scheduler": ("scheduler.kubeconfig",),
    "pod-router": ("pod-router.kubeconfig",),
}
"""Which files each program reads: what it is given, and what it is restarted for."""


@dataclass(frozen=True)
class ClusterNames:
    """What the certificates are made out for. addresses and names are those under which clients reach the API server.

    endpoint is the one that the administrator's kubeconfig names; the first address when empty.
    """

    node_name: str
    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    port: int = 6443
    service_cidr: str = "10.96.0.0/16"
    cluster_domain: str = "cluster.local"
    cluster_name: str = "unifleet"
    endpoint: str = ""

    @property
    def service_address(self) -> str:
        """The address of the service `kubernetes`: always the first of the service range."""
        return str(ipaddress.ip_network(self.service_cidr)[1])


@dataclass(frozen=True)
class Lifetimes:
    """How long certificates live, and below which fraction of life left they are renewed."""

    authority: datetime.timedelta = datetime.timedelta(days=3650)
    certificate: datetime.timedelta = datetime.timedelta(days=365)
    renew_below: float = 1 / 3


@dataclass(frozen=True)
class Outcome:
    """files: what must be written (name -> content); reasons: why, by name of certificate or file; everything: all that lies there.

    known: the names that are ours; other files in the directory are left alone.
    """

    files: Mapping[str, bytes]
    reasons: Mapping[str, str]
    everything: Mapping[str, bytes]
    known: frozenset[str]

    def fingerprint(self, program: str) -> str:
        return pki_x509.fingerprint(*(self.everything[name] for name in USED_BY[program]))


def file_mode(name: str) -> int:
    """Certificates and public keys may be read by everybody, all else by root alone."""
    return 0o644 if name.endswith((".crt", ".pub")) else 0o600


def specs(names: ClusterNames) -> list[CertificateSpec]:
    """Every certificate of the control plane, authorities first."""
    domain = names.cluster_domain
    inside = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}", "localhost")
    local = ("127.0.0.1",)
    return [
        CertificateSpec("cluster-ca", "", f"{names.cluster_name} cluster authority"),
        CertificateSpec("etcd-ca", "", f"{names.cluster_name} etcd authority"),
        CertificateSpec("front-proxy-ca", "", f"{names.cluster_name} front proxy authority"),
        CertificateSpec(
            "apiserver",
            "cluster-ca",
            "kube-apiserver",
            server=True,
            dns_names=_unique(inside, (names.node_name,), names.names),
            addresses=_unique(local, (names.service_address,), names.addresses),
        ),
        CertificateSpec("apiserver-kubelet-client", "cluster-ca", "kube-apiserver-kubelet-client", client=True),
        CertificateSpec("admin", "cluster-ca", "kubernetes-admin", ("system:masters",), client=True),
        CertificateSpec("controller-manager", "cluster-ca", "system:kube-controller-manager", client=True),
        CertificateSpec("scheduler", "cluster-ca", "system:kube-scheduler", client=True),
        CertificateSpec("pod-router", "cluster-ca", "unifleet:pod-router", client=True),
        CertificateSpec("front-proxy-client", "front-proxy-ca", "front-proxy-client", client=True),
        CertificateSpec("etcd-server", "etcd-ca", names.node_name, server=True, client=True, dns_names=("localhost",), addresses=local),
        CertificateSpec("etcd-peer", "etcd-ca", names.node_name, server=True, client=True, dns_names=("localhost",), addresses=local),
        CertificateSpec("apiserver-etcd-client", "etcd-ca", "kube-apiserver-etcd-client", client=True),
    ]


def complete(existing: Mapping[str, bytes], names: ClusterNames, lifetimes: Lifetimes, now: datetime.datetime) -> Outcome:
    """Decide what is missing, damaged, wrong or near its end, and make it. existing maps file name -> content of what is there."""
    files: dict[str, bytes] = {}
    reasons: dict[str, str] = {}
    have = dict(existing)

    def put(name: str, content: bytes) -> None:
        if have.get(name) != content:
            files[name] = have[name] = content

    for spec in specs(names):
        authority = _authority(spec, have)
        reason = _reason_to_issue(spec, have, lifetimes, now)
        if not reason:
            continue
        reasons[spec.name] = reason
        key = have.get(f"{spec.name}.key") if spec.is_authority else None
        if spec.is_authority and have.get(f"{spec.name}.crt") and key is None:
            raise UnifleetError(
                f"{spec.name}.crt is there but {spec.name}.key is not: its authority cannot sign any more",
                "restore the key from a backup, or remove the certificate too and let every host join anew",
            )
        key = key or pki_x509.make_key()
        put(f"{spec.name}.key", key)
        lifetime = lifetimes.authority if spec.is_authority else lifetimes.certificate
        put(f"{spec.name}.crt", pki_x509.issue(spec, key, authority, now, lifetime))
    _complete_service_account(have, reasons, put)
    _complete_encryption(have, reasons, put)
    for name in KUBECONFIGS:
        server = f"https://{_in_url((names.endpoint or names.addresses[0]) if name == 'admin' else '127.0.0.1')}:{names.port}"
        config = kubeconfig(
            names.cluster_name, server, have["cluster-ca.crt"], user=name, certificate=have[f"{name}.crt"], key=have[f"{name}.key"]
        )
        if have.get(f"{name}.kubeconfig") not in (None, config) and name not in reasons:
            reasons[f"{name}.kubeconfig"] = "differs"
        put(f"{name}.kubeconfig", config)
    known = {f"{spec.name}{suffix}" for spec in specs(names) for suffix in (".crt", ".key")}
    known |= {"service-account.key", "service-account.pub", ENCRYPTION_FILE, *(f"{name}.kubeconfig" for name in KUBECONFIGS)}
    return Outcome(files, reasons, have, frozenset(known))


def kubeconfig(cluster: str, server: str, authority: bytes, *, user: str, certificate: bytes, key: bytes) -> bytes:
    """A self-contained kubeconfig. JSON, which is YAML as well: hosts need no YAML library to read it."""
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": _b64(authority)}}],
        "users": [{"name": user, "user": {"client-certificate-data": _b64(certificate), "client-key-data": _b64(key)}}],
        "contexts": [{"name": f"{user}@{cluster}", "context": {"cluster": cluster, "user": user}}],
        "current-context": f"{user}@{cluster}",
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def encryption_config(key: bytes) -> bytes:
    """Secrets are sealed by XSalsa20-Poly1305 (secretbox): authenticated, and known to every API server since 1.13."""
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"secretbox": {"keys": [{"name": "key1", "secret": _b64(key)}]}}]}],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _reason_to_issue(spec: CertificateSpec, have: Mapping[str, bytes], lifetimes: Lifetimes, now: datetime.datetime) -> str:
    """Why this certificate must be made (anew), or "" when it is good."""
    certificate, key = have.get(f"{spec.name}.crt"), have.get(f"{spec.name}.key")
    if certificate is None or key is None:
        return "missing"
    try:
        facts = pki_x509.read_certificate(certificate)
        if facts.public_key != pki_x509.public_key(key):
            return "key and certificate do not belong together"
    except UnifleetError as error:
        if spec.is_authority:
            raise UnifleetError(f"{spec.name}: {error.message}", "restore the authority's files from a backup") from error
        return error.message
    if not spec.is_authority and not pki_x509.is_signed_by(certificate, have[f"{spec.authority}.crt"]):
        return f"not signed by the present {spec.authority}"
    wanted = (spec.common_name, spec.organizations, spec.server, spec.client, spec.is_authority)
    if wanted != (facts.common_name, facts.organizations, facts.server, facts.client, facts.is_authority):
        return "subject or purpose differs"
    if set(spec.dns_names) != set(facts.dns_names) or set(spec.addresses) != set(facts.addresses):
        gone = sorted((set(spec.dns_names) | set(spec.addresses)) ^ (set(facts.dns_names) | set(facts.addresses)))
        return f"names differ: {', '.join(gone)}"
    left = facts.life_left(now)
    if left <= 0:
        return f"expired on {facts.not_after:%Y-%m-%d %H:%M} UTC"
    if left < lifetimes.renew_below:
        return f"{left:.0%} of its life left, ends {facts.not_after:%Y-%m-%d %H:%M} UTC"
    return ""


def _authority(spec: CertificateSpec, have: Mapping[str, bytes]) -> Any:
    return None if spec.is_authority else (have[f"{spec.authority}.crt"], have[f"{spec.authority}.key"])


def _complete_service_account(have: dict[str, bytes], reasons: dict[str, str], put: Any) -> None:
    if "service-account.key" not in have:
        reasons["service-account"] = "missing"
        put("service-account.key", pki_x509.make_key())
    put("service-account.pub", pki_x509.public_key(have["service-account.key"]))


def _complete_encryption(have: dict[str, bytes], reasons: dict[str, str], put: Any) -> None:
    if ENCRYPTION_FILE not in have:
        reasons["encryption"] = "missing"
        put(ENCRYPTION_FILE, encryption_config(os.urandom(32)))


def _unique(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group if item))


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
