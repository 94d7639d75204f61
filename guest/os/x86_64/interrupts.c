/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Interrupts: a descriptor table for exceptions, the timer and the power button; the old PICs masked; the I/O APIC.
 */
#include "machine.h"

struct gate {
    uint16_t low, selector;
    uint16_t flags, middle;
    uint32_t high, zero;
} __attribute__((packed));

enum { VECTORS = 48, GATE_INTERRUPT = 0x8e00, CODE_SELECTOR = 8 };

static struct gate table[VECTORS] __attribute__((aligned(16)));

static void set(int vector, void (*entry)(void)) {
    uintptr_t address = (uintptr_t)entry;
    table[vector] = (struct gate){(uint16_t)address, CODE_SELECTOR, GATE_INTERRUPT, (uint16_t)(address >> 16), (uint32_t)(address >> 32), 0};
}

#define EXCEPTIONS(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21)
#define DECLARE(n) void exception_##n(void);
#define SET(n) set(n, exception_##n);
EXCEPTIONS(DECLARE)
void interrupt_timer(void);
void interrupt_power(void);
void interrupt_spurious(void);

void interrupts_start(void) {
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof table - 1, (uintptr_t)table};

    EXCEPTIONS(SET)
    set(VECTOR_TIMER, interrupt_timer);
    set(VECTOR_POWER, interrupt_power);
    set(VECTOR_SPURIOUS, interrupt_spurious);
    __asm__ volatile("lidt %0" : : "m"(pointer));
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

void interrupts_route(int gsi, int vector) {
    const uintptr_t io_apic = 0xfec00000;
    const uint32_t entry = 0x10 + 2 * (uint32_t)gsi, level_triggered = 0x8000;
    *memory32(io_apic) = entry + 1;
    *memory32(io_apic + 0x10) = 0; /* to processor 0 */
    *memory32(io_apic) = entry;
    *memory32(io_apic + 0x10) = (uint32_t)vector | level_triggered;
}
