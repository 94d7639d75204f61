# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which serving certificates are approved: a node's own names, and nothing that it could misuse."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_serving

HOSTS = {"pi1": ["10.77.0.13", "fd00::13"], "kvm1": ["10.77.0.12"]}


def pem(name: str = "system:node:pi1", organization: str = "system:nodes", names: Sequence[x509.GeneralName] = ()) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def request(content: bytes, **spec: Any) -> dict[str, Any]:
    whole = {
        "signerName": pki_serving.SIGNER,
        "username": "system:node:pi1",
        "groups": ["system:nodes", "system:authenticated"],
        "usages": ["digital signature", "key encipherment", "server auth"],
        "request": base64.b64encode(content).decode(),
        **spec,
    }
    return {"metadata": {"name": "csr-1"}, "spec": whole}


def why(content: bytes, **spec: Any) -> str:
    return pki_serving.judge(request(content, **spec), HOSTS).why


def test_a_node_may_serve_under_its_name_and_its_addresses() -> None:
    assert why(pem(names=[dns("pi1"), address("10.77.0.13"), address("fd00:0::13")])) == ""


def test_an_elliptic_curve_key_without_key_encipherment_is_fine() -> None:
    assert why(pem(names=[dns("PI1")]), usages=["digital signature", "server auth"]) == ""


def test_the_address_of_another_node_is_refused_and_named() -> None:
    assert why(pem(names=[dns("pi1"), address("10.77.0.12")])) == "asks for 10.77.0.12, which the inventory does not give to it"


@pytest.mark.parametrize("name", ["kubernetes.default.svc", "*", "*.example.org", "kvm1", "pi1.example.org"])
def test_any_other_name_is_refused(name: str) -> None:
    assert name in why(pem(names=[dns("pi1"), dns(name)]))


@pytest.mark.parametrize(
    ("content", "spec", "named"),
    [
        (pem(names=[dns("pi1")]), {"username": "system:bootstrap:abcdef"}, "not a node"),
        (pem(names=[dns("pi1")]), {"username": "system:node:"}, "not a node"),
        (pem(names=[dns("pi1")]), {"groups": ["system:authenticated"]}, "not a node"),
        (pem("system:node:ghost", names=[dns("ghost")]), {"username": "system:node:ghost"}, "ghost is not in the inventory"),
        (pem("system:node:kvm1", names=[dns("pi1")]), {}, "its subject is system:node:kvm1"),
        (pem(organization="system:masters", names=[dns("pi1")]), {}, "its subject is"),
        (pem(names=[dns("pi1")]), {"usages": ["server auth", "client auth"]}, "client auth"),
        (pem(names=[dns("pi1")]), {"usages": ["digital signature"]}, "usages"),
        (pem(), {}, "must ask for DNS names or addresses"),
        (pem(names=[dns("pi1"), x509.RFC822Name("root@pi1")]), {}, "nothing else"),
        (pem(names=[dns("pi1"), x509.UniformResourceIdentifier("https://pi1")]), {}, "nothing else"),
        (b"rubbish", {}, "not a certificate request"),
        (pem(names=[dns("pi1")]), {"request": "!!"}, ""),
    ],
)
def test_whatever_is_not_a_plain_request_of_a_known_node_is_refused(content: bytes, spec: dict[str, Any], named: str) -> None:
    reason = why(content, **spec)
    assert reason
    assert named in reason


def test_a_request_with_a_forged_signature_is_refused() -> None:
    broken = x509.load_pem_x509_csr(pem(names=[dns("pi1")])).public_bytes(serialization.Encoding.DER)
    forged = broken[:-1] + bytes([broken[-1] ^ 1])
    armoured = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(forged) + b"-----END CERTIFICATE REQUEST-----\n"
    assert "not signed by the key" in why(armoured)


@pytest.mark.parametrize(
    ("status", "signer", "pending"),
    [
        ({}, pki_serving.SIGNER, True),
        ({"conditions": None}, pki_serving.SIGNER, True),
        ({"conditions": [{"type": "Approved"}]}, pki_serving.SIGNER, False),
        ({"conditions": [{"type": "Denied"}]}, pki_serving.SIGNER, False),
        ({}, "kubernetes.io/kube-apiserver-client-kubelet", False),
    ],
)
def test_only_undecided_serving_requests_are_looked_at(status: dict[str, Any], signer: str, pending: bool) -> None:
    item = {**request(pem(names=[dns("pi1")]), signerName=signer), "status": status}
    assert pki_serving.is_pending(item) is pending


def test_an_approval_says_by_what_right_it_was_given() -> None:
    item = pki_serving.approval(request(b""), "2026-11-21T12:00:00Z")
    (condition,) = item["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Approved", "True", "InventoryHost")
