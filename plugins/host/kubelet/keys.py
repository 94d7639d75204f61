# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making keys and certificate requests, and reading certificates, as a short-lived program of its own: JSON in, JSON out.

python3-cryptography costs a process 8 MiB that it never gives back, for something that an agent does once in months; so this file
runs as a child (certificates.py starts it) and imports nothing of Unifleet. One request is one JSON object on standard input:
{"do": "request"|"self_sign", "common_name", "organization", "dns": [...], "ips": [...], "key": PEM or ""}
-> {"key": PEM, "request"|"certificate": PEM};  {"do": "inspect", "certificate": PEM}
-> {"not_before", "not_after": seconds since the epoch, "common_name", "organization", "dns", "ips", "public_key": hex}.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SELF_SIGNED_DAYS = 365


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Do what the order says. Raises ValueError or KeyError when it makes no sense."""
    if order["do"] == "inspect":
        return inspect(order["certificate"].encode())
    key = load_key(order["key"].encode()) if order.get("key") else ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, order["organization"]),
            x509.NameAttribute(NameOID.COMMON_NAME, order["common_name"]),
        ],
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(entry) for entry in order.get("dns", ())]
    alternatives += [x509.IPAddress(ipaddress.ip_address(entry)) for entry in order.get("ips", ())]
    if order["do"] == "request":
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        if alternatives:
            request = request.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return {"key": pem, "request": request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()}
    if order["do"] == "self_sign":
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return {"key": pem, "certificate": builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()}
    raise ValueError(f"unknown order {order['do']!r}")


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a PEM text."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the private key is not an elliptic-curve key")
    return key


def inspect(pem: bytes) -> dict[str, Any]:
    """What the first certificate of a PEM text says."""
    certificate = x509.load_pem_x509_certificate(pem)

    def name(oid: x509.ObjectIdentifier) -> str:
        return next((str(entry.value) for entry in certificate.subject.get_attributes_for_oid(oid)), "")

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = list(alternatives.get_values_for_type(x509.DNSName))
        ips = [str(entry) for entry in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        dns, ips = [], []
    public = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "not_before": _epoch(certificate, "not_valid_before"),
        "not_after": _epoch(certificate, "not_valid_after"),
        "common_name": name(NameOID.COMMON_NAME),
        "organization": name(NameOID.ORGANIZATION_NAME),
        "dns": dns,
        "ips": ips,
        "public_key": public.hex(),
    }


def _epoch(certificate: x509.Certificate, field: str) -> float:
    # The *_utc names came with cryptography 42; Debian 12 has 38.
    moment: datetime = getattr(certificate, f"{field}_utc", None) or getattr(certificate, field).replace(tzinfo=timezone.utc)
    return moment.timestamp()


def main() -> int:
    """One order, one answer."""
    try:
        json.dump(answer(json.load(sys.stdin)), sys.stdout)
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
