/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio over memory-mapped registers (virtio 1.2, 4.2), both versions: QEMU's microvm offers version 1 unless told otherwise.
 */
#include "virtio.h"

enum { MAGIC = 0, VERSION = 4, KIND = 8, OFFERED = 0x10, OFFERED_SELECT = 0x14, ACCEPTED = 0x20, ACCEPTED_SELECT = 0x24, PAGE_SIZE = 0x28,
       QUEUE_SELECT = 0x30, QUEUE_MOST = 0x34, QUEUE_SIZE = 0x38, QUEUE_ALIGN = 0x3c, QUEUE_PAGE = 0x40, QUEUE_READY = 0x44, NOTIFY = 0x50,
       INTERRUPT_STATUS = 0x60, INTERRUPT_ACKNOWLEDGE = 0x64, STATUS = 0x70, DESCRIPTORS = 0x80, AVAILABLE = 0x90, USED = 0xa0, CONFIGURATION = 0x100 };
enum { PAGE = 4096, MAGIC_VALUE = 0x74726976 };

static volatile uint32_t *at(struct virtio *device, uint32_t offset) {
    return (volatile uint32_t *)(device->registers + offset);
}

static uint32_t offered(struct virtio *device, int word) {
    *at(device, OFFERED_SELECT) = (uint32_t)word;
    return *at(device, OFFERED);
}

static void accept(struct virtio *device, int word, uint32_t features) {
    *at(device, ACCEPTED_SELECT) = (uint32_t)word;
    *at(device, ACCEPTED) = features;
}

static uint8_t status(struct virtio *device) {
    return (uint8_t)*at(device, STATUS);
}

static void set_status(struct virtio *device, uint8_t value) {
    *at(device, STATUS) = value;
    if (!value && !device->modern)
        *at(device, PAGE_SIZE) = PAGE;
}

static uint16_t queue_most(struct virtio *device, uint16_t index) {
    *at(device, QUEUE_SELECT) = index;
    uint32_t most = *at(device, QUEUE_MOST);
    return most > 32768 ? 32768 : (uint16_t)most;
}

static void set_address(struct virtio *device, uint32_t offset, const void *address) {
    *at(device, offset) = (uint32_t)(uintptr_t)address;
    *at(device, offset + 4) = (uint32_t)((uint64_t)(uintptr_t)address >> 32);
}

static void queue_set(struct virtio *device, struct virtio_queue *queue) {
    *at(device, QUEUE_SIZE) = queue->size;
    if (device->modern) {
        set_address(device, DESCRIPTORS, queue->descriptors);
        set_address(device, AVAILABLE, queue->available);
        set_address(device, USED, queue->used);
        *at(device, QUEUE_READY) = 1;
    } else {
        *at(device, QUEUE_ALIGN) = PAGE;
        *at(device, QUEUE_PAGE) = (uint32_t)((uintptr_t)queue->descriptors / PAGE);
    }
}

static void notify(struct virtio *device, struct virtio_queue *queue) {
    *at(device, NOTIFY) = queue->index;
}

static uint8_t read8(struct virtio *device, uint32_t offset) {
    return *(volatile uint8_t *)(device->registers + CONFIGURATION + offset);
}

static bool interrupted(struct virtio *device) {
    uint32_t causes = *at(device, INTERRUPT_STATUS);
    if (causes)
        *at(device, INTERRUPT_ACKNOWLEDGE) = causes;
    return causes;
}

static const struct virtio_transport transport = {
    .offered = offered, .accept = accept, .status = status, .set_status = set_status, .queue_most = queue_most, .queue_set = queue_set,
    .notify = notify, .read8 = read8, .interrupted = interrupted};

bool virtio_mmio_open(struct virtio *device, uintptr_t base, uint32_t kind) {
    device->registers = base;
    uint32_t version = *at(device, VERSION);
    if (*at(device, MAGIC) != MAGIC_VALUE || (version != 1 && version != 2) || *at(device, KIND) != kind)
        return false;
    device->by = &transport;
    device->modern = version == 2;
    return true;
}
