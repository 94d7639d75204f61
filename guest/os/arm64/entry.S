/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Entry of the arm64 guest: the header of a Linux Image, the translation tables, and C at EL1.
 *
 * QEMU hands the device tree (in x0) to a raw image with this header; to an ELF file it does not (Linux,
 * Documentation/arch/arm64/booting.rst; QEMU, hw/arm/boot.c). Memory is mapped one to one before C runs: with translation off every
 * access counts as device memory, so that unaligned ones fault, and under KVM the guest and QEMU would not see the same bytes.
 */
    .section .text.entry, "ax"
    .globl image_start
image_start:
    b 1f
    .long 0
    .quad image_offset                  /* from the start of memory */
    .quad image_size
    .quad 2                             /* little endian, pages of 4 KiB, near the start of memory */
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0

1:  mrs x10, cntvct_el0                 /* when the guest began, for machine_main */
    ldr x1, =__bss_start
    ldr x2, =__bss_end
2:  cmp x1, x2
    b.hs 3f
    stp xzr, xzr, [x1], #16
    b 2b

3:  ldr x1, =level1                     /* a block of 1 GiB each: devices from 0 and from 256 GiB, memory between */
    mov x2, #0
    ldr x3, =0x60000000000401           /* not executable, attribute 0: device */
    mov x6, #0x40000000
    ldr x4, =0x705                      /* inner shareable, attribute 1: normal */
4:  orr x5, x2, x4
    cbz x2, 5f
    tbz x2, #38, 6f
5:  orr x5, x2, x3
6:  str x5, [x1], #8
    add x2, x2, x6
    tbz x2, #39, 4b

    ldr x1, =0xff00                     /* attribute 0: nGnRnE, 1: write-back */
    msr mair_el1, x1
    ldr x1, =0x200803519                /* 39 bits, pages of 4 KiB, write-back, inner shareable, 40 bits out */
    msr tcr_el1, x1
    ldr x1, =level1
    msr ttbr0_el1, x1
    ldr x1, =vectors
    msr vbar_el1, x1
    tlbi vmalle1
    ic iallu
    dsb sy
    isb
    mrs x1, sctlr_el1
    mov x2, #0x1005                     /* translation, data cache, instruction cache */
    orr x1, x1, x2
    bic x1, x1, #2                      /* no alignment check */
    msr sctlr_el1, x1
    isb

    ldr x1, =stack_top
    mov sp, x1
    mov x29, #0
    mov x30, #0
    mov x1, x10
    bl machine_main

/* Interrupts stay masked for good: wfi wakes for one that is pending all the same, see interrupts.c. So all that comes here is a fault. */
    .balign 2048
vectors:
    .rept 16
    .balign 128
    b fault
    .endr
fault:
    mrs x0, esr_el1
    lsr x0, x0, #26                     /* the exception class */
    mrs x1, elr_el1
    ldr x2, =stack_top
    mov sp, x2
    bl bare_exception

    .section .bss
    .balign 4096
level1:
    .skip 4096
    .skip 32768
stack_top:

    .section .note.GNU-stack, "", @progbits
