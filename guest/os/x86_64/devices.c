/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The virtio devices of an x86_64 machine, and where they are.
 *
 * microvm has 24 places for virtio devices in memory (QEMU, include/hw/i386/microvm.h), pc and q35 have PCI. A device is opened once.
 */
#include "../../virtio/virtio.h"
#include "machine.h"
#include "pci.h"

enum { PLACES = 24, PLACE_BYTES = 512, FIRST_GSI = 24 };
static const uintptr_t places = 0xfeb00000;

bool devices_are_polled;

bool virtio_open(struct virtio *device, uint32_t kind) {
    if (pci_present()) {
        if (!virtio_pci_open(device, kind))
            return false;
        if (!device->has_vector)
            devices_are_polled = true;
        return true;
    }
    for (int i = 0; i < PLACES; i++) {
        if (!virtio_mmio_open(device, places + (uintptr_t)(i * PLACE_BYTES), kind))
            continue;
        interrupts_add_device(device);
        if (!interrupts_route(FIRST_GSI + i, VECTOR_DEVICE))
            devices_are_polled = true;
        return true;
    }
    return false;
}
