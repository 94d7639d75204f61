# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bundles are unikernels, what is booted of them, with how much memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import unikernel
from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
from ansible_collections.unifleet.hybrid.plugins.host.runu.config import Config, read
from ansible_collections.unifleet.hybrid.plugins.host.runu.unikernel import Unikernel
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit


def bundle(directory: Path, profile: Any = None, **config: Any) -> Bundle:
    (directory / "rootfs/boot").mkdir(parents=True, exist_ok=True)
    (directory / "rootfs/boot/k").write_bytes(b"kernel")
    if profile is not None:
        (directory / "rootfs/unikernel.json").write_text(profile if isinstance(profile, str) else json.dumps(profile))
    return Bundle(str(directory), {"ociVersion": "1.0.2", **config})


KVM = {"version": 1, "family": "plain", "kernels": {"kvm/amd64": "/boot/k"}}
PROGRAM = {"version": 1, "family": "plain", "kernels": {"process/amd64": "/boot/k"}}


def test_an_image_with_a_kernel_for_this_node_is_a_unikernel(tmp_path: Path) -> None:
    assert unikernel.is_unikernel(bundle(tmp_path, KVM), "amd64")
    found = unikernel.find(bundle(tmp_path, KVM), Config(), "amd64")
    assert (found.family, os.pread(found.kernel, 99, 0)) == ("plain", b"kernel")


def test_an_image_with_a_program_and_no_kernel_is_a_container(tmp_path: Path) -> None:
    assert not unikernel.is_unikernel(bundle(tmp_path, PROGRAM), "amd64")


def test_an_image_for_other_nodes_is_a_unikernel_that_says_what_it_is_for(tmp_path: Path) -> None:
    made = bundle(tmp_path, {**KVM, "kernels": {"kvm/arm64": "/boot/k"}})
    assert unikernel.is_unikernel(made, "amd64")
    with pytest.raises(UnifleetError, match="kvm/arm64"):
        unikernel.find(made, Config(), "amd64")


def test_an_ordinary_image_and_a_pause_container_are_not(tmp_path: Path) -> None:
    assert not unikernel.is_unikernel(bundle(tmp_path), "amd64")
    assert not unikernel.is_unikernel(bundle(tmp_path, KVM, annotations={"io.kubernetes.cri.container-type": "sandbox"}), "amd64")


@pytest.mark.parametrize(
    "profile", ["{", "[]", '{"version": 9}', json.dumps({**KVM, "kernels": {"kvm/amd64": "/boot/../../../../etc/passwd"}})]
)
def test_a_broken_profile_is_an_error_and_not_a_container(tmp_path: Path, profile: str) -> None:
    made = bundle(tmp_path, profile)
    assert unikernel.is_unikernel(made, "amd64")
    with pytest.raises(UnifleetError, match=r"unikernel\.json"):
        unikernel.find(made, Config(), "amd64")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_kernel_that_is_no_file_of_the_image_is_refused(tmp_path: Path, kind: str) -> None:
    made = bundle(tmp_path, KVM)
    kernel = tmp_path / "rootfs/boot/k"
    kernel.unlink()
    {"link": lambda: kernel.symlink_to("/etc/passwd"), "fifo": lambda: os.mkfifo(kernel), "directory": kernel.mkdir}[kind]()
    with pytest.raises(UnifleetError, match="/boot/k"):
        unikernel.find(made, Config(), "amd64")


def test_a_profile_that_is_a_link_out_of_the_image_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text(json.dumps(KVM))
    made = bundle(tmp_path)
    (tmp_path / "rootfs/unikernel.json").symlink_to("../outside.json")
    assert unikernel.is_unikernel(made, "amd64")
    with pytest.raises(UnifleetError, match="leads out"):
        unikernel.find(made, Config(), "amd64")


def test_only_what_the_administrator_allows_is_heeded() -> None:
    said = {"io.unifleet.memory": "1Gi", "io.unifleet.stop": "kill", "org.example": "x"}
    assert unikernel.heeded(said, ["io.unifleet."]) == {"io.unifleet.memory": "1Gi", "io.unifleet.stop": "kill"}
    assert unikernel.heeded(said, ["io.unifleet.stop", "org."]) == {"io.unifleet.stop": "kill"}
    assert unikernel.heeded(said, []) == {}


def test_annotations_change_memory_and_stop(tmp_path: Path) -> None:
    made = bundle(tmp_path, KVM, annotations={"io.unifleet.memory": "32Mi", "io.unifleet.stop": "kill"})
    found = unikernel.find(made, Config(), "amd64")
    assert (found.memory, found.can_shut_down) == (32 << 20, False)
    assert unikernel.find(made, Config({"annotations": []}), "amd64").memory == 0


@given(st.text(max_size=12))
def test_any_quantity_is_read_or_refused(text: str) -> None:
    try:
        assert unikernel.quantity("key", text) >= 0
    except UnifleetError as error:
        assert "key" in error.message  # noqa: PT017


MEBI = 1 << 20


@pytest.mark.parametrize(
    ("limit", "above", "asked", "floor", "given_bytes"),
    [
        (0, None, 0, 0, 64),
        (0, None, 0, 128, 128),
        (256, None, 0, 8, 256),
        (256, 288, 0, 8, 256),
        (256, 256, 0, 8, 224),
        (256, None, 100, 8, 100),
        (64, None, 100, 8, 64),
    ],
)
def test_the_guest_gets_the_limit_as_far_as_the_groups_above_leave_room(
    limit: int, above: Any, asked: int, floor: int, given_bytes: int
) -> None:
    found = Unikernel("plain", -1)
    found.memory, found.memory_floor = asked * MEBI, floor * MEBI
    room = None if above is None else above * MEBI
    assert unikernel.memory_of(found, limit * MEBI, room, 32 * MEBI, 64 * MEBI) == given_bytes * MEBI


def test_too_little_memory_is_refused() -> None:
    found = Unikernel("plain", -1)
    found.memory_floor = 16 * MEBI
    with pytest.raises(UnifleetError, match="needs 16777216"):
        unikernel.memory_of(found, 40 * MEBI, 40 * MEBI, 32 * MEBI, 64 * MEBI)


VM = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "/etc/passwd", "/dev/zero", "x", "raw"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["path", "parameters", "kernel", "initrd", "image", "format", "hypervisor", "hwConfig", "memory", "vcpus"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(VM)
def test_any_vm_object_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, vm: Any) -> None:
    made = Bundle("/bundle", {"ociVersion": "1.0.2", "vm": vm if vm is not None else {}})
    try:
        found = unikernel.find(made, Config(), "amd64")
    except UnifleetError as error:
        assert error.message  # noqa: PT017
    else:
        assert found.extra == ()
        assert found.program == ""


def test_the_configuration_names_the_key_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runu.json"
    monkeypatch.setenv("UNIFLEET_RUNU_CONFIG", str(path))
    assert read().runc == "runc"
    for text, said in (
        ('{"runk": 1}', "runk"),
        ('{"uids": "x"}', "uids"),
        ('{"first_uid": 0}', "root"),
        ("[]", "object"),
        ('{"machine": "isapc"}', "machine"),
        ('{"memory_default": -1}', "negative"),
    ):
        path.write_text(text)
        with pytest.raises(UnifleetError, match=said):
            read()
    path.write_text('{"accelerator": "tcg", "annotations": []}')
    assert (read().accelerator, read().annotations) == ("tcg", [])
