/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio: devices apart from how they are reached.
 *
 * A transport (mmio.c: memory-mapped registers, legacy and modern; pci.c: modern and legacy PCI) fills in struct virtio; a device
 * (net.c, console.c) drives it through the functions of virtio.c. The specification is OASIS virtio 1.2; "legacy" is its 0.9.5 interface.
 */
#ifndef UNIFLEET_VIRTIO_H
#define UNIFLEET_VIRTIO_H

#include "../os/os.h"

enum { VIRTIO_NET = 1, VIRTIO_CONSOLE = 3 };
enum { VIRTIO_ANY_LAYOUT = 27, VIRTIO_VERSION_1 = 32 };
enum { VIRTIO_DEVICE_WRITES = 2 };

struct virtio_queue {
    uint16_t index, size, seen;
    struct virtio_descriptor {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } *descriptors;
    struct virtio_available {
        uint16_t flags, index, ring[];
    } *available;
    struct virtio_used {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[];
    } *used;
    uintptr_t doorbell; /* the transport's */
};

struct virtio {
    const struct virtio_transport *by;
    bool modern, has_vector;
    uintptr_t registers, configuration, doorbells, interrupt_status; /* the transport's */
    uint32_t doorbell_step;
    uint64_t features; /* those agreed upon */
};

struct virtio_transport {
    uint32_t (*offered)(struct virtio *device, int word);             /* 32 features of the device */
    void (*accept)(struct virtio *device, int word, uint32_t features); /* 32 features of the driver */
    uint8_t (*status)(struct virtio *device);
    void (*set_status)(struct virtio *device, uint8_t status);
    uint16_t (*queue_most)(struct virtio *device, uint16_t index);   /* the size of a queue at most, 0 when there is none; selects it */
    bool queue_size_fixed;                                            /* whether it has to be just that size */
    void (*queue_set)(struct virtio *device, struct virtio_queue *queue); /* of the selected queue */
    void (*notify)(struct virtio *device, struct virtio_queue *queue);
    uint8_t (*read8)(struct virtio *device, uint32_t offset);        /* the device's own configuration */
    bool (*interrupted)(struct virtio *device);                       /* take a level-triggered interrupt back; whether there was one */
};

/* Reset the device and agree on those of wanted that it offers (and on VIRTIO_VERSION_1 or VIRTIO_ANY_LAYOUT, without which false). */
bool virtio_begin(struct virtio *device, uint64_t wanted);
/* Set up a queue of at most size entries; false when the device has no such queue, or there is no memory for it. */
bool virtio_queue_start(struct virtio *device, struct virtio_queue *queue, uint16_t index, uint16_t size);
/* All queues are set up. */
void virtio_ready(struct virtio *device);

/* Hand the buffer to the device as the queue's entry; flags: 0 or VIRTIO_DEVICE_WRITES. The device learns of it by virtio_notify. */
void virtio_give(struct virtio_queue *queue, uint16_t entry, const void *buffer, uint32_t length, uint16_t flags);
void virtio_notify(struct virtio *device, struct virtio_queue *queue);
/* An entry that the device has done with, and how much it wrote there; -1 when there is none. Untrusted as it is, both are within bounds. */
int virtio_take(struct virtio_queue *queue, uint32_t *length);
/* No interrupt for this queue. */
void virtio_quiet(struct virtio_queue *queue);

/* mmio.c: the device of this kind behind the 512 bytes of registers at base; false when there is none. */
bool virtio_mmio_open(struct virtio *device, uintptr_t base, uint32_t kind);

/* The machine: open its first device of this kind, once; false when there is none. */
bool virtio_open(struct virtio *device, uint32_t kind);

struct card;
/* net.c: a network card on an opened device; NULL when it cannot be driven. */
struct card *virtio_net_start(struct virtio *device);

/* console.c: a console on an opened device; false when it cannot be driven. */
bool virtio_console_start(struct virtio *device);
/* What its ports have brought, at most size bytes; 0 when none wait. */
size_t virtio_console_read(char *bytes, size_t size);

#endif
