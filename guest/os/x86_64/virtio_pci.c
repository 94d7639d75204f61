/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * virtio over PCI (virtio 1.2, 4.1): the modern capabilities, and legacy's I/O ports for devices that have none.
 *
 * Interrupts come as MSI-X, because its address and vector need no knowledge of how a machine wires interrupt pins.
 */
#include "../../virtio/virtio.h"
#include "pci.h"

enum { VENDOR = 0x1af4, TRANSITIONAL = 0x1000, MODERN = 0x1040, CAPABILITY_VENDOR = 9 };
enum { COMMON = 1, NOTIFY = 2, INTERRUPT = 3, DEVICE = 4 };
/* struct virtio_pci_common_cfg */
enum { OFFERED_SELECT = 0, OFFERED = 4, ACCEPTED_SELECT = 8, ACCEPTED = 12, STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26,
       QUEUE_ENABLE = 28, QUEUE_NOTIFY = 30, DESCRIPTORS = 32, AVAILABLE = 40, USED = 48 };
/* Legacy's I/O ports; the device's own configuration comes after two vector registers where MSI-X is on. */
enum { LEGACY_OFFERED = 0, LEGACY_ACCEPTED = 4, LEGACY_PAGE = 8, LEGACY_SIZE = 12, LEGACY_SELECT = 14, LEGACY_NOTIFY = 16, LEGACY_STATUS = 18,
       LEGACY_INTERRUPT = 19, LEGACY_QUEUE_VECTOR = 22, LEGACY_DEVICE = 20, LEGACY_DEVICE_MSIX = 24 };
enum { PAGE = 4096, NO_VECTOR = 0xffff };

static volatile uint8_t *at8(uintptr_t address) {
    return (volatile uint8_t *)address;
}
static volatile uint16_t *at16(uintptr_t address) {
    return (volatile uint16_t *)address;
}

static uint32_t offered(struct virtio *device, int word) {
    *memory32(device->registers + OFFERED_SELECT) = (uint32_t)word;
    return *memory32(device->registers + OFFERED);
}
static void accept(struct virtio *device, int word, uint32_t features) {
    *memory32(device->registers + ACCEPTED_SELECT) = (uint32_t)word;
    *memory32(device->registers + ACCEPTED) = features;
}
static uint8_t status(struct virtio *device) {
    return *at8(device->registers + STATUS);
}
static void set_status(struct virtio *device, uint8_t value) {
    *at8(device->registers + STATUS) = value;
    while (!value && *at8(device->registers + STATUS))
        __asm__ volatile("pause");
}
static uint16_t queue_most(struct virtio *device, uint16_t index) {
    *at16(device->registers + QUEUE_SELECT) = index;
    return *at16(device->registers + QUEUE_SIZE);
}
static void set_address(struct virtio *device, uint32_t offset, const void *address) {
    *memory32(device->registers + offset) = (uint32_t)(uintptr_t)address;
    *memory32(device->registers + offset + 4) = (uint32_t)((uint64_t)(uintptr_t)address >> 32);
}
static void queue_set(struct virtio *device, struct virtio_queue *queue) {
    *at16(device->registers + QUEUE_SIZE) = queue->size;
    *at16(device->registers + QUEUE_VECTOR) = device->has_vector ? 0 : NO_VECTOR;
    set_address(device, DESCRIPTORS, queue->descriptors);
    set_address(device, AVAILABLE, queue->available);
    set_address(device, USED, queue->used);
    queue->doorbell = device->doorbells + device->doorbell_step * *at16(device->registers + QUEUE_NOTIFY);
    *at16(device->registers + QUEUE_ENABLE) = 1;
}
static void notify(struct virtio *device, struct virtio_queue *queue) {
    (void)device;
    *at16(queue->doorbell) = queue->index;
}
static uint8_t read8(struct virtio *device, uint32_t offset) {
    return *at8(device->configuration + offset);
}
static bool interrupted(struct virtio *device) {
    return *at8(device->interrupt_status); /* reading clears it */
}

