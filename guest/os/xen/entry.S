/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Entry of the guest as a paravirtual domain of Xen, and the notes that tell Xen of it (public/elfnote.h).
 *
 * The same kernel has the PVH entry of os/x86_64/pvh.S: the domain's type in its configuration decides. A paravirtual domain begins in
 * 64 bits on page tables that Xen made, which show the kernel where it is linked, and with its start info's address in %rsi.
 */
    .macro note type, size
    .long 4, \size, \type
    .asciz "Xen"
    .endm

    .section .note.xen, "a", @note
    note 6, 8                           /* guest system */
    .asciz "unifle"
    .balign 4
    note 5, 8                           /* interface */
    .asciz "xen-3.0"
    note 8, 8                           /* how it is loaded */
    .asciz "generic"
    note 9, 4                           /* page tables of 64 bits may be above 4 GiB */
    .asciz "yes"
    note 3, 8                           /* linked at its physical address */
    .quad 0
    note 4, 8
    .quad 0
    note 1, 8
    .quad paravirtual_entry
    note 2, 8                           /* Xen fills this page with its calls */
    .quad hypercall_page

    .section .text.paravirtual_entry, "ax"
    .globl paravirtual_entry
paravirtual_entry:
    cld
    mov $paravirtual_stack_top, %rsp
    mov %rsi, %rdi
    call paravirtual_main
1:  jmp 1b

    .section .text.hypercall_page, "ax"
    .balign 4096
    .globl hypercall_page
hypercall_page:
    .skip 4096

    .section .bss
    .balign 16
    .skip 32768
paravirtual_stack_top:

    .section .note.GNU-stack, "", @progbits
