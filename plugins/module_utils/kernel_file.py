# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel file is, told from its bytes: architecture, the ways it can be started, and, where it shows, its unikernel family.

For images that say nothing of themselves, and for builds that want to check what they pack. Files may come from anywhere: every read is
bounded, every count is capped, and whatever is broken is one clear error.

Sources: the ELF specification; Xen's public/elfnote.h; Solo5's elf_abi.h and mft_abi.h; the Multiboot specifications 0.6.96 and 2.0;
Linux' Documentation/arch/{x86/boot,arm64/booting,riscv/boot-image-header}.rst and arch/arm/boot/compressed/head.S; U-Boot's image.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

HEAD = 32768
"""Bytes from the beginning in which a multiboot 2 header may be."""
TABLE_MOST = 1024
"""Program headers and sections that are looked at."""
ROW_MOST = 1024
"""Bytes of one of them; those of today have 40 to 64."""
NOTES_MOST = 256
NOTE_SEGMENTS_MOST = 16
NOTE_BYTES_MOST = 1 << 16
SEARCH_MOST = 1 << 20

_ELF_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
_UBOOT_MACHINES = {2: "arm", 3: "386", 22: "arm64", 24: "amd64", 26: "riscv64"}
_SOLO5_TARGETS = {1: "solo5-hvt", 2: "solo5-spt", 3: "multiboot", 6: "xen-pvh"}
_SOLO5_DEVICES = {1: "block", 2: "net", 3: "pci"}
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4"))
_LINUX_VERSION = re.compile(rb"[0-9]+\.[0-9]+\.[0-9]+\S* \([^\0]*\) #[0-9]")
_PLAIN_SAYS = b"unikernel: exit "
_DEVICE_NAME = re.compile(rb"[A-Za-z0-9]{1,67}")
_ENTRY_LEAST = 96
"""struct mft_entry: a name of 68 bytes, its type, and at least 24 bytes of the tender's own."""


@dataclass(frozen=True)
class KernelFile:
    """What was found.

    format: elf, bzimage, arm64-image, riscv-image, zimage or uimage. architecture: as OCI names them; a kernel for 32-bit x86 counts as
    amd64, for those machines boot it. boots: ways it can be started (linux, pvh, xen-pvh, xen-pv, multiboot, multiboot2, solo5-hvt,
    solo5-spt, program); a program is what Linux runs. family: "" where the file does not show it. devices: (kind, name) of a Solo5
    manifest.
    """

    format: str
    architecture: str
    boots: tuple[str, ...]
    family: str = ""
    devices: tuple[tuple[str, str], ...] = ()

    @property
    def hypervisors(self) -> tuple[str, ...]:
        """The kinds of machine that can start it. QEMU starts an ELF file by its PVH note, a multiboot header or Linux' protocol."""
        ways = set(self.boots)
        kinds = {
            "kvm": ways & {"linux", "pvh", "multiboot"},
            "xen": ways & {"xen-pv", "xen-pvh"} or (self.family == "linux" and self.format == "bzimage"),
            "process": ways & {"program", "solo5-hvt", "solo5-spt"},
        }
        return tuple(kind for kind, can in kinds.items() if can)


ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> the bytes there, fewer at the end of the file."""


def examine_file(path: Path) -> KernelFile:
    """What the file is. Raises UnifleetError naming the file and what is wrong with it."""
    try:
        with path.open("rb") as file:

            def read_at(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            return examine(read_at)
    except (OSError, ValueError) as error:
        raise UnifleetError(f"{path} cannot be read: {error}") from error
    except UnifleetError as error:
        raise UnifleetError(f"{path}: {error.message}", error.hint) from error


def examine_bytes(content: bytes) -> KernelFile:
    """The same of a whole file's bytes."""
    return examine(lambda offset, length: content[offset : offset + length])


def examine(read_at: ReadAt) -> KernelFile:
    """What the file is that read_at reads. Raises UnifleetError."""
    head = read_at(0, HEAD)
    if head.startswith(b"\x7fELF"):
        return _elf(head, read_at)
    for look in (_bzimage, _arm64_image, _riscv_image, _zimage, _uimage):
        found = look(head, read_at)
        if found is not None:
            return found
    for magic, name in _COMPRESSED:
        if head.startswith(magic):
            raise UnifleetError(
                f"the file is compressed with {name}, and nothing that boots it would unpack it", f"unpack it with {name} -d"
            )
    if head.startswith(b"MZ") and head[4:8] == b"zimg":
        raise UnifleetError("the file is a compressed EFI program (zboot), which QEMU cannot boot directly", "use the kernel's Image")
    raise UnifleetError("the file is no kernel and no program that Unifleet knows", "use an ELF file, a bzImage, an Image or a zImage")


# -- Linux' own formats ------------------------------------------------------------------------------------------------------------


def _bzimage(head: bytes, read_at: ReadAt) -> Optional[KernelFile]:
    """memtest86+ and iPXE are bzImages too; Linux is the one whose version string is Linux'."""
    if head[0x202:0x206] != b"HdrS" or head[0x1FE:0x200] != b"\x55\xaa":
        return None
    (pointer,) = struct.unpack_from("<H", head, 0x20E)
    said = read_at(0x200 + pointer, 256) if pointer else b""
    return KernelFile("bzimage", "amd64", ("linux",), "linux" if _LINUX_VERSION.match(said) else "")


