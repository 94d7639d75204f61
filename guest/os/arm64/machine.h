/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files of the arm64 machine share, and who does what. Addresses and interrupts come from the device tree.
 */
#ifndef UNIFLEET_ARM64_MACHINE_H
#define UNIFLEET_ARM64_MACHINE_H

#include "../bare.h"
#include "../loop.h"
#include "tree.h"

static inline volatile uint32_t *memory32(uint64_t address) {
    return (volatile uint32_t *)address;
}

/* serial.c: the console. */
void serial_start(const struct tree *tree);

/* interrupts.c: which interrupts wake the guest. Numbers are the interrupt controller's own. */
void interrupts_start(const struct tree *tree);
/* The number of the index-th interrupt of a node; 0 when it has none. */
uint32_t interrupts_number(const struct tree *tree, const struct node *node, int index);
void interrupts_open(uint32_t number);
/* Sleep until one of them comes. */
void interrupts_wait(void);

/* time.c: the virtual timer, as clock and as alarm. */
void time_start(const struct tree *tree, uint64_t began);

/* devices.c: the virtio devices that the tree tells of, and the initrd. */
void devices_start(const struct tree *tree);
/* Let down the interrupt lines that they hold up. */
void devices_interrupted(void);

/* power.c: the power button and the way off. */
void power_start(const struct tree *tree);
bool power_button_pressed(void);

#endif
