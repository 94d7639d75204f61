/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The power button and the way off, on QEMU's virt machine.
 *
 * Without firmware the button is a key on a PL061 (Arm DDI 0190), its pin as the node poweroff says; it is down for a tenth of
 * a second, so the controller keeps the edge. The way off is PSCI's SYSTEM_OFF (Arm DEN 0022).
 */
#include "machine.h"

enum { DIRECTION = 0x400, SENSE = 0x404, BOTH_EDGES = 0x408, EVENT = 0x40c, MASK = 0x410, RAW = 0x414, CLEAR = 0x41c };
enum { SYSTEM_OFF = 0x84000008, SYSTEM_RESET = 0x84000009 };

static uint64_t gpio; /* 0: the machine has no power button */
static uint32_t button;
static bool pressed, by_smc;

static void find_button(const struct tree *tree) {
    struct node key, controller = {NULL};
    struct property gpios;
    if (!tree_find(tree, "poweroff", &key) || !tree_property(tree, &key, "gpios", &gpios) || !tree_next(tree, "arm,pl061", &controller))
        return;
    gpio = tree_register(tree, &controller, 0);
    button = 1u << (property_cell(&gpios, 1) & 7); /* the controller, the pin, flags */
    *memory32(gpio + DIRECTION) &= ~button;
    *memory32(gpio + SENSE) &= ~button;
    *memory32(gpio + BOTH_EDGES) &= ~button;
    *memory32(gpio + EVENT) |= button;
    *memory32(gpio + CLEAR) = button;
    *memory32(gpio + MASK) = button;
    interrupts_open(interrupts_number(tree, &controller, 0));
}

void power_start(const struct tree *tree) {
    struct node psci;
    struct property method;
    if (tree_find(tree, "psci", &psci) && tree_property(tree, &psci, "method", &method))
        by_smc = method.length && method.bytes[0] == 's';
    find_button(tree);
}

bool power_button_pressed(void) {
    if (gpio && *memory32(gpio + RAW) & button) {
        *memory32(gpio + CLEAR) = button;
        pressed = true;
    }
    return pressed;
}

static void firmware_call(uint32_t function) {
    register uint64_t x0 __asm__("x0") = function;
    if (by_smc)
        __asm__ volatile("smc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
    else
        __asm__ volatile("hvc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
}

_Noreturn void power_off(void) {
    firmware_call(SYSTEM_OFF);
    firmware_call(SYSTEM_RESET);
    for (;;)
        __asm__ volatile("wfi");
}