def _arm64_image(head: bytes, _read_at: ReadAt) -> Optional[KernelFile]:
    """Linux' Image is an EFI program as well; unikernels that borrow the header are not."""
    if head[0x38:0x3C] != b"ARM\x64":
        return None
    return KernelFile("arm64-image", "arm64", ("linux",), "linux" if head.startswith(b"MZ") else _plain_family(head, _read_at))


def _riscv_image(head: bytes, _read_at: ReadAt) -> Optional[KernelFile]:
    if head[0x38:0x3C] != b"RSC\x05":
        return None
    return KernelFile("riscv-image", "riscv64", ("linux",), "linux" if head.startswith(b"MZ") else "")


def _zimage(head: bytes, _read_at: ReadAt) -> Optional[KernelFile]:
    return KernelFile("zimage", "arm", ("linux",), "linux") if head[0x24:0x28] == b"\x18\x28\x6f\x01" else None


def _uimage(head: bytes, _read_at: ReadAt) -> Optional[KernelFile]:
    if head[:4] != b"\x27\x05\x19\x56":
        return None
    if len(head) < 64:
        raise _cut("U-Boot image")
    system, machine, kind = head[28], head[29], head[30]
    if machine not in _UBOOT_MACHINES or kind != 2:
        raise UnifleetError("the U-Boot image is no kernel for a known architecture", "use the kernel's Image or zImage")
    return KernelFile("uimage", _UBOOT_MACHINES[machine], ("linux",), "linux" if system == 5 else "")


# -- ELF ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    wide: bool
    order: str
    machine: str
    kind: int
    program_headers: tuple[int, int, int]
    sections: tuple[int, int, int]
    names: int


def _elf(head: bytes, read_at: ReadAt) -> KernelFile:
    header = _elf_header(head)
    segments = list(_segments(header, read_at))
    found = KernelFile("elf", header.machine, ())
    guest_os = b""
    for owner, kind, content in _notes(header, segments, read_at):
        if owner == b"Xen" and kind == 18:
            found = _may_boot(found, "pvh", "xen-pvh")
        elif owner == b"Xen" and kind in (1, 3, 5, 8):
            found = _may_boot(found, "xen-pv")
        elif owner == b"Xen" and kind == 6:
            guest_os = content.rstrip(b"\0")
        elif owner == b"Solo5" and kind == 0x31494241 and len(content) >= 4:
            (target,) = struct.unpack_from(header.order + "I", content)
            if target not in _SOLO5_TARGETS:
                raise UnifleetError(f"the Solo5 unikernel is for Solo5's target number {target}", "build it for hvt, spt, virtio or xen")
            found = replace(_may_boot(found, _SOLO5_TARGETS[target]), family="mirage")
        elif owner == b"Solo5" and kind == 0x3154464D:
            found = replace(found, family="mirage", devices=_manifest(content, header.order))
    found = _may_boot(found, *_multiboot(head))
    if not found.boots:
        if header.kind not in (2, 3):
            raise UnifleetError("the ELF file is neither a kernel nor a program: nothing in it says how to start it", "link it")
        return _may_boot(found, "program")
    if not found.family:
        found = replace(found, family=_elf_family(guest_os, header, head, read_at))
    return replace(found, architecture="amd64") if found.architecture == "386" else found


def _may_boot(found: KernelFile, *ways: str) -> KernelFile:
    return replace(found, boots=found.boots + tuple(way for way in ways if way not in found.boots))


def _elf_family(guest_os: bytes, header: _Header, head: bytes, read_at: ReadAt) -> str:
    if guest_os == b"linux":
        return "linux"
    if any(name.startswith(b".uk_") for name in _section_names(header, read_at)):
        return "unikraft"
    return _plain_family(head, read_at)


def _plain_family(_head: bytes, read_at: ReadAt) -> str:
    """Unifleet's own guests have no mark but the line that they end with, which no other system writes."""
    return "plain" if _PLAIN_SAYS in read_at(0, SEARCH_MOST) else ""


def _elf_header(head: bytes) -> _Header:
    if len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise _cut("ELF header")
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if machine not in _ELF_MACHINES or order == ">":
        raise UnifleetError(f"the ELF file is for a processor (number {machine}) that Unifleet has no hosts of", "build it for this host")
    programs, sections = struct.unpack_from(order + ("QQ" if wide else "II"), head, 32 if wide else 28)
    sizes = struct.unpack_from(order + "HHHHH", head, 54 if wide else 42)
    return _Header(wide, order, _ELF_MACHINES[machine], kind, (programs, *sizes[:2]), (sections, *sizes[2:4]), sizes[4])


