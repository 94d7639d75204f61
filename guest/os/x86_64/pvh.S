/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Entry of an x86_64 guest: from the 32-bit state of the PVH boot protocol to C in long mode.
 *
 * PVH (an ELF note of type 18 names the 32-bit entry; %ebx holds the start info) is what QEMU's -kernel, qboot and Xen all take,
 * and unlike multiboot it hands over the command line exactly as it was given. The page tables are data, not code, because on a
 * KVM_PVM host every instruction here is emulated.
 */
    .section .note.pvh, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_entry

    .section .text.entry, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    mov %ebx, %esi                      /* start info, kept for C */
    mov $__bss_start, %edi
    mov $__bss_end, %ecx
    sub %edi, %ecx
    xor %eax, %eax
    rep stosb
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0x20, %eax                     /* CR4.PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx               /* EFER.LME */
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax                /* paging, protected mode */
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %esp
    mov %esi, %edi
    call machine_main
1:  hlt
    jmp 1b

    .section .data
    .balign 4096
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt:                                   /* the first GiB, and the one with the APICs */
    .quad pd_low + 3, 0, 0, pd_high + 3
    .fill 508, 8, 0
pd_low:
    .set at, 0
    .rept 512
    .quad at + 0x83
    .set at, at + 0x200000
    .endr
    .globl pd_high
pd_high:                                /* uncached */
    .set at, 0xc0000000
    .rept 512
    .quad at + 0x9b
    .set at, at + 0x200000
    .endr

    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt

    .section .bss
    .balign 16
    .skip 32768
stack_top:

    .section .note.GNU-stack, "", @progbits
