# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image matrix: what is packed for which platform, fat and split, and which entry of an index a host takes."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import choose, choose_entry, entries_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, Layout, digest_of, pack, platform_name
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

TARGETS = ("kvm/amd64", "process/amd64", "xen/amd64", "kvm/arm64", "process/arm64", "process/arm")


def packed(split: bool = False, targets: tuple[str, ...] = TARGETS, **more: Any) -> Layout:
    profile = Profile("plain", {target: f"/boot/{target.replace('/', '-')}" for target in targets}, **more)
    files = {f"boot/{target.replace('/', '-')}": (target.encode(), True) for target in targets}
    files.update({path.lstrip("/"): (path.encode(), False) for path in [*profile.initrds.values(), *filter(None, [profile.initrd])]})
    return pack(ImageContent(profile, {**files, "etc/shared": (b"s", False)}, compression="none", split=split))


def index(layout: Layout) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(layout.blobs[layout.digest])["manifests"]
    return entries


def files_of(layout: Layout, digest: str) -> dict[str, bytes]:
    """All files of one manifest's image, later layers over earlier ones."""
    files = {}
    for layer in json.loads(layout.blobs[digest])["layers"]:
        with tarfile.open(fileobj=io.BytesIO(layout.blobs[layer["digest"]])) as tar:
            for entry in tar:
                body = tar.extractfile(entry)
                if body is not None:
                    files[entry.name] = body.read()
    return files


def test_a_fat_image_has_one_manifest_for_each_architecture_with_all_its_kernels_and_no_others() -> None:
    layout = packed()
    found = {platform_name(entry["platform"]): files_of(layout, entry["digest"]) for entry in index(layout)}
    assert {name: sorted(files) for name, files in found.items()} == {
        "linux/amd64": ["boot/kvm-amd64", "boot/process-amd64", "boot/xen-amd64", "etc/shared", "unikernel.json"],
        "linux/arm/v7": ["boot/process-arm", "etc/shared", "unikernel.json"],
        "linux/arm64": ["boot/kvm-arm64", "boot/process-arm64", "etc/shared", "unikernel.json"],
    }
    assert sorted(json.loads(found["linux/arm64"]["unikernel.json"])["kernels"]) == ["kvm/arm64", "process/arm64"]


def test_a_split_image_lists_the_fat_entries_first_and_then_one_for_each_hypervisor() -> None:
    layout = packed(split=True)
    assert [platform_name(entry["platform"]) for entry in index(layout)] == [
        "linux/amd64",
        "linux/arm/v7",
        "linux/arm64",
        "linux/amd64+kvm",
        "linux/amd64+process",
        "linux/amd64+xen",
        "linux/arm64+kvm",
        "linux/arm64+process",
    ]
    for entry in index(layout)[3:]:
        ((hypervisor,),) = ([feature.rpartition(".")[2] for feature in entry["platform"]["os.features"]],)
        target = f"{hypervisor}/{entry['platform']['architecture']}"
        files = files_of(layout, entry["digest"])
        assert sorted(files) == [f"boot/{target.replace('/', '-')}", "etc/shared", "unikernel.json"]
        assert list(json.loads(files["unikernel.json"])["kernels"]) == [target]


def test_a_split_image_stores_each_kernel_once() -> None:
    layout = packed(split=True)
    holders = [blob for blob in layout.blobs.values() if b"kvm/amd64" in blob and b"ustar" in blob and b"unikernel.json" not in blob]
    assert len(holders) == 1


def test_initrds_go_where_their_kernels_go() -> None:
    layout = packed(split=True, initrd="/boot/i", initrds={"kvm/arm64": "/boot/j"})
    found = {platform_name(entry["platform"]): set(files_of(layout, entry["digest"])) for entry in index(layout)}
    assert [name for name, files in found.items() if "boot/i" in files] == ["linux/amd64", "linux/amd64+kvm", "linux/amd64+xen"]
    assert [name for name, files in found.items() if "boot/j" in files] == ["linux/arm64", "linux/arm64+kvm"]


def test_a_profile_that_names_a_missing_initrd_cannot_be_packed() -> None:
    profile = Profile("plain", {"kvm/amd64": "/k"}, initrds={"kvm/amd64": "/i"})
    with pytest.raises(UnifleetError, match="initrd of kvm/amd64 is to be at /i"):
        pack(ImageContent(profile, {"k": (b"", True)}))


def test_the_profile_cannot_be_given_as_a_file() -> None:
    with pytest.raises(UnifleetError, match="cannot be given"):
        pack(ImageContent(Profile("plain", {"kvm/amd64": "/k"}), {"k": (b"", True), "unikernel.json": (b"{}", False)}))


