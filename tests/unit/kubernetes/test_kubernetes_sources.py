# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be fetched, what a wrong table is told, and how Debian's sources are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_sources as sources
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SUM = "a" * 64
TABLE = {"1.33.1": {"amd64": {"kubelet": SUM}}, "1.9.0": {"amd64": {"kubelet": SUM}}}


def test_a_pinned_file_has_its_checksum() -> None:
    assert sources.pinned(TABLE, "1.33.1", "amd64", "kubelet") == SUM


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (("1.34.0", "amd64", "kubelet"), "1.34.0 is not pinned .pinned: 1.9.0, 1.33.1"),
        (("1.33.1", "arm64", "kubelet"), "not pinned for arm64 .pinned: amd64"),
        (("1.33.1", "amd64", "kube-proxy"), "kube-proxy of Kubernetes 1.33.1 is not pinned for amd64"),
    ],
)
def test_what_is_not_pinned_is_named_at_its_level(wanted: tuple[str, str, str], named: str) -> None:
    with pytest.raises(UnifleetError, match=named):
        sources.pinned(TABLE, *wanted)


def test_the_newest_version_is_found_by_number_and_not_by_letter() -> None:
    assert sources.newest(TABLE) == "1.33.1"
    assert sources.newest({}) == ""


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ([], "not a mapping"),
        ({"v1.33.1": {}}, "'v1.33.1' is not a version"),
        ({1.33: {}}, "1.33 is not a version"),
        ({"1.33.1": []}, "1.33.1 is not a mapping"),
        ({"1.33.1": {"amd64": "x"}}, "1.33.1.amd64 is not a mapping"),
        ({"1.33.1": {"amd64": {"kubelet": "abc"}}}, "1.33.1.amd64.kubelet is not a SHA-256"),
        ({"1.33.1": {"amd64": {"kubelet": "A" * 64}}}, "1.33.1.amd64.kubelet is not a SHA-256"),
    ],
)
def test_a_wrong_table_is_told_where(table: object, named: str) -> None:
    with pytest.raises(UnifleetError, match=named):
        sources.check_table(table)


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [("1.20.5+really1.20.2-1.1+deb12u1", "1.20.2"), ("1.20.2-1", "1.20.2"), ("1:1.33.4+ds-1", "1.33.4"), ("1.32.3-2~bpo12+1", "1.32.3")],
)
def test_debians_version_tells_kubernetes_version(debian: str, upstream: str) -> None:
    assert sources.debian_upstream_version(debian) == upstream


def test_a_build_is_known_by_everything_that_goes_into_it() -> None:
    key = sources.build_key(source="1", go="2", architecture="amd64", recipe="1")
    assert key == sources.build_key(recipe="1", architecture="amd64", go="2", source="1")
    assert key != sources.build_key(source="1", go="3", architecture="amd64", recipe="1")


DEB822 = """# a comment
Types: deb deb-src
URIs: http://example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://example.org/only-sources
Suites: bookworm
Components: main

Types: deb
URIs: http://example.org/off
Suites: bookworm
Components: main
Enabled: no
"""


def test_deb822_sources_become_source_stanzas_with_all_else_kept() -> None:
    text = sources.source_stanzas(DEB822, classic=False)
    assert text.count("Types: deb-src") == 1
    assert "Suites: bookworm bookworm-updates" in text
    assert "Signed-By" in text
    assert "/off" not in text


def test_classic_lines_become_source_lines_and_comments_go() -> None:
    text = sources.source_stanzas(
        "deb [signed-by=/k] http://example.org/debian bookworm main\n# deb http://x y z\ndeb-src http://s b main\n", classic=True
    )
    assert text == "deb-src [signed-by=/k] http://example.org/debian bookworm main\n"


def test_the_newest_of_several_source_versions_is_taken() -> None:
    shown = "Package: kubernetes\nVersion: 1.20.5+really1.20.2-1.1\n\nPackage: kubernetes\nVersion: 1.20.5+really1.20.2-1.1+deb12u1\n"
    assert sources.newest_source_version(shown) == "1.20.5+really1.20.2-1.1+deb12u1"
    assert sources.newest_source_version("") == ""


def test_a_program_for_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubelet"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + (183).to_bytes(2, "little"))
    sources.check_architecture(path, "arm64")
    with pytest.raises(UnifleetError, match="is for arm64, not for amd64"):
        sources.check_architecture(path, "amd64")
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(UnifleetError, match="no Linux program"):
        sources.check_architecture(path, "amd64")
