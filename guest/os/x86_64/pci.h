/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * PCI on x86: configuration by ports 0xcf8 and 0xcfc, devices behind bridges too.
 */
#ifndef UNIFLEET_PCI_H
#define UNIFLEET_PCI_H

#include "machine.h"

struct virtio;

struct pci_device {
    uint8_t bus, slot; /* slot: device number * 8 + function */
};

uint32_t pci_read32(const struct pci_device *device, uint32_t offset);
uint8_t pci_read8(const struct pci_device *device, uint32_t offset);
void pci_write32(const struct pci_device *device, uint32_t offset, uint32_t value);

/* Whether there is a bus at all. */
bool pci_present(void);
/* The first device of this vendor with either identity. Gives the bridges on the way bus numbers where the firmware has not. */
bool pci_find(struct pci_device *found, uint16_t vendor, uint16_t one, uint16_t other);
/* Let it answer on its ports and memory, and reach ours. */
void pci_enable(const struct pci_device *device);
/* The next capability of this kind after the one at `after` (0: the first); 0 when there is none. */
uint8_t pci_capability(const struct pci_device *device, uint8_t kind, uint8_t after);
/* Where base address register bar leads in memory (mapped) or in ports, placing it where the firmware has not; 0 when it is not of that kind. */
uintptr_t pci_memory(const struct pci_device *device, int bar);
uint16_t pci_ports(const struct pci_device *device, int bar);
/* Have its MSI-X entry 0 raise vector; false when it has no MSI-X. */
bool pci_message_interrupt(const struct pci_device *device, uint8_t vector);

/* virtio_pci.c */
bool virtio_pci_open(struct virtio *device, uint32_t kind);

#endif
