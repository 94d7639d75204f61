/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Interrupts without handlers: GICv2 (Arm IHI 0048) or GICv3 (IHI 0069) wakes the processor from wfi, which it does while they are
 * masked in the processor too. What woke it is acknowledged here; the drivers look at their devices after each wait. So nothing ever
 * runs in between, and no wake-up is missed: one that comes just before the wfi is still pending then.
 */
#include "machine.h"

enum { CONTROL = 0x0, ENABLE = 0x100, PRIORITY = 0x400, GROUP = 0x80, NOTHING_PENDING = 1020, FIRST_SHARED = 32 };
enum { V2_PRIORITY_MASK = 0x4, V2_ACKNOWLEDGE = 0xc, V2_END = 0x10 };
enum { V3_ON = 0x12, V3_ROUTE = 0x6000, REDISTRIBUTOR_WAKER = 0x14, REDISTRIBUTOR_PRIVATE = 0x10000 };

static uint64_t distributor, processor, redistributor; /* one of the last two */

#define ICC_PMR "S3_0_C4_C6_0"
#define ICC_IAR1 "S3_0_C12_C12_0"
#define ICC_EOIR1 "S3_0_C12_C12_1"
#define ICC_SRE "S3_0_C12_C12_5"
#define ICC_IGRPEN1 "S3_0_C12_C12_7"
#define READ(name, value) __asm__ volatile("mrs %0, " name : "=r"(value) : : "memory")
#define WRITE(name, value) __asm__ volatile("msr " name ", %0\n\tisb" : : "r"((uint64_t)(value)) : "memory")

static void start_v3(void) {
    WRITE(ICC_SRE, 1);
    WRITE(ICC_PMR, 0xff);
    WRITE(ICC_IGRPEN1, 1);
    *memory32(redistributor + REDISTRIBUTOR_WAKER) = 0;
    while (*memory32(redistributor + REDISTRIBUTOR_WAKER) & 4)
        __asm__ volatile("yield");
    *memory32(distributor + CONTROL) = V3_ON;
}

void interrupts_start(const struct tree *tree) {
    struct node node = {NULL};
    if (tree_next(tree, "arm,gic-v3", &node)) {
        distributor = tree_register(tree, &node, 0);
        redistributor = tree_register(tree, &node, 2);
        start_v3();
        return;
    }
    node.at = NULL;
    if (!tree_next(tree, "arm,cortex-a15-gic", &node))
        bare_fail("the machine has no interrupt controller that is known (GICv2, GICv3)");
    distributor = tree_register(tree, &node, 0);
    processor = tree_register(tree, &node, 2);
    *memory32(distributor + CONTROL) = 1;
    *memory32(processor + V2_PRIORITY_MASK) = 0xff;
    *memory32(processor + CONTROL) = 1;
}

uint32_t interrupts_number(const struct tree *tree, const struct node *node, int index) {
    struct property list;
    if (!tree_property(tree, node, "interrupts", &list) || list.length / 12 <= (uint32_t)index)
        return 0;
    uint32_t is_private = property_cell(&list, 3 * (uint32_t)index);
    return property_cell(&list, 3 * (uint32_t)index + 1) + (is_private ? 16 : FIRST_SHARED);
}

void interrupts_open(uint32_t number) {
    uint32_t word = number / 32 * 4, bit = 1u << number % 32;
    uint64_t base = redistributor && number < FIRST_SHARED ? redistributor + REDISTRIBUTOR_PRIVATE : distributor;
    if (!number)
        return;
    ((volatile uint8_t *)(base + PRIORITY))[number] = 0x80;
    if (redistributor) {
        *memory32(base + GROUP + word) |= bit;
        if (number >= FIRST_SHARED)
            *(volatile uint64_t *)(base + V3_ROUTE + 8 * number) = 0; /* to processor 0 */
    } else if (number >= FIRST_SHARED) {
        ((volatile uint8_t *)(base + 0x800))[number] = 1;
    }
    *memory32(base + ENABLE + word) = bit;
}

static uint32_t acknowledge(void) {
    uint64_t number;
    if (processor) {
        number = *memory32(processor + V2_ACKNOWLEDGE) & 0x3ff;
        if (number < NOTHING_PENDING)
            *memory32(processor + V2_END) = (uint32_t)number;
    } else {
        READ(ICC_IAR1, number);
        if (number < NOTHING_PENDING)
            WRITE(ICC_EOIR1, number);
    }
    return (uint32_t)number;
}

void interrupts_wait(void) {
    __asm__ volatile("dsb sy\n\twfi" : : : "memory");
    /* A line that its device still holds up is pending again at once; the driver lets it down later. So not until nothing is pending. */
    for (int turns = 0; turns < 64 && acknowledge() < NOTHING_PENDING; turns++)
        continue;
}
