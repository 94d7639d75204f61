# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is seen to have, on pretended hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture
from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import control_groups, describe

pytestmark = pytest.mark.unit


def put(root: Path, path: str, content: str = "", mode: int = 0o644) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)


def test_a_raspberry_pi_is_known_by_its_device_tree(tmp_path: Path) -> None:
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    put(tmp_path, "proc/meminfo", "MemTotal:        4040192 kB\nMemFree: 1 kB\n")
    put(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")
    seen = describe("aarch64", tmp_path)
    assert seen["board"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert (seen["architecture"], seen["variant"], seen["memory_bytes"]) == ("arm64", "v8", 4040192 * 1024)
    assert (seen["cgroup_version"], seen["cgroup_controllers"]) == (2, ["cpu", "cpuset", "io", "pids"])
    assert (seen["kvm"], seen["xen"], seen["libvirt_uris"]) == (False, "", [])


def test_a_xen_server_offers_xen_and_a_guest_of_xen_does_not(tmp_path: Path) -> None:
    put(tmp_path, "sys/hypervisor/type", "xen\n")
    put(tmp_path, "run/libvirt/libvirt-sock")
    assert (describe("x86_64", tmp_path)["xen"], describe("x86_64", tmp_path)["libvirt_uris"]) == ("domU", [])
    put(tmp_path, "proc/xen/capabilities", "control_d\n")
    assert (describe("x86_64", tmp_path)["xen"], describe("x86_64", tmp_path)["libvirt_uris"]) == ("dom0", ["xen:///system"])


def test_a_kvm_server_names_its_qemu_and_its_socket(tmp_path: Path) -> None:
    put(tmp_path, "usr/bin/qemu-system-x86_64", mode=0o755)
    put(tmp_path, "run/libvirt/libvirt-sock")
    put(tmp_path, "dev/kvm")
    seen = describe("x86_64", tmp_path)
    assert (seen["kvm"], seen["tcg"], seen["libvirt_uris"]) == (True, "/usr/bin/qemu-system-x86_64", ["qemu:///system"])


def test_hybrid_control_groups_count_as_version_one(tmp_path: Path) -> None:
    for name in ("memory", "cpu,cpuacct", "systemd", "unified", "blkio"):
        (tmp_path / "sys/fs/cgroup" / name).mkdir(parents=True)
    groups = control_groups(tmp_path)
    assert (groups.version, groups.controllers) == (1, frozenset({"memory", "cpu", "cpuacct", "io"}))


def test_a_host_without_anything_is_described_too(tmp_path: Path) -> None:
    seen = describe("mips64", tmp_path)
    assert (seen["architecture"], seen["cgroup_version"], seen["memory_bytes"], seen["board"]) == ("mips64", 0, 0, "")


@pytest.mark.parametrize(("machine", "expected"), [("armv7l", ("arm", "v7")), ("x86_64", ("amd64", "")), ("i686", ("386", ""))])
def test_architectures_are_told_as_images_name_them(machine: str, expected: tuple[str, str]) -> None:
    assert oci_architecture(machine) == expected
