/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The power button and the way off, on QEMU's pc, q35 and microvm machines.
 *
 * pc and q35: the ACPI fixed hardware of PIIX4 (device 0:1.3) or ICH9 (0:1f.0), whose port base is set here where the firmware has
 * not. The button's status bit rises only while its enable bit is set. microvm: the Generic Event Device at 0xfea00000
 * (QEMU, include/hw/i386/microvm.h and hw/acpi/generic_event_device.c). Both raise global interrupt 9.
 */
#include "machine.h"

enum { PM_BASE = 0x600, PM_STATUS = 0, PM_ENABLE = 2, PM_CONTROL = 4, BUTTON = 0x100, SLEEP_NOW = 0x2000, GSI_POWER = 9 };

static const uintptr_t ged_events = 0xfea00000, ged_registers = 0xfea00200;
enum { GED_POWER_DOWN = 2, GED_SLEEP_S5 = 5 << 2 | 0x20, GED_RESET = 0x42 };

static uint16_t pm_base; /* 0: there is no such hardware, so this is a microvm */
static bool pressed;

static uint32_t pci_read(int device, int function, int offset) {
    out32(0xcf8, 0x80000000u | (uint32_t)(device << 11 | function << 8 | offset));
    return in32(0xcfc);
}

static void pci_write(int device, int function, int offset, uint32_t value) {
    out32(0xcf8, 0x80000000u | (uint32_t)(device << 11 | function << 8 | offset));
    out32(0xcfc, value);
}

static uint16_t find_pm_base(int device, int function, int enable_offset, uint32_t enable_bit) {
    uint16_t base = (uint16_t)(pci_read(device, function, 0x40) & 0xff80);
    uint32_t enable = pci_read(device, function, enable_offset);
    if (!base) {
        base = PM_BASE;
        pci_write(device, function, 0x40, PM_BASE | 1);
    }
    if (!(enable & enable_bit))
        pci_write(device, function, enable_offset, enable | enable_bit);
    return base;
}

void power_start(void) {
    if (pci_read(1, 3, 0) == 0x71138086)
        pm_base = find_pm_base(1, 3, 0x80, 1);
    else if (pci_read(0x1f, 0, 0) == 0x29188086)
        pm_base = find_pm_base(0x1f, 0, 0x44, 0x80);
    if (pm_base) {
        out16(pm_base + PM_STATUS, BUTTON);
        out16(pm_base + PM_ENABLE, BUTTON);
    }
    interrupts_route(GSI_POWER, VECTOR_POWER);
}

bool power_button_pressed(void) {
    if (pm_base) {
        if (in16(pm_base + PM_STATUS) & BUTTON) {
            pressed = true;
            out16(pm_base + PM_STATUS, BUTTON);
        }
    } else if (*memory32(ged_events) & GED_POWER_DOWN) {
        pressed = true;
    }
    return pressed;
}

_Noreturn void power_off(void) {
    if (pm_base)
        out16(pm_base + PM_CONTROL, SLEEP_NOW);
    else
        *(volatile uint8_t *)ged_registers = GED_SLEEP_S5;
    /* Neither worked: a reset ends a machine that is told not to reboot. */
    out8(0x64, 0xfe);
    if (!pm_base)
        *(volatile uint8_t *)(ged_registers + 2) = GED_RESET;
    for (;;)
        __asm__ volatile("cli\n\thlt");
}
