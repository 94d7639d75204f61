/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio's start-up dance and its split queues, for every device and transport.
 *
 * Nothing here waits for the device. What it writes into the used ring is checked, so that a broken device cannot lead past a buffer.
 */
#include "virtio.h"

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, FAILED = 128 };
enum { PAGE = 4096, PAGES = 16, NO_INTERRUPT = 1 };

static uint8_t pages[PAGES][PAGE] __attribute__((aligned(PAGE)));
static int pages_used;

static inline void barrier(void) {
    __sync_synchronize();
}

bool virtio_begin(struct virtio *device, uint64_t wanted) {
    uint64_t offered = 0;
    uint64_t needed = device->modern ? 1ull << VIRTIO_VERSION_1 : 1ull << VIRTIO_ANY_LAYOUT;

    device->by->set_status(device, 0);
    device->by->set_status(device, ACKNOWLEDGE);
    device->by->set_status(device, ACKNOWLEDGE | DRIVER);
    for (int word = 0; word < (device->modern ? 2 : 1); word++)
        offered |= (uint64_t)device->by->offered(device, word) << 32 * word;
    device->features = offered & (wanted | needed);
    if (!(offered & needed)) {
        device->by->set_status(device, FAILED);
        return false;
    }
    for (int word = 0; word < (device->modern ? 2 : 1); word++)
        device->by->accept(device, word, (uint32_t)(device->features >> 32 * word));
    if (!device->modern)
        return true;
    device->by->set_status(device, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if (device->by->status(device) & FEATURES_OK)
        return true;
    device->by->set_status(device, FAILED);
    return false;
}

/* The legacy layout, which modern devices take as well: descriptors and available ring, then the used ring on a page of its own. */
bool virtio_queue_start(struct virtio *device, struct virtio_queue *queue, uint16_t index, uint16_t size) {
    uint16_t most = device->by->queue_most(device, index);
    if (!most)
        return false;
    if (device->by->queue_size_fixed || size > most)
        size = most;
    size_t first = (16u * size + 6 + 2u * size + PAGE - 1) / PAGE, second = (6 + 8u * size + PAGE - 1) / PAGE;
    if (size & (size - 1) || pages_used + first + second > PAGES)
        return false;
    uint8_t *memory = pages[pages_used];
    pages_used += (int)(first + second);
    queue->index = index;
    queue->size = size;
    queue->seen = 0;
    queue->descriptors = (struct virtio_descriptor *)(void *)memory;
    queue->available = (struct virtio_available *)(void *)(memory + 16u * size);
    queue->used = (struct virtio_used *)(void *)(memory + first * PAGE);
    device->by->queue_set(device, queue);
    return true;
}

void virtio_ready(struct virtio *device) {
    device->by->set_status(device, ACKNOWLEDGE | DRIVER | DRIVER_OK | (device->modern ? FEATURES_OK : 0));
}

void virtio_give(struct virtio_queue *queue, uint16_t entry, const void *buffer, uint32_t length, uint16_t flags) {
    volatile struct virtio_available *available = queue->available;
    queue->descriptors[entry] = (struct virtio_descriptor){(uintptr_t)buffer, length, flags, 0};
    available->ring[available->index % queue->size] = entry;
    barrier();
    available->index++;
}

void virtio_notify(struct virtio *device, struct virtio_queue *queue) {
    barrier();
    if (!(((volatile struct virtio_used *)queue->used)->flags & NO_INTERRUPT))
        device->by->notify(device, queue);
}

int virtio_take(struct virtio_queue *queue, uint32_t *length) {
    volatile struct virtio_used *used = queue->used;
    while (queue->seen != used->index) {
        barrier();
        uint32_t entry = used->ring[queue->seen % queue->size].id;
        *length = used->ring[queue->seen % queue->size].length;
        queue->seen++;
        if (entry >= queue->size)
            continue;
        if (*length > queue->descriptors[entry].length)
            *length = queue->descriptors[entry].length;
        return (int)entry;
    }
    return -1;
}

void virtio_quiet(struct virtio_queue *queue) {
    queue->available->flags = NO_INTERRUPT;
}
