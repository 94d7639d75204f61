# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/unikernel.json: what is read, and how what is wrong is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile, parse_profile, profile_bytes

GOOD: dict[str, Any] = {"version": 1, "family": "plain", "kernels": {"kvm/amd64": "/boot/k"}}


def parse(**changes: Any) -> Profile:
    return parse_profile(json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value != "ABSENT"}).encode())


def test_the_shortest_profile_leaves_all_else_to_the_family() -> None:
    assert parse() == Profile("plain", {"kvm/amd64": "/boot/k"}, None, 0, None, False)


def test_every_key_is_read() -> None:
    profile = parse(initrd="/boot/i", memory="8Mi", stop="kill", network=True, kernels={"xen/arm64": "/a/b", "process/arm": "/c"})
    assert profile == Profile("plain", {"xen/arm64": "/a/b", "process/arm": "/c"}, "/boot/i", 8 << 20, False, True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version 2"),
        ({"version": True}, "version True"),
        ({"version": "ABSENT"}, "version None"),
        ({"family": "Plain"}, "family 'Plain'"),
        ({"family": "ABSENT"}, "family None"),
        ({"kernels": {}}, "kernels"),
        ({"kernels": ["/k"]}, "kernels"),
        ({"kernels": {"kvm": "/k"}}, "kernel for 'kvm'"),
        ({"kernels": {"vmware/amd64": "/k"}}, "kernel for 'vmware/amd64'"),
        ({"kernels": {"kvm/x86_64": "/k"}}, "kernel for 'kvm/x86_64'"),
        ({"kernels": {"kvm/amd64": "k"}}, r"kernels\[kvm/amd64\] 'k'"),
        ({"kernels": {"kvm/amd64": "/a/../../etc/shadow"}}, "shadow"),
        ({"kernels": {"kvm/amd64": "//k"}}, "//k"),
        ({"kernels": {"kvm/amd64": "/k\n"}}, "kernels"),
        ({"kernels": {"kvm/amd64": "/" + "k" * 2000}}, "kernels"),
        ({"kernels": {"kvm/amd64": 5}}, "kernels"),
        ({"initrd": "../i"}, "initrd"),
        ({"memory": "8MB"}, "memory '8MB'"),
        ({"memory": "0"}, "memory"),
        ({"memory": "9999999Gi"}, "memory"),
        ({"memory": 4096}, "memory 4096"),
        ({"memory": 1e9}, "memory"),
        ({"memory": True}, "memory True"),
        ({"stop": "later"}, "stop 'later'"),
        ({"network": "yes"}, "network 'yes'"),
        ({"domain_xml": "<x/>"}, "unknown key 'domain_xml'"),
    ],
)
def test_what_is_wrong_is_refused_and_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnifleetError, match=named):
        parse(**changes)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 60000, b'{"version":1,"version":1}', b" " * 65537, b'{"a":NaN}']
)
def test_bytes_that_are_no_such_document_are_refused(content: bytes) -> None:
    with pytest.raises(UnifleetError, match=r"/unikernel\.json"):
        parse_profile(content)


@given(
    st.builds(
        Profile,
        family=st.sampled_from(["plain", "unikraft"]),
        kernels=st.dictionaries(st.sampled_from(["kvm/amd64", "xen/arm64", "process/arm"]), st.just("/boot/k"), min_size=1),
        initrd=st.one_of(st.none(), st.just("/boot/i")),
        memory_bytes=st.one_of(st.just(0), st.integers(1 << 20, 1 << 40)),
        can_shut_down=st.one_of(st.none(), st.booleans()),
        network=st.booleans(),
    )
)
def test_what_is_written_reads_back_as_itself(profile: Profile) -> None:
    assert parse_profile(profile_bytes(profile)) == profile


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda c: st.lists(c) | st.dictionaries(st.text(max_size=5), c),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["version", "family", "kernels", "initrd", "memory", "stop", "network", "x"]), JSON))
def test_any_document_is_a_profile_or_one_clear_error(document: dict[str, Any]) -> None:
    try:
        parse_profile(json.dumps({**GOOD, **document}).encode())
    except UnifleetError as error:
        assert error.hint  # noqa: PT017
