# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt is told of a machine, what is read back, and when KVM is chosen."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.machines.accelerator import choose, decide
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, Interface, Kernel, MachineSpec
from ansible_collections.unifleet.hybrid.plugins.host.machines.libvirt_domain import (
    NAMESPACE,
    Hardware,
    Record,
    Shutoff,
    domain_xml,
    exit_of,
    host_hardware,
    record_from,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ExitRule
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Hardware as KernelHardware

pytestmark = pytest.mark.unit
KEY = "0f0e0d0c-0b0a-4908-8706-050403020100"
KERNEL = Kernel(Path("/k"), "-- a")


PLAIN = Hardware("qemu", "max")


def domain(hardware: Hardware = PLAIN, kernel: Kernel = KERNEL, **changes: Any) -> ET.Element:
    spec = MachineSpec(**{"key": KEY, "title": "ns/pod/c", "boot": kernel, "log_directory": Path("/log"), **changes})
    return ET.fromstring(domain_xml(spec, kernel, Path("/log/raw"), hardware))


@given(st.dictionaries(st.text(), st.text()), st.booleans())
def test_metadata_comes_back_from_the_domain(metadata: dict[str, str], can_shut_down: bool) -> None:
    spec = MachineSpec(KEY, "t", KERNEL, Path("/log"), metadata)
    kernel = Kernel(Path("/k"), "", can_shut_down=can_shut_down)
    element = ET.fromstring(domain_xml(spec, kernel, Path("/log/raw"), Hardware("qemu", "max"))).find(f"metadata/{{{NAMESPACE}}}machine")
    assert element is not None
    assert record_from(ET.tostring(element, encoding="unicode")) == Record(metadata, can_shut_down, "/log/raw")


@given(st.integers(0, 255), st.text(), st.floats(0, 2e9))
def test_a_noted_end_comes_back(code: int, message: str, at: float) -> None:
    record = Record({"a": "b"}, True, "/raw", 1.5, Exit(code, "Error", at, message))
    assert record_from(record.element()) == record


@pytest.mark.parametrize("element", ["", "<machine/>", "<machine>bm8=</machine>", "<machine>e30=</machine>"])
def test_metadata_that_was_tampered_with_is_an_error_with_a_hint(element: str) -> None:
    with pytest.raises(UnifleetError, match="cannot be read"):
        record_from(element)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FFF)))
def test_any_printable_command_line_reaches_the_guest_unchanged(text: str) -> None:
    assert (domain(kernel=Kernel(Path("/k"), text)).findtext("os/cmdline") or "") == text


@pytest.mark.parametrize("text", ["a\nb", "\0", "\x1b[m"])
def test_a_command_line_that_xml_cannot_carry_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError, match="control character"):
        domain(kernel=Kernel(Path("/k"), text))


def test_sizes_are_rounded_up_to_what_a_machine_needs() -> None:
    small = domain()
    assert (small.findtext("memory"), small.findtext("vcpu"), small.find("cputune")) == (str(8 << 20), "1", None)
    big = domain(Hardware("kvm", "host", limit_cpu=True), memory_bytes=1 << 30, cpu_millis=1500)
    assert (big.findtext("memory"), big.findtext("vcpu"), big.findtext("cputune/global_quota")) == (str(1 << 30), "2", "150000")


def test_a_network_card_is_there_only_when_asked_for() -> None:
    assert domain().find("devices/interface") is None
    card = domain(interface=Interface("10.0.0.5/24", "10.0.0.1", "br0", "52:54:00:00:00:01")).find("devices/interface")
    assert card is not None
    assert (card.find("source").get("bridge"), card.find("mac").get("address")) == ("br0", "52:54:00:00:00:01")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reason", "said", "code", "why"),
    [
        (Shutoff.SHUTDOWN, None, 0, "Completed"),
        (Shutoff.SHUTDOWN, 0, 0, "Completed"),
        (Shutoff.SHUTDOWN, 2, 2, "Error"),
        (Shutoff.SHUTDOWN, 258, 2, "Error"),
        (Shutoff.DESTROYED, 0, 137, "Error"),
        (Shutoff.CRASHED, 0, 139, "Error"),
        (Shutoff.FAILED, None, 128, "StartError"),
        (Shutoff.UNKNOWN, 3, 3, "Error"),
        (Shutoff.UNKNOWN, None, 137, "ContainerStatusUnknown"),
    ],
)
def test_why_a_domain_is_off_decides_how_it_ended(reason: int, said: Optional[int], code: int, why: str) -> None:
    end = exit_of(reason, b"tail", lambda tail: said if tail == b"tail" else None, 5.0)
    assert (end.code, end.reason, end.finished_at) == (code, why, 5.0)


def test_kvm_is_chosen_where_the_guest_ran_as_fast_and_not_where_it_crawled_or_failed() -> None:
    assert decide("auto", {"host": 0.05}, 0.04).kind == "kvm"
    assert decide("auto", {"host": None, "qemu64": 0.05}, 0.04).cpu == "qemu64"
    assert decide("auto", {"host": None, "qemu64": 0.79}, 0.15).kind == "tcg"
    assert decide("auto", {"host": None, "qemu64": None}, 0.15).kind == "tcg"
    assert decide("auto", {"host": 0.5}, None).kind == "kvm"
    assert decide("kvm", {"host": None, "qemu64": 0.79}, 0.15).kind == "kvm"
    with pytest.raises(UnifleetError, match="does not run under KVM"):
        decide("kvm", {"host": None, "qemu64": None}, 0.15)


