/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The console: the first PL011 (Arm DDI 0183), written by polling.
 */
#include "machine.h"

enum { DATA = 0x00, FLAGS = 0x18, LINE = 0x2c, CONTROL = 0x30, FULL = 0x20, BUSY = 0x08, FIFO_8_BITS = 0x70, ON = 0x101 };

static uint64_t port; /* 0: there is none, and what is written is lost */

void serial_start(const struct tree *tree) {
    struct node node = {NULL};
    if (!tree_next(tree, "arm,pl011", &node))
        return;
    port = tree_register(tree, &node, 0);
    *memory32(port + CONTROL) = 0;
    *memory32(port + LINE) = FIFO_8_BITS;
    *memory32(port + CONTROL) = ON;
}

void console_drain(void) {
    while (port && *memory32(port + FLAGS) & BUSY)
        __asm__ volatile("yield");
}

bool os_write(const char *bytes, size_t length) {
    for (; port && length; bytes++, length--) {
        while (*memory32(port + FLAGS) & FULL)
            __asm__ volatile("yield");
        *memory32(port + DATA) = (unsigned char)*bytes;
    }
    return true;
}
