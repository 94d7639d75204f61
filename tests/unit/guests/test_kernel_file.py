# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel file is, told from its bytes: files made here byte by byte after the formats' specifications, and broken ones."""

from __future__ import annotations

import contextlib
import gzip
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kernel_file import KernelFile, examine, examine_bytes, examine_file

XEN_ENTRY, XEN_PVH, XEN_GUEST_OS = 1, 18, 6
ABI1, MFT1 = 0x31494241, 0x3154464D


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    name = owner + b"\0"
    return struct.pack("<III", len(name), len(content), kind) + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)


def elf(
    machine: int = 62, *, wide: bool = True, kind: int = 2, notes: Sequence[bytes] = (), sections: Sequence[str] = (), tail: bytes = b""
) -> bytes:
    """An ELF file with one note segment and named sections."""
    data = b"".join(notes)
    header, programs = (64, 56) if wide else (52, 32)
    notes_at = header + programs
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    names_at = notes_at + len(data)
    table_at = names_at + len(names)
    rows = [bytes(64 if wide else 40)]
    at = 1
    for name in [*sections, ".shstrtab"]:
        where = (names_at, len(names)) if name == ".shstrtab" else (0, 0)
        rows.append(
            struct.pack("<IIQQQQIIQQ", at, 3, 0, 0, *where, 0, 0, 0, 0)
            if wide
            else struct.pack("<IIIIIIIIII", at, 3, 0, 0, *where, 0, 0, 0, 0)
        )
        at += len(name) + 1
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    common = (programs, 1, 64 if wide else 40, len(rows), len(rows) - 1)
    if wide:
        start = ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, header, table_at, 0, header, *common)
        start += struct.pack("<IIQQQQQQ", 4, 4, notes_at, 0, 0, len(data), len(data), 4)
    else:
        start = ident + struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, 0, header, table_at, 0, header, *common)
        start += struct.pack("<IIIIIIII", 4, notes_at, 0, 0, len(data), len(data), 4, 4)
    return start + data + names + b"".join(rows) + tail


def manifest(*devices: tuple[int, str], dma: bool = False, entry: int = 104) -> bytes:
    """The MFT1 note's content: Solo5's elftool puts an entry of its own first."""
    rows = [(1 << 30, ""), *devices]
    head = bytes(4) + struct.pack("<II", 1, len(rows)) + (bytes(8) if dma else b"")
    return head + b"".join(name.encode().ljust(68, b"\0") + struct.pack("<I", kind) + bytes(entry - 72) for kind, name in rows)


def solo5(target: int, content: bytes = b"") -> bytes:
    return elf(notes=[note(b"Solo5", ABI1, struct.pack("<IIII", target, 1, 0, 0)), note(b"Solo5", MFT1, content or manifest())])


def bzimage(version: bytes) -> bytes:
    head = bytearray(0x400)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = struct.pack("<H", 0x100)
    return bytes(head[:0x300]) + version.ljust(256, b"\0")


MULTIBOOT = struct.pack("<III", 0x1BADB002, 0x10003, -(0x1BADB002 + 0x10003) & 0xFFFFFFFF)
MULTIBOOT2 = struct.pack("<IIII", 0xE85250D6, 0, 24, -(0xE85250D6 + 24) & 0xFFFFFFFF)
PVH = note(b"Xen", XEN_PVH, bytes(4))
ARM64 = bytes(0x38) + b"ARM\x64" + bytes(64)
RISCV = bytes(0x30) + b"RISCV\0\0\0RSC\x05" + bytes(64)
UIMAGE = b"\x27\x05\x19\x56" + bytes(24) + bytes([5, 2, 2, 0]) + bytes(32)


