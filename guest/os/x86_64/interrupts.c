/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Interrupts: the timer, the power button and devices; the old PICs masked; the I/O APICs.
 */
#include "../../virtio/virtio.h"
#include "machine.h"

enum { PINS = 24, DEVICES_MOST = 2 };
void interrupt_timer(void);
void interrupt_power(void);
void interrupt_spurious(void);

struct interrupt_frame;
static struct virtio *devices[DEVICES_MOST];
static int device_count;
static volatile bool device_came;

/* A level-triggered line stays up until the device is told; left up, it would interrupt for ever. */
__attribute__((interrupt)) static void interrupt_device(struct interrupt_frame *frame) {
    (void)frame;
    device_came = true;
    for (int i = 0; i < device_count; i++)
        devices[i]->by->interrupted(devices[i]);
    *memory32(0xfee000b0) = 0; /* local APIC, end of interrupt */
}

void interrupts_add_device(struct virtio *device) {
    if (device_count < DEVICES_MOST)
        devices[device_count++] = device;
}

bool interrupts_device_came(void) {
    bool came = device_came;
    device_came = false;
    return came;
}

void interrupts_start(void) {
    exceptions_set(VECTOR_TIMER, interrupt_timer);
    exceptions_set(VECTOR_POWER, interrupt_power);
    exceptions_set(VECTOR_DEVICE, (void (*)(void))interrupt_device);
    exceptions_set(VECTOR_SPURIOUS, interrupt_spurious);
    exceptions_start();
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

bool interrupts_route(int gsi, int vector) {
    const uintptr_t io_apic = gsi < PINS ? 0xfec00000 : 0xfec10000; /* the second one: QEMU's microvm */
    const uint32_t entry = 0x10 + 2 * (uint32_t)(gsi % PINS), level_triggered = 0x8000;
    *memory32(io_apic) = 1;
    if (((*memory32(io_apic + 0x10) >> 16) & 0xff) != PINS - 1)
        return false;
    *memory32(io_apic) = entry + 1;
    *memory32(io_apic + 0x10) = 0; /* to processor 0 */
    *memory32(io_apic) = entry;
    *memory32(io_apic + 0x10) = (uint32_t)vector | level_triggered;
    return true;
}
