# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a user says to what is packed, and what is read back of a layout on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import content_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import Source, parse_source
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_summary import summarize
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import LayoutDirectory, pack, remove, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ExitRule, Hardware


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(b"kernel")
    return path


def test_everything_that_is_said_is_in_the_image(kernel: Path) -> None:
    content = content_of(
        {
            "kernels": {"kvm/amd64": str(kernel), "process/arm": str(kernel)},
            "family": "unikraft",
            "initrds": {"kvm/amd64": str(kernel)},
            "files": {"/etc/name": str(kernel)},
            "fixed_args": ["a"],
            "args": ["b"],
            "env": {"N": 1},
            "labels": {"l": "m"},
            "memory": "16Mi",
            "stop": "kill",
            "network": True,
            "hardware": {"kvm/amd64": {"machine": "q35"}},
            "exit": {"codes": {42: 134}},
            "split": True,
        }
    )
    profile = content.profile
    assert profile.kernels == {"kvm/amd64": "/boot/kvm-amd64", "process/arm": "/bin/process-arm"}
    assert (profile.family, profile.memory_bytes, profile.can_shut_down, profile.network) == ("unikraft", 16 << 20, False, True)
    assert profile.hardware == {"kvm/amd64": Hardware("q35")}
    assert profile.exit_rule == ExitRule("", {42: 134})
    assert sorted(content.files) == ["bin/process-arm", "boot/initrd-kvm-amd64", "boot/kvm-amd64", "etc/name"]
    assert (content.fixed_args, content.args, content.env, content.labels, content.split) == (
        ("a",),
        ("b",),
        (("N", "1"),),
        {"l": "m"},
        True,
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": {"kvm/amd64": {"machine": "isapc"}}}, r"machine 'isapc' \(allowed: pc, q35, microvm\)"),
        ({"hardware": {"kvm/arm64": {"machine": "virt"}}}, "hardware for 'kvm/arm64', which has no kernel"),
        ({"exit": {"regex": ".*"}}, "exit.regex"),
        ({"kernels": {"vmware/amd64": "/k"}}, "a kernel for 'vmware/amd64'"),
        ({"kernels": {}}, "kernels"),
        ({"kernels": {"kvm/amd64": "/no/such/kernel"}}, "/no/such/kernel cannot be read"),
        ({"kernels": {"kvm/amd64": None}}, "is not the path of a file"),
        ({"files": {"/boot/kvm-amd64": "/etc/passwd"}}, "two different files"),
        ({"files": {"/unikernel.json": "/etc/passwd"}}, "cannot be given"),
        ({"files": {"/etc/../x": "/etc/passwd"}}, "is not a path in an image"),
        ({"memory": "lots"}, "memory 'lots'"),
        ({"stop": "later"}, "stop 'later'"),
        ({"tender": "/bin/solo5-hvt"}, "tender is to be at /bin/solo5-hvt in the image, but nothing is put there"),
        ({"parameters": ["a b"]}, "the parameter 'a b'"),
        ({"family_version": "new"}, "family_version 'new'"),
    ],
)
def test_what_cannot_be_packed_is_refused_and_named(kernel: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnifleetError, match=said):
        pack(content_of({"kernels": {"kvm/amd64": str(kernel)}, **changes}))


@pytest.mark.parametrize(
    ("text", "directory", "tag"),
    [("oci:a/b", "a/b", ""), ("oci:a/b:1", "a/b", "1"), ("oci:/a:b/c", "/a:b/c", ""), ("oci:./x:latest", "x", "latest")],
)
def test_a_directory_is_named_with_or_without_a_tag(text: str, directory: str, tag: str) -> None:
    assert parse_source(text) == Source(directory=Path(directory), tag=tag)


@pytest.mark.parametrize("text", ["oci:", "oci::1", "registry.example/UPPER", ""])
def test_what_names_neither_a_registry_nor_a_directory_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError):
        parse_source(text)


def test_a_layout_is_read_back_and_whatever_is_wrong_in_it_is_named(tmp_path: Path, kernel: Path) -> None:
    layout = pack(content_of({"kernels": {"kvm/amd64": str(kernel), "xen/amd64": str(kernel)}, "split": True}))
    directory = tmp_path / "layout"
    write(layout, directory, "1")
    found = LayoutDirectory(directory)
    assert found.tags() == {"1": layout.digest}
    assert found.digest() == found.digest("1") == layout.digest
    found.verify(layout.digest)
    with pytest.raises(UnifleetError, match="no image 2; it has 1"):
        found.digest("2")
    summary = summarize(found.blob(layout.digest), found.blob, found.config)
    assert summary["size"] == layout.size
    assert [entry["platform"] for entry in summary["platforms"]] == ["linux/amd64", "linux/amd64+kvm", "linux/amd64+xen"]
    for blob in sorted((directory / "blobs/sha256").iterdir()):
        good = blob.read_bytes()
        blob.write_bytes(good[:-1])
        with pytest.raises(UnifleetError, match=f"{blob.name} is corrupt"):
            found.verify(layout.digest)
        blob.write_bytes(good)
    remove(directory)
    assert not directory.exists()


def test_a_directory_that_is_no_layout_is_neither_read_nor_removed(tmp_path: Path, kernel: Path) -> None:
    for act in (LayoutDirectory, remove):
        with pytest.raises(UnifleetError, match="not an OCI image layout"):
            act(tmp_path)
    assert kernel.exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"{}", b'{"manifests": 3}', b'{"manifests": [3]}', b'{"config": {"size": "x"}, "layers": [1]}']
)
def test_a_summary_of_anything_is_a_summary_or_a_clear_error(content: bytes) -> None:
    try:
        json.dumps(summarize(content, lambda _digest: content, lambda _digest: b"{}"))
    except UnifleetError as error:
        assert error.hint  # noqa: PT017
