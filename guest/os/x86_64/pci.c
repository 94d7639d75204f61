/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * PCI: finding devices, and placing what the firmware left unplaced.
 *
 * SeaBIOS sets everything up; qboot, which starts guests much faster, gives no device on PCI an address and no bridge a bus. What is
 * placed here lies in the machines' PCI hole, in memory from 0xf0000000 and in ports from 0xc000, and is never given back.
 */
#include "pci.h"

enum { BRIDGE = 1, MULTIFUNCTION = 0x80, CAPABILITY_MSIX = 0x11, STATUS_CAPABILITIES = 0x10 };
enum { ID = 0, COMMAND = 4, HEADER = 0xc, BAR = 0x10, BUSES = 0x18, BRIDGE_PORTS = 0x1c, BRIDGE_MEMORY = 0x20, BRIDGE_PREFETCHABLE = 0x24,
       CAPABILITIES = 0x34 };
enum { DECODE_AND_MASTER = 7, BRIDGES_MOST = 8, WINDOW = 0x100000, PORT_WINDOW = 0x1000 };

static uint32_t next_memory = 0xf0000000, next_port = 0xc000;
static uint32_t first_memory, first_port; /* of the windows of the bridges in path */
static uint8_t buses;
/* The bridges between bus 0 and the device in question; they pass on what lies in their windows. */
static struct pci_device path[BRIDGES_MOST];
static int depth;

static void point(const struct pci_device *device, uint32_t offset) {
    out32(0xcf8, 0x80000000u | (uint32_t)device->bus << 16 | (uint32_t)device->slot << 8 | (offset & 0xfc));
}

uint32_t pci_read32(const struct pci_device *device, uint32_t offset) {
    point(device, offset);
    return in32(0xcfc);
}

uint8_t pci_read8(const struct pci_device *device, uint32_t offset) {
    return (uint8_t)(pci_read32(device, offset) >> offset % 4 * 8);
}

void pci_write32(const struct pci_device *device, uint32_t offset, uint32_t value) {
    point(device, offset);
    out32(0xcfc, value);
}

static bool search(uint8_t bus, struct pci_device *found, uint16_t vendor, uint16_t one, uint16_t other);

static bool search_behind(const struct pci_device *bridge, struct pci_device *found, uint16_t vendor, uint16_t one, uint16_t other) {
    uint32_t numbers = pci_read32(bridge, BUSES);
    uint8_t secondary = (uint8_t)(numbers >> 8);
    bool placed = secondary;
    if (depth == BRIDGES_MOST)
        return false;
    if (!placed) {
        secondary = ++buses;
        pci_write32(bridge, BUSES, (numbers & 0xff000000u) | 0xff0000u | (uint32_t)secondary << 8 | bridge->bus);
    } else if (secondary <= bridge->bus) {
        return false;
    }
    path[depth++] = *bridge;
    bool there = search(secondary, found, vendor, one, other);
    if (!there)
        depth--;
    if (!placed)
        pci_write32(bridge, BUSES, (numbers & 0xff000000u) | (uint32_t)buses << 16 | (uint32_t)secondary << 8 | bridge->bus);
    return there;
}

static bool search(uint8_t bus, struct pci_device *found, uint16_t vendor, uint16_t one, uint16_t other) {
    for (int slot = 0; slot < 256; slot++) {
        struct pci_device device = {bus, (uint8_t)slot};
        uint32_t id = pci_read32(&device, ID);
        uint8_t header = pci_read8(&device, HEADER + 2);
        if ((id & 0xffff) == vendor && (id >> 16 == one || id >> 16 == other)) {
            *found = device;
            return true;
        }
        if ((id & 0xffff) != 0xffff && (header & 0x7f) == BRIDGE && search_behind(&device, found, vendor, one, other))
            return true;
        if (slot % 8 == 0 && ((id & 0xffff) == 0xffff || !(header & MULTIFUNCTION)))
            slot += 7;
    }
    return false;
}

bool pci_present(void) {
    return (pci_read32(&(struct pci_device){0, 0}, ID) & 0xffff) != 0xffff;
}

bool pci_find(struct pci_device *found, uint16_t vendor, uint16_t one, uint16_t other) {
    depth = 0;
    first_memory = next_memory = (next_memory + WINDOW - 1) & ~(WINDOW - 1u);
    first_port = next_port = (next_port + PORT_WINDOW - 1) & ~(PORT_WINDOW - 1u);
    return search(0, found, vendor, one, other);
}

