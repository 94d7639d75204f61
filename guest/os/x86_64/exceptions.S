/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Entries of processor exceptions, which do not come back: each says its number and the address of the instruction at fault.
 * Xen puts two registers on the stack of a paravirtual guest first (public/arch-x86/xen.h, trap_info).
 */
    .section .text, "ax"
    .code64
    .macro exception vector, has_code=0
    .globl exception_\vector
exception_\vector:
    .if \has_code == 0
    push $0
    .endif
    mov $\vector, %edi
    mov 8(%rsp), %rsi                   /* the instruction at fault */
    and $-16, %rsp
    call bare_exception
    .endm

    .macro paravirtual vector
    .globl paravirtual_\vector
paravirtual_\vector:
    pop %rcx
    pop %r11
    jmp exception_\vector
    .endm

    .irp vector, 0,1,2,3,4,5,6,7,9,15,16,18,19,20
    exception \vector
    .endr
    .irp vector, 8,10,11,12,13,14,17,21
    exception \vector, 1
    .endr

    .section .text.paravirtual, "ax"
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21
    paravirtual \vector
    .endr

    .section .note.GNU-stack, "", @progbits
