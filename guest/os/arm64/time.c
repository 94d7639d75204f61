/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Time: the virtual counter as clock, its timer as alarm. Both are exact and need no measuring.
 */
#include "machine.h"

static uint64_t began, frequency;

enum { VIRTUAL_TIMER = 2 /* third in the node's list, Linux Documentation/devicetree/bindings/timer/arm,arch_timer.yaml */, ON = 1, MASKED = 2 };

static uint64_t counter(void) {
    uint64_t value;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value) : : "memory");
    return value;
}

static void set_timer(uint64_t at, uint64_t control) {
    __asm__ volatile("msr cntv_cval_el0, %0\n\tmsr cntv_ctl_el0, %1\n\tisb" : : "r"(at), "r"(control) : "memory");
}

uint64_t os_now(void) {
    uint64_t ticks = counter() - began;
    return ticks / frequency * 1000000000u + ticks % frequency * 1000000000u / frequency;
}

void time_start(const struct tree *tree, uint64_t first) {
    struct node node = {NULL};
    began = first;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
    if (!frequency || !tree_next(tree, "arm,armv8-timer", &node))
        bare_fail("the machine has no timer that is known (armv8)");
    interrupts_open(interrupts_number(tree, &node, VIRTUAL_TIMER));
    set_timer(0, MASKED);
}

bool platform_stopping(void) {
    return power_button_pressed();
}

void platform_wait(uint64_t until) {
    uint64_t ticks = until / 1000000000u * frequency + (until % 1000000000u * frequency + 999999999u) / 1000000000u;
    if (until == UINT64_MAX)
        set_timer(0, MASKED);
    else
        set_timer(began + ticks, ON);
    if (!power_button_pressed())
        interrupts_wait();
    set_timer(0, MASKED);
    devices_interrupted();
}