static const struct virtio_transport modern = {
    .offered = offered, .accept = accept, .status = status, .set_status = set_status, .queue_most = queue_most, .queue_set = queue_set,
    .notify = notify, .read8 = read8, .interrupted = interrupted};

static uint16_t port(struct virtio *device, uint32_t offset) {
    return (uint16_t)(device->registers + offset);
}
static uint32_t legacy_offered(struct virtio *device, int word) {
    return word ? 0 : in32(port(device, LEGACY_OFFERED));
}
static void legacy_accept(struct virtio *device, int word, uint32_t features) {
    if (!word)
        out32(port(device, LEGACY_ACCEPTED), features);
}
static uint8_t legacy_status(struct virtio *device) {
    return in8(port(device, LEGACY_STATUS));
}
static void legacy_set_status(struct virtio *device, uint8_t value) {
    out8(port(device, LEGACY_STATUS), value);
}
static uint16_t legacy_queue_most(struct virtio *device, uint16_t index) {
    out16(port(device, LEGACY_SELECT), index);
    return in16(port(device, LEGACY_SIZE));
}
static void legacy_queue_set(struct virtio *device, struct virtio_queue *queue) {
    if (device->has_vector)
        out16(port(device, LEGACY_QUEUE_VECTOR), 0);
    out32(port(device, LEGACY_PAGE), (uint32_t)((uintptr_t)queue->descriptors / PAGE));
}
static void legacy_notify(struct virtio *device, struct virtio_queue *queue) {
    out16(port(device, LEGACY_NOTIFY), queue->index);
}
static uint8_t legacy_read8(struct virtio *device, uint32_t offset) {
    return in8(port(device, (device->has_vector ? LEGACY_DEVICE_MSIX : LEGACY_DEVICE) + offset));
}
static bool legacy_interrupted(struct virtio *device) {
    return in8(port(device, LEGACY_INTERRUPT));
}

static const struct virtio_transport legacy = {
    .offered = legacy_offered, .accept = legacy_accept, .status = legacy_status, .set_status = legacy_set_status,
    .queue_most = legacy_queue_most, .queue_size_fixed = true, .queue_set = legacy_queue_set, .notify = legacy_notify,
    .read8 = legacy_read8, .interrupted = legacy_interrupted};

bool virtio_pci_open(struct virtio *device, uint32_t kind) {
    struct pci_device found;
    uint16_t old = (uint16_t)(kind == VIRTIO_NET ? TRANSITIONAL : TRANSITIONAL + kind), now = (uint16_t)(MODERN + kind);
    if (!pci_find(&found, VENDOR, old, now))
        return false;
    pci_enable(&found);
    device->has_vector = pci_message_interrupt(&found, VECTOR_DEVICE);
    for (uint8_t at = 0; (at = pci_capability(&found, CAPABILITY_VENDOR, at));) {
        uint8_t what = pci_read8(&found, at + 3u), bar = pci_read8(&found, at + 4u);
        uintptr_t base = what >= COMMON && what <= DEVICE && bar < 6 ? pci_memory(&found, bar) : 0;
        if (!base)
            continue;
        base += pci_read32(&found, at + 8u);
        uintptr_t *which = what == COMMON ? &device->registers : what == NOTIFY ? &device->doorbells :
                           what == INTERRUPT ? &device->interrupt_status : &device->configuration;
        if (*which)
            continue; /* the first one of a kind is the best */
        *which = base;
        if (what == NOTIFY)
            device->doorbell_step = pci_read32(&found, at + 16u);
    }
    if (device->registers && device->doorbells && device->configuration && device->interrupt_status) {
        device->by = &modern;
        device->modern = true;
        return true;
    }
    device->registers = pci_ports(&found, 0);
    device->by = &legacy;
    device->modern = false;
    return device->registers;
}