@pytest.mark.parametrize(
    ("content", "found", "hypervisors"),
    [
        (bzimage(b"6.1.0-56-amd64 (a@b) #1 SMP"), KernelFile("bzimage", "amd64", ("linux",), "linux"), ("kvm", "xen")),
        (bzimage(b"Memtest86+ v6.10"), KernelFile("bzimage", "amd64", ("linux",)), ("kvm",)),
        (bzimage(b"1.0.0+git-20190125.36a4c85"), KernelFile("bzimage", "amd64", ("linux",)), ("kvm",)),
        (b"MZ" + ARM64[2:], KernelFile("arm64-image", "arm64", ("linux",), "linux"), ("kvm",)),
        (ARM64 + b"unikernel: exit ", KernelFile("arm64-image", "arm64", ("linux",), "plain"), ("kvm",)),
        (b"MZ" + RISCV[2:], KernelFile("riscv-image", "riscv64", ("linux",), "linux"), ("kvm",)),
        (bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(64), KernelFile("zimage", "arm", ("linux",), "linux"), ("kvm",)),
        (UIMAGE, KernelFile("uimage", "arm", ("linux",), "linux"), ("kvm",)),
        (elf(notes=[PVH]), KernelFile("elf", "amd64", ("pvh", "xen-pvh")), ("kvm", "xen")),
        (elf(notes=[PVH], tail=b"unikernel: exit "), KernelFile("elf", "amd64", ("pvh", "xen-pvh"), "plain"), ("kvm", "xen")),
        (
            elf(notes=[note(b"Xen", XEN_GUEST_OS, b"linux\0"), PVH, note(b"Xen", XEN_ENTRY, bytes(8))]),
            KernelFile("elf", "amd64", ("pvh", "xen-pvh", "xen-pv"), "linux"),
            ("kvm", "xen"),
        ),
        (
            elf(3, wide=False, tail=MULTIBOOT, sections=[".text", ".uk_inittab"]),
            KernelFile("elf", "amd64", ("multiboot",), "unikraft"),
            ("kvm",),
        ),
        (
            elf(notes=[note(b"Xen", 5, b"xen-3.0\0")], sections=[".uk_ctortab"]),
            KernelFile("elf", "amd64", ("xen-pv",), "unikraft"),
            ("xen",),
        ),
        (elf(183, notes=[PVH]), KernelFile("elf", "arm64", ("pvh", "xen-pvh")), ("kvm", "xen")),
        (solo5(1), KernelFile("elf", "amd64", ("solo5-hvt",), "mirage"), ("process",)),
        (solo5(2, manifest((2, "service"))), KernelFile("elf", "amd64", ("solo5-spt",), "mirage", (("net", "service"),)), ("process",)),
        (
            solo5(2, manifest((1, "storage"), (2, "service"), dma=True, entry=200)),
            KernelFile("elf", "amd64", ("solo5-spt",), "mirage", (("block", "storage"), ("net", "service"))),
            ("process",),
        ),
        (solo5(3) + bytes(-len(solo5(3)) % 4) + MULTIBOOT, KernelFile("elf", "amd64", ("multiboot",), "mirage"), ("kvm",)),
        (solo5(6), KernelFile("elf", "amd64", ("xen-pvh",), "mirage"), ("xen",)),
        (elf(tail=bytes(3)), KernelFile("elf", "amd64", ("program",)), ("process",)),
        (elf(40, wide=False, kind=3), KernelFile("elf", "arm", ("program",)), ("process",)),
        (elf(3, wide=False), KernelFile("elf", "386", ("program",)), ("process",)),
    ],
    ids=lambda value: "-".join([value.format, *value.boots, value.family]) if isinstance(value, KernelFile) else "",
)
def test_a_file_is_told_by_its_marks(content: bytes, found: KernelFile, hypervisors: tuple[str, ...]) -> None:
    if found.family == "unikraft" and "multiboot" in found.boots:
        content = content[: -len(MULTIBOOT)] + bytes(-(len(content) - len(MULTIBOOT)) % 4) + MULTIBOOT
    assert examine_bytes(content) == found
    assert found.hypervisors == hypervisors


