/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files of the x86_64 machine share: port and memory access, and who does what.
 */
#ifndef UNIFLEET_MACHINE_H
#define UNIFLEET_MACHINE_H

#include "../bare.h"
#include "../loop.h"

enum { VECTOR_TIMER = 32, VECTOR_POWER = 33, VECTOR_DEVICE = 34, VECTOR_SPURIOUS = 47 };

static inline void out8(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out16(uint16_t port, uint16_t value) {
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out32(uint16_t port, uint32_t value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline uint8_t in8(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline uint16_t in16(uint16_t port) {
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline uint32_t in32(uint16_t port) {
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline volatile uint32_t *memory32(uintptr_t address) {
    return (volatile uint32_t *)address;
}

/* serial.c: the console. */
void serial_start(void);

/* exceptions.c: the descriptor table; an exception ends the guest. */
void exceptions_start(void);
void exceptions_set(int vector, void (*entry)(void));

/* interrupts.c: the timer, the power button and the I/O APIC. */
void interrupts_start(void);
/* Deliver the level-triggered global interrupt gsi as vector; false when there is no I/O APIC for it. */
bool interrupts_route(int gsi, int vector);
/* Take the device's interrupt back whenever VECTOR_DEVICE comes. */
struct virtio;
void interrupts_add_device(struct virtio *device);
/* Whether VECTOR_DEVICE came since the last call. */
bool interrupts_device_came(void);

/* time.c: the local APIC's timer, as clock and as alarm. */
void time_start(void);

/* devices.c: whether a device has no way to interrupt and must be looked at from time to time. */
extern bool devices_are_polled;

/* power.c: the power button and the way off. */
void power_start(void);
bool power_button_pressed(void);

#endif