@pytest.mark.parametrize(
    ("split", "architecture", "hypervisor", "taken", "why"),
    [
        (False, "amd64", "xen", "linux/amd64", "the first entry for linux/amd64"),
        (True, "amd64", "xen", "linux/amd64+xen", "the entry for linux/amd64 that is marked for xen"),
        (True, "amd64", "", "linux/amd64", "the first entry for linux/amd64"),
        (True, "amd64", "simulated", "linux/amd64", "the first entry for linux/amd64"),
        (True, "arm64", "xen", "linux/arm64", "the first entry for linux/arm64"),
        (True, "arm64", "process", "linux/arm64+process", "the entry for linux/arm64 that is marked for process"),
        (True, "arm", "process", "linux/arm/v7", "the first entry for linux/arm"),
    ],
)
def test_a_host_takes_the_entry_of_its_hypervisor_else_the_fat_one(
    split: bool, architecture: str, hypervisor: str, taken: str, why: str
) -> None:
    layout = packed(split=split)
    choice = choose_entry(layout.blobs[layout.digest], architecture, hypervisor)
    assert choice is not None
    assert (choice.entry.platform, choice.why) == (taken, why)
    assert len(choice.others) == len(index(layout)) - 1


def test_a_64_bit_pi_takes_a_32_bit_image_when_there_is_no_other() -> None:
    layout = packed(targets=("process/arm",))
    choice = choose_entry(layout.blobs[layout.digest], "arm64", "process")
    assert choice is not None
    assert choice.why == "the first entry for linux/arm, which linux/arm64 runs too"


def an_index(*platforms: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [{"digest": digest_of(str(n).encode()), "size": n, "platform": platform} for n, platform in enumerate(platforms)],
        }
    ).encode()


@pytest.mark.parametrize(
    ("platforms", "architecture", "number"),
    [
        ([("arm", "v5"), ("arm", "v7")], "arm", 1),
        ([("arm", "v5"), ("arm", "v6")], "arm", 1),
        ([("arm", "v8"), ("arm", "")], "arm", 1),
        ([("arm", "v6"), ("arm64", "v8")], "arm64", 1),
        ([("arm", "v6"), ("arm", "v8")], "arm64", 1),
        ([("amd64", "v3"), ("amd64", "")], "amd64", 1),
        ([("386", ""), ("amd64", "v1")], "amd64", 1),
        ([("riscv64", "")], "riscv64", 0),
    ],
)
def test_the_best_variant_is_taken_as_containerd_does(platforms: list[tuple[str, str]], architecture: str, number: int) -> None:
    content = an_index(*({"os": "linux", "architecture": arch, "variant": variant} for arch, variant in platforms))
    chosen = choose(content, architecture)
    assert chosen is not None
    assert chosen.size == number


@pytest.mark.parametrize(
    "platform",
    [
        {"os": "xen", "architecture": "amd64"},
        {"os": "linux", "architecture": "amd64", "os.features": ["other"]},
        {"os": "linux", "architecture": "amd64", "os.features": ["unifleet.hypervisor.xen", "other"]},
        {"os": "linux", "architecture": "amd64", "os.features": "unifleet.hypervisor.kvm"},
        {"os": "linux", "architecture": "amd64", "os.features": [1]},
        {"os": "linux", "architecture": "amd64", "variant": 3},
        {"os": "linux", "architecture": ["amd64"]},
        {"os": "unknown", "architecture": "unknown"},
        "linux/amd64",
        None,
    ],
)
def test_an_entry_for_something_else_is_never_taken(platform: Any) -> None:
    with pytest.raises(UnifleetError, match="no entry for linux/amd64"):
        choose(an_index(platform), "amd64", "kvm")


def test_a_single_manifest_is_no_index() -> None:
    assert entries_of(b'{"schemaVersion": 2, "config": {}, "layers": []}') is None


@given(
    st.lists(st.fixed_dictionaries({"os": st.sampled_from(["linux", "xen"]), "architecture": st.sampled_from(["amd64", "386", "arm64"])}))
)
def test_without_a_hypervisor_the_choice_is_the_first_that_fits(platforms: list[dict[str, str]]) -> None:
    fitting = [n for wanted in ("amd64", "386") for n, p in enumerate(platforms) if (p["os"], p["architecture"]) == ("linux", wanted)]
    try:
        chosen = choose(an_index(*platforms), "amd64")
    except UnifleetError:
        assert not fitting
    else:
        assert chosen is not None
        assert chosen.size == fitting[0]