def test_a_multiboot_header_with_a_wrong_checksum_or_too_far_in_is_none() -> None:
    base = elf()
    base += bytes(-len(base) % 8)
    assert examine_bytes(base + MULTIBOOT2).boots == ("multiboot2",)
    assert examine_bytes(base + MULTIBOOT[:-1] + b"\0").boots == ("program",)
    assert examine_bytes(base + bytes(8192) + MULTIBOOT).boots == ("program",)
    assert examine_bytes(base + b"\0\0" + MULTIBOOT).boots == ("program",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no kernel and no program"),
        (b"hello\n", "no kernel and no program"),
        (gzip.compress(b"x", mtime=0), "compressed with gzip"),
        (b"MZ\0\0zimg" + bytes(64), "zboot"),
        (b"\x7fELF", "in the middle of its ELF header"),
        (elf()[:80], "in the middle of its program headers"),
        (elf(8), "number 8"),
        (elf(kind=1), "neither a kernel nor a program"),
        (solo5(4), "target number 4"),
        (solo5(1, bytes(8)), "in the middle of its Solo5 manifest"),
        (solo5(1, bytes(4) + struct.pack("<II", 2, 1) + bytes(104)), "version 2"),
        (solo5(1, bytes(4) + struct.pack("<II", 1, 65) + bytes(104)), "65 entries"),
        (solo5(1, manifest((2, "../x"))), "manifest cannot be read"),
        (elf(notes=[PVH], sections=["x"])[:-10], "in the middle of its sections"),
        (UIMAGE[:40], "in the middle of its U-Boot image"),
        (UIMAGE[:29] + b"\x07" + UIMAGE[30:], "no kernel for a known architecture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_or_unknown_is_one_clear_error(content: bytes, said: str) -> None:
    with pytest.raises(UnifleetError, match=said):
        examine_bytes(content)


def test_a_table_of_absurd_size_is_refused_before_it_is_read() -> None:
    content = bytearray(elf())
    content[56:58] = b"\xff\xff"
    with pytest.raises(UnifleetError, match="65535 program headers"):
        examine_bytes(bytes(content))


def test_the_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"no")
    with pytest.raises(UnifleetError, match=f"{tmp_path}/kernel: the file is no kernel"):
        examine_file(tmp_path / "kernel")
    with pytest.raises(UnifleetError, match="nothing cannot be read"):
        examine_file(tmp_path / "nothing")


WHOLE = [
    elf(notes=[PVH, note(b"Xen", XEN_GUEST_OS, b"linux\0")], sections=[".uk_x", ".text"]),
    elf(3, wide=False, notes=[PVH], sections=[".uk_x"]),
    solo5(2, manifest((2, "service"), (1, "storage"))),
    bzimage(b"6.1.0 (a@b) #1"),
]


@settings(max_examples=400)
@example(whole=WHOLE[1], changes=[(46, b"\xff\xff\xff\x03")])
@given(whole=st.sampled_from(WHOLE), changes=st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=9)), max_size=6))
def test_a_damaged_file_is_told_or_refused_and_never_read_without_bound(whole: bytes, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(whole)
    for at, bytes_ in changes:
        content[at : at + len(bytes_)] = bytes_
    read: list[int] = []
    began = time.process_time()
    try:

        def read_at(offset: int, length: int) -> bytes:
            read.append(length)
            return bytes(content[offset : offset + length])

        assert examine(read_at).boots
    except UnifleetError:
        pass
    assert sum(read) <= 4 << 20
    assert len(read) <= 32
    assert time.process_time() - began < 1


@given(head=st.sampled_from([b"\x7fELF\x02\x01", b"\x7fELF\x01\x01", b"MZ", b""]), rest=st.binary(max_size=400))
def test_any_bytes_are_told_or_refused(head: bytes, rest: bytes) -> None:
    with contextlib.suppress(UnifleetError):
        assert examine_bytes(head + rest).boots
