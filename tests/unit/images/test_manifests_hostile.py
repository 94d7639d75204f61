# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Absurd JSON from a registry: one clear error, soon, whatever it is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import choose, parse_config, parse_manifest
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

DIGEST = "sha256:" + "0" * 64
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[" * 2_000_000, "not JSON"),
        (b'{"a":' * 500_000, "not JSON"),
        (b'{"size": ' + b"9" * 3_000_000 + b"}", "no number"),
        (b'{"size": NaN}', "NaN"),
        (b'{"config": 1, "config": 2}', "twice"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b" " * (5 << 20), "bytes"),
    ],
)
def test_absurd_json_is_refused_soon(content: bytes, named: str) -> None:
    for read in (parse_manifest, parse_config, lambda body: choose(body, "amd64")):
        began = time.monotonic()
        with pytest.raises(UnifleetError, match=named):
            read(content)
        assert time.monotonic() - began < 2


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.sampled_from([DIGEST, DESCRIPTOR])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["mediaType", "digest", "size", "config", "layers", "manifests", "platform", "os", "architecture", "rootfs", "Env", "Cmd"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["config", "layers", "manifests", "mediaType", "schemaVersion", "rootfs", "os"]), JSON, max_size=5))
def test_no_document_of_any_shape_does_more_than_one_clear_error(document: dict[str, Any]) -> None:
    document.setdefault("schemaVersion", 2)
    for read in (parse_manifest, parse_config, lambda body: choose(body, "amd64")):
        try:
            read(json.dumps(document).encode())
        except UnifleetError as error:
            assert error.message  # noqa: PT017
