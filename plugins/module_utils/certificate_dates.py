# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From when until when a certificate is valid, read with the standard library alone: hosts that are checked need nothing installed."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime, timezone

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def validity(pem: str) -> tuple[float, float]:
    """not before and not after of the first certificate in a PEM file, as seconds since the epoch. Raises UnifleetError.

    RFC 5280, 4.1: Certificate = SEQUENCE {TBSCertificate, ...}; TBSCertificate = SEQUENCE {[0] version, serial number, signature
    algorithm, issuer, Validity = SEQUENCE {time, time}, ...}.
    """
    found = _PEM.search(pem)
    if not found:
        raise UnifleetError("there is no PEM certificate in it")
    try:
        certificate, _rest = _element(base64.b64decode("".join(found.group(1).split()), validate=True), _SEQUENCE)
        body, _rest = _element(certificate, _SEQUENCE)
        if body[:1] == bytes([_VERSION]):
            _version, body = _element(body)
        for _skipped in ("serial number", "signature algorithm", "issuer"):
            _content, body = _element(body)
        times, _rest = _element(body, _SEQUENCE)
        before, times = _time(times)
        after, _rest = _time(times)
    except (ValueError, IndexError, binascii.Error) as error:
        raise UnifleetError(f"its PEM certificate cannot be read: {error}") from error
    return before, after


def _element(data: bytes, wanted: int = 0) -> tuple[bytes, bytes]:
    """Content of the first DER element, and what follows it."""
    tag, length, start = data[0], data[1], 2
    if wanted and tag != wanted:
        raise ValueError(f"tag {tag:#x} where {wanted:#x} should be")
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("it ends too early")
    return data[start : start + length], data[start + length :]


def _time(data: bytes) -> tuple[float, bytes]:
    tag = data[0]
    if tag not in {_UTC_TIME, _GENERALIZED_TIME}:
        raise ValueError(f"tag {tag:#x} is no time")
    content, rest = _element(data)
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    return moment.timestamp(), rest
