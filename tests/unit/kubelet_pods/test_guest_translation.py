# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a container whose image is another system's unikernel: its machine, its memory, its line, or its tender."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.families import FAMILIES
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Container, Resources
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import StepError, kernel, memory_for, platform_of, program
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Hardware, Profile

MEBI = 1 << 20


def bootable(family: str, **changes: object) -> Bootable:
    profile = Profile(family, {"kvm/amd64": "/boot/k"})
    image = Image("app:1", "sha256:0", Path("/i"), command=("-v",), env=(("PATH", "/bin"),), profile=profile)
    base = Bootable(image, "kvm", "amd64", Path("/i/boot/k"), family)
    return replace(base, **changes)  # type: ignore[arg-type]


def container(**changes: object) -> Container:
    return Container(**{"name": "c", "path": "spec.containers[0]", "image": "app:1", **changes})  # type: ignore[arg-type]


def test_the_image_and_the_host_decide_the_line() -> None:
    old = bootable("unikraft", family_version="0.15.0", initrd=Path("/i/boot/initrd"), parameters=("a.b=c",))
    made = kernel(container(), old, FAMILIES["unikraft"], Network("10.0.0.5/32", "10.0.0.1"))
    assert made.command_line == (
        "unikraft a.b=c netdev.ipv4_addr=10.0.0.5 netdev.ipv4_subnet_mask=255.255.255.248 netdev.ipv4_gw_addr=10.0.0.1 "
        "vfs.rootfs=initrd -- -v"
    )


@pytest.mark.parametrize(("family", "machine"), [("unikraft", "pc"), ("mirage", "pc"), ("linux", ""), ("plain", "")])
def test_the_family_asks_for_a_machine_type_and_the_image_may_ask_for_another(family: str, machine: str) -> None:
    assert kernel(container(), bootable(family), FAMILIES[family], None).hardware.machine == machine
    asked = kernel(container(), bootable(family, hardware=Hardware("q35", "e1000")), FAMILIES[family], None).hardware
    assert (asked.machine, asked.nic) == ("q35", "e1000")


def test_solo5_gets_the_device_that_it_ends_by() -> None:
    assert kernel(container(), bootable("mirage"), FAMILIES["mirage"], None).debug_exit == 0x501
    assert kernel(container(), bootable("linux"), FAMILIES["linux"], None).debug_exit == 0


def test_memory_is_the_pods_else_the_images_else_the_familys() -> None:
    linux = FAMILIES["linux"].hardware(platform_of(bootable("linux")))
    assert memory_for(container(), bootable("linux"), linux) == 256 * MEBI
    assert memory_for(container(), bootable("linux", memory_bytes=96 * MEBI), linux) == 96 * MEBI
    assert memory_for(container(resources=Resources(memory_limit=128 * MEBI)), bootable("linux"), linux) == 128 * MEBI
    assert memory_for(container(resources=Resources(memory_limit=128 * MEBI)), bootable("linux"), None) == 128 * MEBI
    with pytest.raises(StepError, match=f"needs {16 * MEBI}"):
        memory_for(container(resources=Resources(memory_limit=8 * MEBI)), bootable("linux"), linux)


def test_a_solo5_unikernel_runs_under_its_tender() -> None:
    hvt = bootable("mirage", hypervisor="process", tender="/bin/solo5-hvt")
    made = program(container(args=("--hello=a b",), resources=Resources(memory_limit=64 * MEBI)), hvt)
    assert made.argv == ("/bin/solo5-hvt", "--mem=64", "--", "/boot/k", "--hello=a\\ b")
    with pytest.raises(StepError, match=r"spec.containers\[0\]: the unikernel's manifest asks for the net device 'service'"):
        program(container(), bootable("mirage", hypervisor="process", tender="/bin/solo5-hvt", devices=(("net", "service"),)))
    with pytest.raises(StepError, match="environment variable A cannot be passed"):
        program(container(env=(("A", "b"),)), hvt)


def test_a_mirageos_build_for_unix_is_a_program_as_any() -> None:
    made = program(container(args=("--hello=a b",), env=(("A", "b"),)), bootable("mirage", hypervisor="process"))
    assert made.argv == ("/boot/k", "--hello=a b")
