/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Interrupts: the timer and the power button; the old PICs masked; the I/O APIC.
 */
#include "machine.h"

void interrupt_timer(void);
void interrupt_power(void);
void interrupt_spurious(void);

void interrupts_start(void) {
    exceptions_set(VECTOR_TIMER, interrupt_timer);
    exceptions_set(VECTOR_POWER, interrupt_power);
    exceptions_set(VECTOR_SPURIOUS, interrupt_spurious);
    exceptions_start();
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
