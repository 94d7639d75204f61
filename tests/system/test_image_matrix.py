# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fat and split images through a real registry into the containerd of three Debian releases, unchanged from their packages.

Each containerd runs from its unpacked package with a root of its own; nothing is installed. Debian 12 has 1.6, 13 has 1.7, sid 2.x.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_registry import loopback_registry
from stock_containerd import EACH, SUITES, Containerd, programs_of

from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import choose_entry
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, Layout, pack, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")
KERNELS = ("kvm/amd64", "process/amd64", "xen/amd64", "kvm/arm64", "process/arm64", "process/arm")


def image(*, split: bool) -> Layout:
    """One kernel for each target."""
    profile = Profile("plain", {target: f"/boot/{target.replace('/', '-')}" for target in KERNELS}, memory_bytes=8 << 20)
    files = {f"boot/{target.replace('/', '-')}": (target.encode() * 1000, True) for target in KERNELS}
    return pack(ImageContent(profile, {**files, "etc/motd": (b"shared", False)}, split=split))


@pytest.fixture(params=EACH)
def containerd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Containerd]:
    programs = programs_of(request.param)
    made = Containerd(programs, tmp_path)
    assert f" {SUITES[request.param]}" in made.version(), made.version()
    print(made.version())
    made.start()
    try:
        yield made
    finally:
        for place in sorted(tmp_path.iterdir()):
            if place.is_mount():
                subprocess.run(["umount", place], check=False)
        made.stop()


def push(address: str, layout: Layout, tmp_path: Path, tag: str) -> str:
    write(layout, tmp_path / f"layout-{tag}", tag)
    reference = f"{address}/sensor:{tag}"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{tmp_path}/layout-{tag}:{tag}", f"docker://{reference}"], check=True)
    return reference


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with loopback_registry(tmp_path) as made:
        yield made.address


@pytest.mark.parametrize("split", [False, True], ids=["fat", "split"])
def test_stock_containerd_takes_the_fat_image_of_each_architecture(
    containerd: Containerd, address: str, tmp_path: Path, split: bool
) -> None:
    layout = image(split=split)
    reference = push(address, layout, tmp_path, "split" if split else "fat")
    containerd.ctr("images", "pull", "--plain-http", reference)
    root = containerd.root_of(reference, "host")
    assert sorted(path.name for path in (root / "boot").iterdir()) == ["kvm-amd64", "process-amd64", "xen-amd64"]
    assert sorted(json.loads((root / "unikernel.json").read_bytes())["kernels"]) == ["kvm/amd64", "process/amd64", "xen/amd64"]
    assert (root / "etc/motd").read_bytes() == b"shared"
    for platform in PLATFORMS:
        containerd.ctr("images", "pull", "--plain-http", "--platform", platform, reference)
        taken = choose_entry(layout.blobs[layout.digest], platform.split("/")[1])
        assert taken is not None
        assert "+" not in taken.entry.platform
        manifest = json.loads(layout.blobs[taken.entry.descriptor.digest])
        has = {line.split()[0] for line in containerd.ctr("content", "ls").stdout.splitlines()[1:]}
        assert {taken.entry.descriptor.digest, *(layer["digest"] for layer in manifest["layers"])} <= has


def test_what_was_pulled_runs(containerd: Containerd, address: str, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    subprocess.run(["make", "-s", "-C", str(root / "guest")], check=True)
    program = (root / "guest/build/sensor-process-amd64").read_bytes()
    profile = Profile("plain", {"process/amd64": "/bin/sensor", "xen/amd64": "/boot/xen"})
    content = ImageContent(profile, {"bin/sensor": (program, True), "boot/xen": (b"x", True)}, args=("--count", "2"), split=True)
    reference = push(address, pack(content), tmp_path, "run")
    containerd.ctr("images", "pull", "--plain-http", reference)
    done = containerd.ctr("run", "--rm", "--net-host", reference, f"unifleet-{os.getpid()}", check=False)
    assert done.stdout.count("value=") == 2, done.stdout + done.stderr
    sys.stdout.write(done.stdout)