def _rows(table: tuple[int, int, int], least: int, what: str, read_at: ReadAt) -> Iterator[bytes]:
    """The rows of a table at (offset, size of a row, number of rows)."""
    offset, size, count = table
    if not count or not offset:
        return
    if not least <= size <= ROW_MOST or count > TABLE_MOST:
        raise UnifleetError(f"the ELF file has {count} {what} of {size} bytes, which cannot be", "the file is damaged; build it anew")
    content = read_at(offset, size * count)
    if len(content) < size * count:
        raise _cut(what)
    for row in range(count):
        yield content[row * size : (row + 1) * size]


def _segments(header: _Header, read_at: ReadAt) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset, size, alignment) of each program header."""
    for row in _rows(header.program_headers, 56 if header.wide else 32, "program headers", read_at):
        if header.wide:
            kind, _flags, offset, _virtual, _physical, size, _memory, alignment = struct.unpack_from(header.order + "IIQQQQQQ", row)
        else:
            kind, offset, _virtual, _physical, size, _memory, _flags, alignment = struct.unpack_from(header.order + "IIIIIIII", row)
        yield kind, offset, size, alignment


def _notes(header: _Header, segments: list[tuple[int, int, int, int]], read_at: ReadAt) -> Iterator[tuple[bytes, int, bytes]]:
    """(owner, type, content) of the notes in the file's note segments."""
    left = NOTES_MOST
    for _kind, offset, size, alignment in [segment for segment in segments if segment[0] == 4][:NOTE_SEGMENTS_MOST]:
        content, at = read_at(offset, min(size, NOTE_BYTES_MOST)), 0
        step = 8 if alignment == 8 else 4
        while at + 12 <= len(content) and left:
            left -= 1
            name_size, size_of_content, type_ = struct.unpack_from(header.order + "III", content, at)
            name_end = at + 12 + name_size
            start = -(-name_end // 4) * 4 if step == 4 else -(-name_end // 8) * 8
            if start + size_of_content > len(content):
                break  # linkers leave such ends: GRUB's Xen image has one
            yield content[at + 12 : name_end].rstrip(b"\0"), type_, content[start : start + size_of_content]
            at = -(-(start + size_of_content) // step) * step


def _section_names(header: _Header, read_at: ReadAt) -> list[bytes]:
    if header.names >= header.sections[2]:
        return []
    rows = list(_rows(header.sections, 64 if header.wide else 40, "sections", read_at))
    if not rows:
        return []
    where = struct.unpack_from(header.order + ("QQ" if header.wide else "II"), rows[header.names], 24 if header.wide else 16)
    names = read_at(where[0], min(where[1], NOTE_BYTES_MOST))
    starts = [struct.unpack_from(header.order + "I", row)[0] for row in rows]
    return [names[start : start + 64].split(b"\0")[0] for start in starts if start < len(names)]


def _multiboot(head: bytes) -> Iterator[str]:
    """The multiboot headers whose checksums are right."""
    for at in range(0, min(len(head), 8192) - 11, 4):
        if head[at : at + 4] == b"\x02\xb0\xad\x1b" and sum(struct.unpack_from("<III", head, at)) & 0xFFFFFFFF == 0:
            yield "multiboot"
            break
    for at in range(0, len(head) - 15, 8):
        if head[at : at + 4] == b"\xd6\x50\x52\xe8" and sum(struct.unpack_from("<IIII", head, at)) & 0xFFFFFFFF == 0:
            yield "multiboot2"
            break


def _manifest(content: bytes, order: str) -> tuple[tuple[str, str], ...]:
    """A Solo5 manifest's devices. The note is aligned to 8 bytes from its own beginning, so 4 bytes of nothing come first; a newer manifest
    has the size of DMA memory between the number of entries and the entries, and its entries may be longer."""
    if len(content) < 12:
        raise _cut("Solo5 manifest")
    version, count = struct.unpack_from(order + "II", content, 4)
    if version != 1 or count > 64:
        raise UnifleetError(f"the Solo5 manifest has version {version} and {count} entries", "build the unikernel with Solo5 0.6 or newer")
    if not count:
        return ()
    for start in (12, 20):
        size, rest = divmod(len(content) - start, count)
        if rest < 8 and size >= _ENTRY_LEAST:
            size -= size % 8
            entries = [_manifest_entry(content[start + row * size :], order) for row in range(count)]
            if None not in entries:
                return tuple(entry for entry in entries if entry is not None and entry[0])
    raise UnifleetError("the Solo5 manifest cannot be read", "build the unikernel with a Solo5 that this version of Unifleet knows")


def _manifest_entry(content: bytes, order: str) -> Optional[tuple[str, str]]:
    """(kind, name); ("", "") for an entry that Solo5 keeps to itself; None when it is no entry."""
    name = content[:68].split(b"\0")[0]
    (kind,) = struct.unpack_from(order + "I", content, 68)
    if kind >= 1 << 30:
        return "", ""
    if kind not in _SOLO5_DEVICES or _DEVICE_NAME.fullmatch(name) is None:
        return None
    return (_SOLO5_DEVICES[kind], name.decode("ascii"))


def _cut(what: str) -> UnifleetError:
    return UnifleetError(f"the file ends in the middle of its {what}", "the file is damaged; build or pull it anew")
