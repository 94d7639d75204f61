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
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import (
    ExitRule,
    Hardware,
    Profile,
    parse_profile,
    profile_bytes,
)

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
        ({"family_version": "latest"}, "family_version 'latest'"),
        ({"family_version": 1}, "family_version 1"),
        ({"parameters": "quiet"}, "parameters 'quiet'"),
        ({"parameters": ["a b"]}, "parameter 'a b'"),
        ({"parameters": ["--"]}, "parameter '--'"),
        ({"parameters": ["a"] * 33}, "parameters"),
        ({"tender": "solo5-hvt"}, "tender 'solo5-hvt'"),
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
        ({"domain_xml": "<x/>"}, "unknown key 'domain_xml'.*cannot bring libvirt XML"),
        ({"qemu_args": ["-hda"]}, "unknown key 'qemu_args'.*known: version, family"),
        ({"initrds": {"kvm/arm64": "/i"}}, "initrds for 'kvm/arm64', which has no kernel"),
        ({"initrds": {"kvm/amd64": "i"}}, r"initrds\[kvm/amd64\] 'i'"),
        ({"initrds": ["/i"]}, "initrds"),
        ({"hardware": {"machine": "q35"}}, "hardware for 'machine', which has no kernel"),
        ({"hardware": {"kvm/amd64": "q35"}}, r"hardware\[kvm/amd64\] 'q35'"),
        ({"hardware": {"kvm/amd64": {"xml": "<devices/>"}}}, r"hardware\[kvm/amd64\].xml.*cannot bring libvirt XML"),
        ({"hardware": {"kvm/amd64": {"machine": "isapc"}}}, r"machine 'isapc'.*allowed: pc, q35, microvm"),
        ({"hardware": {"kvm/amd64": {"machine": ["pc"]}}}, r"machine \['pc'\]"),
        ({"hardware": {"kvm/amd64": {"machine": "microvm", "nic": "e1000"}}}, r"nic 'e1000'.*allowed: virtio"),
        ({"hardware": {"kvm/amd64": {"nic": "e1000e"}}}, r"nic 'e1000e'"),
        ({"hardware": {"kvm/amd64": {"console": "vga"}}}, r"console 'vga'.*allowed: serial, virtio"),
        ({"kernels": {"process/arm": "/k"}, "hardware": {"process/arm": {}}}, r"hardware\[process/arm\].*only kvm/amd64"),
        ({"exit": 5}, "exit 5"),
        ({"exit": {"regex": ".*"}}, "unknown key 'exit.regex'.*known: prefix, codes, silent"),
        ({"exit": {"prefix": "a\nb"}}, "exit.prefix"),
        ({"exit": {"prefix": "x" * 65}}, "exit.prefix"),
        ({"exit": {"prefix": "\ud800"}}, "exit.prefix"),
        ({"exit": {"codes": {"256": 1}}}, "exit.codes for '256'"),
        ({"exit": {"codes": {"²": 1}}}, "exit.codes for '²'"),
        ({"exit": {"codes": {"1": 300}}}, r"exit.codes\[1\] 300"),
        ({"exit": {"silent": True}}, "exit.silent True"),
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
        family_version=st.sampled_from(["", "0.16.1", "v0.17.0-8a9b"]),
        parameters=st.lists(st.sampled_from(["loglevel=3", "vfs.fstab=[", "]"]), max_size=3).map(tuple),
        tender=st.sampled_from([None, "/bin/solo5-hvt"]),
        exit_rule=st.one_of(
            st.none(),
            st.builds(
                ExitRule,
                st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
                st.dictionaries(st.integers(0, 255), st.integers(0, 255)),
                st.one_of(st.none(), st.integers(0, 255)),
            ),
        ),
    )
)
def test_what_is_written_reads_back_as_itself(profile: Profile) -> None:
    assert parse_profile(profile_bytes(profile)) == profile


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda c: st.lists(c) | st.dictionaries(st.text(max_size=5), c),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["version", "family", "kernels", "initrd", "initrds", "memory", "stop", "network", "hardware", "exit", "x"]), JSON
    )
)
def test_any_document_is_a_profile_or_one_clear_error(document: dict[str, Any]) -> None:
    try:
        parse_profile(json.dumps({**GOOD, **document}).encode())
    except UnifleetError as error:
        assert error.hint  # noqa: PT017


@given(
    st.dictionaries(st.sampled_from(["machine", "nic", "console", "x"]), JSON),
    st.dictionaries(st.sampled_from(["prefix", "codes", "silent"]), JSON),
)
def test_any_hardware_and_exit_is_taken_or_one_clear_error(hardware: dict[str, Any], exit_rule: dict[str, Any]) -> None:
    for document in ({"hardware": {"kvm/amd64": hardware}}, {"exit": exit_rule}):
        try:
            profile = parse_profile(json.dumps({**GOOD, **document}).encode())
        except UnifleetError as error:
            assert error.hint  # noqa: PT017
        else:
            assert profile_bytes(parse_profile(profile_bytes(profile))) == profile_bytes(profile)


def test_hardware_is_read_for_the_kernel_that_it_is_for() -> None:
    kernels = {"kvm/amd64": "/k", "kvm/arm64": "/a", "xen/amd64": "/x"}
    hardware = {"kvm/amd64": {"machine": "q35", "nic": "e1000e", "console": "virtio"}, "xen/amd64": {"machine": "pvh"}}
    profile = parse(kernels=kernels, hardware=hardware)
    assert profile.hardware == {"kvm/amd64": Hardware("q35", "e1000e", "virtio"), "xen/amd64": Hardware("pvh")}
    assert profile.only(["kvm/arm64"]).hardware == {}
    assert profile.only(["xen/amd64"]).kernels == {"xen/amd64": "/x"}


def test_each_kernel_may_have_its_own_initrd_and_a_process_has_none() -> None:
    kernels = {"kvm/amd64": "/k", "kvm/arm64": "/a", "process/arm64": "/p"}
    profile = parse(kernels=kernels, initrd="/i", initrds={"kvm/arm64": "/j"})
    assert [profile.initrd_of(target) for target in kernels] == ["/i", "/j", None]
    assert profile.only(["kvm/arm64", "process/arm64"]).initrd is None


@pytest.mark.parametrize(
    ("rule", "console", "said", "code"),
    [
        (ExitRule(), b"bye\n", 3, 3),
        (ExitRule(), b"bye\n", None, None),
        (ExitRule(silent=0), b"bye\n", None, 0),
        (ExitRule(codes={42: 134}), b"", 42, 134),
        (ExitRule(codes={42: 134}), b"", 41, 41),
        (ExitRule("exit code: "), b"hello\r\nexit code: 7\r\n", None, 7),
        (ExitRule("exit code: ", {7: 0}), b"exit code: 7", None, 0),
        (ExitRule("exit code: "), b"exit code: 7\nmore\n", None, None),
        (ExitRule("exit code: "), b"exit code: 7a\n", None, None),
        (ExitRule("exit code: "), b"the exit code: 7\n", 2, 2),
        (ExitRule("exit code: "), b"exit code: 999\n", None, 231),
        (ExitRule("exit code: ", silent=9), b"", None, 9),
        (ExitRule("exit code: "), b"exit code: \xff\n", None, None),
    ],
)
def test_an_exit_rule_says_what_the_end_of_a_console_means(rule: ExitRule, console: bytes, said: int | None, code: int | None) -> None:
    assert rule.code(console, said) == code