def test_an_unknown_accelerator_is_refused_and_tcg_needs_no_probe(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="no accelerator 'fast'"):
        choose("fast", None, tmp_path / "cache")
    assert choose("tcg", None, tmp_path / "cache").kind == "tcg"
    assert choose("auto", tmp_path / "missing", tmp_path / "cache").kind == "tcg"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("wanted", "machine", "card", "console"),
    [
        (KernelHardware(), "pc", "virtio", "serial"),
        (KernelHardware("q35", "e1000e"), "q35", "e1000e", "serial"),
        (KernelHardware(nic="rtl8139", console="virtio"), "pc", "rtl8139", "virtio"),
        (KernelHardware("microvm"), "microvm", "virtio", "serial"),
        (KernelHardware("microvm", console="virtio"), "microvm", "virtio", "virtio"),
    ],
)
def test_an_image_gets_the_hardware_that_it_asks_for(wanted: KernelHardware, machine: str, card: str, console: str) -> None:
    interface = Interface("10.0.0.5/24", "10.0.0.1", "br0", "52:54:00:00:00:01")
    made = domain(Hardware("qemu", "max", loader=Path("/rom")), Kernel(Path("/k"), "", hardware=wanted), interface=interface)
    system = made.find("os/type")
    assert system is not None
    assert system.get("machine") == machine
    model = made.find("devices/interface/model")
    assert model is not None
    assert model.get("type") == card
    log = made.find("devices/serial/log" if console == "serial" else "devices/console/log")
    assert log is not None
    assert log.get("file") == "/log/raw"
    addresses = [address.get("type") for address in made.iter("address")]
    assert addresses == (["virtio-mmio"] * (2 if console == "virtio" else 1) if machine == "microvm" else [])
    assert (made.find("os/loader") is None) == (machine == "microvm")


def test_hardware_that_is_not_to_be_had_here_is_refused_by_name() -> None:
    arm = Hardware("kvm", "host", machine="virt", architecture="aarch64", machines=("virt",))
    with pytest.raises(UnifleetError, match="asks for q35 as machine type; here are virt"):
        domain(arm, Kernel(Path("/k"), "", hardware=KernelHardware("q35")))
    with pytest.raises(UnifleetError, match="asks for e1000e as network card of a pc; here are virtio, e1000, rtl8139"):
        domain(kernel=Kernel(Path("/k"), "", hardware=KernelHardware(nic="e1000e")))


def test_what_an_image_says_of_its_end_is_kept_with_the_domain() -> None:
    rule = ExitRule("code=", {42: 134}, 9)
    record = Record({}, True, "/raw", exit_rule=rule)
    assert record_from(record.element()) == record
    ends = [(Shutoff.SHUTDOWN, b"code=42\n"), (Shutoff.SHUTDOWN, b""), (Shutoff.UNKNOWN, b""), (Shutoff.CRASHED, b"code=1\n")]
    assert [exit_of(reason, tail, None, 1.0, rule).code for reason, tail in ends] == [134, 9, 137, 139]
    assert exit_of(Shutoff.SHUTDOWN, b"x", lambda _tail: 42, 1.0, rule).code == 134


def test_a_guest_without_acpi_gets_the_device_that_it_ends_by_on_a_pc_alone() -> None:
    kernel = Kernel(Path("/k"), "", debug_exit=0x501)
    spaces = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"}
    arguments = [argument.get("value") for argument in domain(kernel=kernel).findall("qemu:commandline/qemu:arg", spaces)]
    assert arguments == ["-device", "isa-debug-exit,iobase=0x501,iosize=0x2"]
    assert domain().find("qemu:commandline", spaces) is None
    microvm = Kernel(Path("/k"), "", debug_exit=0x501, hardware=KernelHardware("microvm"))
    assert domain(kernel=microvm).find("qemu:commandline", spaces) is None


@pytest.mark.parametrize(("said", "code"), [(0, 0), (3, 3), (None, 139)])
def test_a_guest_that_takes_qemu_down_with_it_has_ended_well_if_it_said_so(said: Optional[int], code: int) -> None:
    element = domain(kernel=Kernel(Path("/k"), "", debug_exit=0x501)).find(f"metadata/{{{NAMESPACE}}}machine")
    assert element is not None
    record = record_from(ET.tostring(element, encoding="unicode"))
    assert exit_of(Shutoff.CRASHED, b"", lambda _tail: said, 5.0, abrupt=record.abrupt).code == code


def test_an_arm_server_boots_virt_without_what_only_a_pc_has() -> None:
    arm = host_hardware("aarch64", "kvm", "host", Path("/rom"), True)
    made = domain(arm, Kernel(Path("/k"), ""))
    system = made.find("os/type")
    assert system is not None
    assert (system.get("machine"), system.get("arch"), made.find("os/loader"), made.find("features")) == ("virt", "aarch64", None, None)
    assert host_hardware("x86_64", "qemu", "max", None, False) == Hardware("qemu", "max")
