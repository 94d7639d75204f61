/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The timer and the power button: the work is done after the hlt that they end, see time.c.
 */
    .section .text, "ax"
    .code64
    .globl interrupt_timer, interrupt_power, interrupt_spurious
interrupt_timer:
    incl timer_interrupts
interrupt_power:
    push %rax
    mov $0xfee000b0, %eax               /* local APIC, end of interrupt */
    movl $0, (%rax)
    pop %rax
interrupt_spurious:
    iretq

    .section .note.GNU-stack, "", @progbits
