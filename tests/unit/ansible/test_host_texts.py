# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML that we write is TOML that everybody reads; dates of certificates are read as the certificate says."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
import toml
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.certificate_dates import validity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import to_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_any_document_survives(document: dict[str, Any]) -> None:
    assert tomlkit.parse(to_toml(document)).unwrap() == document


def test_the_reader_of_hosts_with_an_old_python_reads_what_an_agent_gets() -> None:
    document = {"name": "pi1", "labels": {"sensor": "humidity", "a/b": ""}, "server": {"port": 10250, "hosts": ["10.0.0.1", "ä \n"]}}
    assert toml.loads(to_toml(document)) == document


def test_sections_come_after_plain_values_and_null_is_left_out() -> None:
    document = {"server": {"port": 10250}, "name": "pi1", "nothing": None, "taints": {}}
    assert to_toml(document) == 'name = "pi1"\n\n[server]\nport = 10250\n\n[taints]\n'


@pytest.mark.parametrize("value", [b"bytes", object(), 2**63, {1: 2}, "\ud800"])
def test_what_toml_cannot_carry_is_told_with_its_key(value: Any) -> None:
    with pytest.raises(UnifleetError):
        to_toml({"key": value})


def test_infinity_is_written_as_toml_writes_it() -> None:
    assert math.isinf(float(tomlkit.parse(to_toml({"x": math.inf})).unwrap()["x"]))


def certificate(before: datetime.datetime, after: datetime.datetime, name: str = "test") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    signed = builder.serial_number(x509.random_serial_number()).not_valid_before(before).not_valid_after(after).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


MOMENTS = st.datetimes(datetime.datetime(1951, 1, 1), datetime.datetime(2120, 1, 1), timezones=st.just(datetime.timezone.utc))


@given(MOMENTS, st.integers(0, 10**9), st.text("abc", min_size=1, max_size=64))
def test_dates_before_and_after_2050_are_read_right(before: datetime.datetime, seconds: int, name: str) -> None:
    before = before.replace(microsecond=0)
    after = before + datetime.timedelta(seconds=seconds)
    assert validity("KEY AND OTHER TEXT\n" + certificate(before, after, name)) == (before.timestamp(), after.timestamp())


@given(st.binary(max_size=200))
def test_any_bytes_in_a_pem_are_refused_not_crashed_on(data: bytes) -> None:
    import base64

    with pytest.raises(UnifleetError):
        validity(f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(data).decode()}\n-----END CERTIFICATE-----")


def test_a_file_without_a_certificate_is_refused() -> None:
    with pytest.raises(UnifleetError, match="no PEM certificate"):
        validity("hello")
