# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that writes to all of its memory, says so, and from then on hears nothing: a Multiboot kernel of a few instructions."""

from __future__ import annotations

import subprocess
from pathlib import Path

SAYS = "all of it"
SOURCE = f"""
    .code32
    .text
    .align 4
    .long 0x1badb002, 2, -(0x1badb002 + 2)      # Multiboot, with the sizes of memory
    .globl _start
_start:
    mov 8(%ebx), %ecx                           # KiB above the first MiB
    shl $10, %ecx
    mov $0x200000, %edi
    sub $0x100000, %ecx
    jbe done
page:
    movl $1, (%edi)
    add $4096, %edi
    sub $4096, %ecx
    ja page
done:
    mov $text, %esi
    mov $0x3f8, %edx                            # the first serial port
    cld
byte:
    lodsb
    test %al, %al
    jz deaf
    out %al, %dx
    jmp byte
deaf:
    cli
    hlt
    jmp deaf
text:
    .asciz "{SAYS}\\n"
"""


def build(directory: Path) -> Path:
    """Assemble and link it."""
    kernel, source = directory / "hungry", directory / "hungry.s"
    source.write_text(SOURCE)
    link = ["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,-z,noexecstack"]
    subprocess.run(["gcc", *link, "-Wl,-Ttext=0x100000", "-o", kernel, source], check=True)
    return kernel
