# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the container that holds a pod's namespaces, made here so that no registry and no compiler are needed for it.

It does what Kubernetes' build/pause/linux/pause.c does: nothing, as process 1 of the pod. Children that it inherits (pods that share
one process namespace) vanish without being waited for, because it ignores SIGCHLD; SIGTERM and SIGINT end it. SOURCES is the whole
program; CODE is what the assembler makes of it (tests/unit/worker/test_pause_program.py assembles it again and runs it).
"""

from __future__ import annotations

import struct

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_DATA = """
    .balign 8
action: .quad 1, 2, 0, 0        // SIG_IGN, SA_NOCLDWAIT
awaited: .quad 0x4002           // SIGINT, SIGTERM
"""

SOURCES = {
    "amd64": """
    mov $17, %edi                   // rt_sigaction(SIGCHLD, action, NULL, 8)
    lea action(%rip), %rsi
    xor %edx, %edx
    mov $8, %r10d
    mov $13, %eax
    syscall
    xor %edi, %edi                  // rt_sigprocmask(SIG_BLOCK, awaited, NULL, 8)
    lea awaited(%rip), %rsi
    xor %edx, %edx
    mov $8, %r10d
    mov $14, %eax
    syscall
again:
    lea awaited(%rip), %rdi         // rt_sigtimedwait(awaited, NULL, NULL, 8)
    xor %esi, %esi
    xor %edx, %edx
    mov $8, %r10d
    mov $128, %eax
    syscall
    test %eax, %eax
    js again
    xor %edi, %edi                  // exit(0)
    mov $60, %eax
    syscall
"""
    + _DATA,
    "arm64": """
    mov x0, #17                     // rt_sigaction(SIGCHLD, action, NULL, 8)
    adr x1, action
    mov x2, #0
    mov x3, #8
    mov x8, #134
    svc #0
    mov x0, #0                      // rt_sigprocmask(SIG_BLOCK, awaited, NULL, 8)
    adr x1, awaited
    mov x2, #0
    mov x3, #8
    mov x8, #135
    svc #0
again:
    adr x0, awaited                 // rt_sigtimedwait(awaited, NULL, NULL, 8)
    mov x1, #0
    mov x2, #0
    mov x3, #8
    mov x8, #137
    svc #0
    tbnz w0, #31, again
    mov x0, #0                      // exit(0)
    mov x8, #93
    svc #0
"""
    + _DATA,
}

CODE = {
    "amd64": bytes.fromhex(
        "bf11000000488d354c00000031d241ba08000000b80d0000000f0531ff488d355400000031d241ba08000000b80e0000000f05488d3d3e00000031f6"
        "31d241ba08000000b8800000000f0585c078e431ffb83c0000000f0501000000000000000200000000000000000000000000000000000000000000000240"
        "000000000000"
    ),
    "arm64": bytes.fromhex(
        "200280d2a1020010020080d2030180d2c81080d2010000d4000080d2e1020010020080d2030180d2e81080d2010000d440020010010080d2020080d2"
        "030180d2281180d2010000d440ffff37000080d2a80b80d2010000d401000000000000000200000000000000000000000000000000000000000000000240"
        "000000000000"
    ),
}

_MACHINES = {"amd64": 62, "arm64": 183}
_BASE = 0x400000
_HEADERS = 64 + 56


def program(architecture: str) -> bytes:
    """A static ELF executable for this architecture (OCI's name for it): one segment that can be read and executed (elf(5))."""
    if architecture not in CODE:
        raise UnifleetError(
            f"there is no pause program for {architecture}", f"there are {', '.join(sorted(CODE))}; set containerd_sandbox_image instead"
        )
    size = _HEADERS + len(CODE[architecture])
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 2, _MACHINES[architecture], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + segment + CODE[architecture]
