# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references: the grammar of the distribution project, and what stands in for parts that are left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("humidity-daemon", "lab:5000/humidity-daemon:latest"),
        ("team/humidity:1.2", "lab:5000/team/humidity:1.2"),
        ("10.0.0.1:5000/x", "10.0.0.1:5000/x:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("Upper/x", "Upper/x:latest"),
        ("[fd00::1]:5000/x:t", "[fd00::1]:5000/x:t"),
        ("example.org/a/b__c/d-e.f", "example.org/a/b__c/d-e.f:latest"),
        (f"x@sha256:{HEX}", f"lab:5000/x@sha256:{HEX}"),
        (f"r.example/x:t@sha256:{HEX}", f"r.example/x:t@sha256:{HEX}"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/me/alpine:3", "docker.io/me/alpine:3"),
    ],
)
def test_a_short_reference_is_completed(text: str, whole: str) -> None:
    assert str(parse_reference(text, "lab:5000")) == whole


def test_without_a_default_registry_names_are_docker_hubs() -> None:
    assert str(parse_reference("alpine")) == "docker.io/library/alpine:latest"
    assert str(parse_reference("me/alpine")) == "docker.io/me/alpine:latest"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("UPPER", "lower case"),
        ("a b", "not a repository name"),
        ("x:", "not a tag"),
        ("x:-t", "not a tag"),
        ("x:" + "t" * 129, "not a tag"),
        ("x@sha256:abc", "not a digest"),
        ("x@md5:" + HEX, "not a digest"),
        (f"x@sha256:{HEX}\n", "not a digest"),
        ("a//b", "not a repository name"),
        ("a/../b", "not a repository name"),
        ("/a", "not a repository name"),
        ("r.example/", "not a repository name"),
        ("http://r.example/x", "'http:' is not a registry"),
        ("-r.example/x", "not a registry"),
        ("r.example:port/x", "not a registry"),
        ("x" * 256, "longer than 255"),
        ("--help", "not a repository name"),
        ("x\n", "not a repository name"),
    ],
)
def test_a_wrong_reference_is_refused_and_the_wrong_part_named(text: str, named: str) -> None:
    with pytest.raises(UnifleetError, match=named):
        parse_reference(text, "lab:5000")


COMPONENT = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(
    domain=st.sampled_from(["lab:5000", "r.example", "localhost", "10.0.0.1:80", "[::1]:5000"]),
    path=st.lists(COMPONENT, min_size=1, max_size=4).map("/".join),
    tag=st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)),
    digest=st.sampled_from(["", "sha256:" + HEX]),
)
def test_every_whole_reference_reads_back_as_itself(domain: str, path: str, tag: str, digest: str) -> None:
    text = f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = parse_reference(text)
    assert (reference.domain, reference.path, reference.digest) == (domain, path, digest)
    assert reference.tag == (tag or ("" if digest else "latest"))
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_one_clear_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UnifleetError as error:
        assert error.hint  # noqa: PT017
    else:
        assert parse_reference(str(reference)) == reference
        assert not str(reference).startswith("-")