void pci_enable(const struct pci_device *device) {
    for (int i = 0; i < depth; i++)
        pci_write32(&path[i], COMMAND, (pci_read32(&path[i], COMMAND) & 0xffff) | DECODE_AND_MASTER);
    pci_write32(device, COMMAND, (pci_read32(device, COMMAND) & 0xffff) | DECODE_AND_MASTER);
}

uint8_t pci_capability(const struct pci_device *device, uint8_t kind, uint8_t after) {
    if (!(pci_read32(device, COMMAND) >> 16 & STATUS_CAPABILITIES))
        return 0;
    uint8_t at = pci_read8(device, after ? after + 1u : CAPABILITIES) & 0xfc;
    for (int turns = 0; at && turns < 48; turns++, at = pci_read8(device, at + 1u) & 0xfc)
        if (pci_read8(device, at) == kind)
            return at;
    return 0;
}

/* Pages of 2 MiB for the GiB around address, which lies above what pvh.S maps. */
static bool map(uint64_t address) {
    static uint64_t directory[512] __attribute__((aligned(4096)));
    static uint64_t mapped;
    uint64_t gigabyte = address >> 30, *pdpt;
    if (gigabyte < 1 || gigabyte == 3 || gigabyte == mapped)
        return true;
    if (mapped || gigabyte > 511)
        return false;
    __asm__("mov %%cr3, %0" : "=r"(pdpt));
    pdpt = (uint64_t *)(uintptr_t)(*(uint64_t *)((uintptr_t)pdpt & ~0xfffull) & ~0xfffull);
    for (uint64_t i = 0; i < 512; i++)
        directory[i] = (gigabyte << 30 | i << 21) + 0x9b; /* uncached, as in pvh.S */
    pdpt[gigabyte] = (uint64_t)(uintptr_t)directory + 3;
    mapped = gigabyte;
    return true;
}

static void open_window(uint32_t offset, uint32_t from, uint32_t to) {
    for (int i = 0; i < depth; i++)
        pci_write32(&path[i], offset, (to & 0xfff00000u) | from >> 16);
}

uintptr_t pci_memory(const struct pci_device *device, int bar) {
    uint32_t offset = BAR + 4u * (uint32_t)bar, low = pci_read32(device, offset);
    bool wide = (low & 6) == 4;
    if (low & 1)
        return 0;
    uint64_t address = (low & ~15u) | (wide ? (uint64_t)pci_read32(device, offset + 4) << 32 : 0);
    if (!address) {
        pci_write32(device, offset, ~0u);
        uint32_t size = ~(pci_read32(device, offset) & ~15u) + 1;
        if (!size || size > 16 * WINDOW)
            return 0;
        uint32_t place = (next_memory + size - 1) & ~(size - 1);
        next_memory = place + size;
        pci_write32(device, offset, place);
        if (wide)
            pci_write32(device, offset + 4, 0);
        /* One window for all of it, prefetchable or not: an ordinary one may hold both. */
        open_window(BRIDGE_MEMORY, first_memory, next_memory - 1);
        open_window(BRIDGE_PREFETCHABLE, 0xfff00000, 0);
        address = place;
    }
    return map(address) ? (uintptr_t)address : 0;
}

uint16_t pci_ports(const struct pci_device *device, int bar) {
    uint32_t offset = BAR + 4u * (uint32_t)bar, low = pci_read32(device, offset);
    if (!(low & 1))
        return 0;
    if (!(low & 0xfffc)) {
        pci_write32(device, offset, ~0u);
        uint32_t size = (~(pci_read32(device, offset) & 0xfffcu) + 1) & 0xffff;
        if (!size || size > 256)
            return 0;
        next_port = (next_port + size - 1) & ~(size - 1);
        pci_write32(device, offset, next_port);
        low = next_port;
        next_port += size;
        for (int i = 0; i < depth; i++)
            pci_write32(&path[i], BRIDGE_PORTS, (pci_read32(&path[i], BRIDGE_PORTS) & 0xffff0000u) | ((next_port - 1) & 0xf000) | first_port >> 8);
    }
    return (uint16_t)(low & 0xfffc);
}

bool pci_message_interrupt(const struct pci_device *device, uint8_t vector) {
    uint8_t at = pci_capability(device, CAPABILITY_MSIX, 0);
    if (!at)
        return false;
    uint32_t table = pci_read32(device, at + 4u);
    uintptr_t base = pci_memory(device, (int)(table & 7));
    if (!base)
        return false;
    volatile uint32_t *entry = memory32(base + (table & ~7u));
    pci_write32(device, at, (pci_read32(device, at) & 0x3fffffffu) | 0x80000000u);
    entry[0] = 0xfee00000;
    entry[1] = 0;
    entry[2] = vector;
    entry[3] = 0;
    return true;
}
