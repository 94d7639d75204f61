/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The virtio devices of an arm64 machine: places in memory that the device tree names (QEMU's virt has 32), and what is random about it.
 */
#include "../../virtio/virtio.h"
#include "machine.h"

enum { DEVICES_MOST = 2 };

static const struct tree *places;
static struct virtio *devices[DEVICES_MOST];
static int device_count;

void devices_start(const struct tree *tree) {
    struct node chosen;
    struct property from, to;
    places = tree;
    if (!tree_find(tree, "chosen", &chosen) || !tree_property(tree, &chosen, "linux,initrd-start", &from) ||
        !tree_property(tree, &chosen, "linux,initrd-end", &to) || from.length != to.length)
        return;
    uint64_t begin = property_cell(&from, 0), end = property_cell(&to, 0);
    if (from.length == 8) {
        begin = begin << 32 | property_cell(&from, 1);
        end = end << 32 | property_cell(&to, 1);
    }
    if (end > begin)
        files_start((const void *)begin, end - begin);
}

void devices_interrupted(void) {
    for (int i = 0; i < device_count; i++)
        devices[i]->by->interrupted(devices[i]);
}

bool virtio_open(struct virtio *device, uint32_t kind) {
    struct node node = {NULL};
    while (device_count < DEVICES_MOST && tree_next(places, "virtio,mmio", &node)) {
        if (!virtio_mmio_open(device, tree_register(places, &node, 0), kind))
            continue;
        interrupts_open(interrupts_number(places, &node, 0));
        devices[device_count++] = device;
        return true;
    }
    return false;
}

/* The counter over the guest's life, mixed (splitmix64's finish). */
uint64_t os_random(void) {
    static uint64_t state;
    uint64_t x;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(x) : : "memory");
    state += x * 0x9e3779b97f4a7c15u | 1;
    x = state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
