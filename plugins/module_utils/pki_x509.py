# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and X.509 certificates for a cluster's own authorities: the only file that knows the `cryptography` package.

Everything takes and returns PEM bytes, so that callers can be pure and never hold library objects. All keys are ECDSA P-256: every
Kubernetes since 1.10 and etcd since 3.2 accept them, they are quick to make on a Raspberry Pi, and the service account signer
takes them as well (ES256). Works with cryptography 38 (Debian 12) and later, which renamed the validity attributes to *_utc.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

CLOCK_SKEW = datetime.timedelta(minutes=5)
"""How far a certificate's start is dated back, so that a host whose clock lags can use it at once."""


@dataclass(frozen=True)
class CertificateSpec:
    """What one certificate must say.

    name is its file's stem; authority is the name of the certificate that signs it, or "" for a self-signed authority.
    """

    name: str
    authority: str
    common_name: str
    organizations: tuple[str, ...] = ()
    server: bool = False
    client: bool = False
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def is_authority(self) -> bool:
        return not self.authority


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate on disk says, for comparing with a spec; times are UTC and aware."""

    common_name: str
    organizations: tuple[str, ...]
    server: bool
    client: bool
    is_authority: bool
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    public_key: bytes

    def life_left(self, now: datetime.datetime) -> float:
        """Fraction of the whole life that is still ahead: 1.0 when new, 0.0 or less when expired."""
        life = (self.not_after - self.not_before).total_seconds()
        return (self.not_after - now).total_seconds() / life if life > 0 else 0.0


def make_key() -> bytes:
    """A new private key as unencrypted PKCS#8 PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key(key_pem: bytes) -> bytes:
    """The public half of a private key, as SubjectPublicKeyInfo PEM."""
    return _public_pem(_load_key(key_pem).public_key())


def issue(
    spec: CertificateSpec,
    key_pem: bytes,
    authority: Optional[tuple[bytes, bytes]],
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> bytes:
    """Sign what the spec says for this key; authority is (certificate, key) of the signer, None for a self-signed authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in spec.organizations]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name)])
    key = _load_key(key_pem)
    if authority is None:
        signer, issuer, signer_public = key, subject, key.public_key()
    else:
        parent = x509.load_pem_x509_certificate(authority[0])
        signer, issuer, signer_public = _load_key(authority[1]), parent.subject, parent.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=spec.is_authority, path_length=None), critical=True)
        .add_extension(_key_usage(spec.is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_public), critical=False)
    )
    usages = [
        oid for wanted, oid in ((spec.server, ExtendedKeyUsageOID.SERVER_AUTH), (spec.client, ExtendedKeyUsageOID.CLIENT_AUTH)) if wanted
    ]
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    names: list[Any] = [x509.DNSName(name) for name in spec.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in spec.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    from cryptography.hazmat.primitives import serialization

    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_certificate(pem: bytes) -> CertificateFacts:
    """What a PEM certificate says; UnifleetError when it is not one."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        usages = list(_extension(certificate, x509.ExtendedKeyUsage) or [])
        names = _extension(certificate, x509.SubjectAlternativeName)
        constraints = _extension(certificate, x509.BasicConstraints)
        return CertificateFacts(
            common_name=_first(certificate.subject, NameOID.COMMON_NAME),
            organizations=tuple(str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
            server=ExtendedKeyUsageOID.SERVER_AUTH in usages,
            client=ExtendedKeyUsageOID.CLIENT_AUTH in usages,
            is_authority=bool(constraints and constraints.ca),
            dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
            addresses=tuple(str(item) for item in names.get_values_for_type(x509.IPAddress)) if names else (),
            not_before=_utc(certificate, "not_valid_before"),
            not_after=_utc(certificate, "not_valid_after"),
            public_key=_public_pem(certificate.public_key()),
        )
    except ValueError as error:
        raise UnifleetError(f"not a certificate: {error}") from error


def is_signed_by(certificate_pem: bytes, authority_pem: bytes) -> bool:
    """Whether the authority's key really signed the certificate (names alone prove nothing)."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate, authority = x509.load_pem_x509_certificate(certificate_pem), x509.load_pem_x509_certificate(authority_pem)
    key = authority.public_key()
    algorithm = certificate.signature_hash_algorithm
    if certificate.issuer != authority.subject or not isinstance(key, ec.EllipticCurvePublicKey) or algorithm is None:
        return False
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class RequestFacts:
    """What a certificate request asks for; other_names counts alternative names that are neither DNS names nor addresses."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    other_names: int


def read_request(pem: bytes) -> RequestFacts:
    """What a PEM certificate request asks for; UnifleetError when it is damaged or its own signature is wrong."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        request = x509.load_pem_x509_csr(pem)
        signed = request.is_signature_valid
        names = _extension(request, x509.SubjectAlternativeName)
    except ValueError as error:
        raise UnifleetError(f"not a certificate request: {error}") from error
    if not signed:
        raise UnifleetError("the certificate request is not signed by the key it names")
    dns = tuple(names.get_values_for_type(x509.DNSName)) if names else ()
    addresses = tuple(str(item) for item in names.get_values_for_type(x509.IPAddress)) if names else ()
    return RequestFacts(
        common_name=_first(request.subject, NameOID.COMMON_NAME),
        organizations=tuple(str(item.value) for item in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        dns_names=dns,
        addresses=addresses,
        other_names=len(list(names)) - len(dns) - len(addresses) if names else 0,
    )


def fingerprint(*contents: bytes) -> str:
    """16 hex digits that change when any of the contents does."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _load_key(pem: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise UnifleetError(f"not a private key: {error}") from error


def _public_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def _key_usage(authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _extension(holder: Any, kind: Any) -> Any:
    from cryptography import x509

    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _first(name: Any, oid: Any) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _utc(certificate: Any, attribute: str) -> datetime.datetime:
    aware = getattr(certificate, attribute + "_utc", None)
    if aware is None:
        aware = getattr(certificate, attribute).replace(tzinfo=datetime.timezone.utc)
    moment: datetime.datetime = aware
    return moment
