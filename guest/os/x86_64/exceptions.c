/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The interrupt descriptor table, with the exceptions in it.
 */
#include "machine.h"

struct gate {
    uint16_t low, selector;
    uint16_t flags, middle;
    uint32_t high, zero;
} __attribute__((packed));

enum { VECTORS = 48, GATE_INTERRUPT = 0x8e00, CODE_SELECTOR = 8 };

static struct gate table[VECTORS] __attribute__((aligned(16)));

void exceptions_set(int vector, void (*entry)(void)) {
    uintptr_t address = (uintptr_t)entry;
    table[vector] = (struct gate){(uint16_t)address, CODE_SELECTOR, GATE_INTERRUPT, (uint16_t)(address >> 16), (uint32_t)(address >> 32), 0};
}

#define EXCEPTIONS(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21)
#define DECLARE(n) void exception_##n(void);
#define SET(n) exceptions_set(n, exception_##n);
EXCEPTIONS(DECLARE)

void exceptions_start(void) {
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof table - 1, (uintptr_t)table};

    EXCEPTIONS(SET)
    __asm__ volatile("lidt %0" : : "m"(pointer));
}
