# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON without json is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_is_read_again_by_everybody(value: Any) -> None:
    text = document.dumps(value)
    assert "\n" not in text
    assert json.loads(text) == value
    assert document.loads(text.encode(), "it") == value


@given(JSON)
def test_what_others_wrote_is_read_alike(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    assert document.loads(b" \n" + text + b"\t", "it") == json.loads(text)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0123456789.eE-+truefalsn \\u\x00', max_size=40).map(str.encode))
def test_what_is_no_json_is_refused_where_json_refuses_it(text: bytes) -> None:
    try:
        expected = json.loads(text.decode())
    except (ValueError, RecursionError):
        with pytest.raises(UnifleetError, match=r"^it is not"):
            document.loads(text, "it")
    else:
        assert repr(document.loads(text, "it")) == repr(expected)


@pytest.mark.parametrize("text", [b"[" * 100000, b'{"a":' * 100000])
def test_a_bottomless_document_is_refused(text: bytes) -> None:
    with pytest.raises(UnifleetError):
        document.loads(text, "it")
