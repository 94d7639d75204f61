/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Time: the local APIC's timer in periodic mode, as clock and as alarm at once.
 *
 * While the guest sleeps the timer counts down a period as long as the sleep and starts over by itself, so that what is read after
 * waking says how much time really went by, late wake-ups included, and no time is lost between alarms. It counts at 1 GHz on QEMU
 * (hw/intc/apic.c counts nanoseconds of virtual time) and KVM (APIC_BUS_CYCLE_NS is 1), which the hypervisor's CPUID leaf tells;
 * elsewhere it is measured against the PIT. A guest that is held up for longer than a whole sleep counts that sleep once.
 */
#include "machine.h"

enum { TIMER_MASKED = 0x10000, TIMER_PERIODIC = 0x20000, DIVIDE_BY_16 = 3, DIVIDER = 16 };

static const uintptr_t apic = 0xfee00000;
enum { SPURIOUS = 0xf0, TIMER_VECTOR = 0x320, TIMER_INITIAL = 0x380, TIMER_CURRENT = 0x390, TIMER_DIVIDE = 0x3e0 };

static uint64_t ticks_per_second;
static uint64_t clock;     /* nanoseconds up to the last reading of the counter */
static uint32_t period, last; /* the counter's reload value, and its last reading */
static uint32_t counted;      /* timer_interrupts at that reading */
volatile uint32_t timer_interrupts;

static uint64_t nanoseconds(uint64_t ticks) {
    return ticks / ticks_per_second * 1000000000u + ticks % ticks_per_second * 1000000000u / ticks_per_second;
}

/* Let an interrupt in that is waiting. */
static void open_interrupts(void) {
    __asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
}

/* What the counter went down by since its last reading, over these many new beginnings. */
static void take(uint32_t beginnings, uint32_t current) {
    clock += nanoseconds((uint64_t)beginnings * period + last - current);
    counted += beginnings;
    last = current;
}

/* A counter that stands higher than before has begun anew, though a busy host's interrupt for it may yet be on its way: it is waited for. */
uint64_t os_now(void) {
    uint32_t count, current;
    do {
        open_interrupts();
        count = timer_interrupts;
        current = *memory32(apic + TIMER_CURRENT);
        open_interrupts();
    } while (count != timer_interrupts || (count == counted && current > last));
    take(count - counted, current);
    return clock;
}

/* An interrupt of the counter's old period that came in its new one would be taken for all of that: none is let out in between. */
static void start_counting(uint32_t ticks) {
    os_now();
    *memory32(apic + TIMER_VECTOR) = TIMER_MASKED | TIMER_PERIODIC | VECTOR_TIMER;
    open_interrupts();
    uint32_t current = *memory32(apic + TIMER_CURRENT);
    uint32_t beginnings = timer_interrupts - counted;
    if (!beginnings && current > last) {
        beginnings = 1; /* without an interrupt, now that there are none */
        timer_interrupts++;
    }
    take(beginnings, current);
    *memory32(apic + TIMER_INITIAL) = ticks;
    period = last = ticks;
    *memory32(apic + TIMER_VECTOR) = TIMER_PERIODIC | VECTOR_TIMER;
}

static bool known_to_count_nanoseconds(void) {
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c >> 31))
        return false;
    a = 0x40000000;
    c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return b == 0x4b4d564b /* KVMK */ || b == 0x54474354 /* TCGT */;
}

/* Ticks per second, by 20 ms of the PIT's channel 2 (1193182 Hz). */
static uint64_t measure(void) {
    const uint16_t count = 23864;
    out8(0x61, (in8(0x61) & ~2) | 1);
    out8(0x43, 0xb0); /* channel 2, interrupt on terminal count */
    out8(0x42, count & 0xff);
    out8(0x42, count >> 8);
    uint32_t before = *memory32(apic + TIMER_CURRENT);
    for (uint32_t turns = 0; !(in8(0x61) & 0x20) && turns < 10000000; turns++)
        __asm__ volatile("pause");
    uint64_t ticks = before - *memory32(apic + TIMER_CURRENT);
    return ticks * 1193182u / count;
}

void time_start(void) {
    *memory32(apic + SPURIOUS) = 0x100 | VECTOR_SPURIOUS;
    *memory32(apic + TIMER_DIVIDE) = DIVIDE_BY_16;
    *memory32(apic + TIMER_VECTOR) = TIMER_MASKED | TIMER_PERIODIC;
    period = last = 0xffffffff;
    *memory32(apic + TIMER_INITIAL) = period;
    ticks_per_second = known_to_count_nanoseconds() ? 1000000000u / DIVIDER : measure();
    if (!ticks_per_second)
        ticks_per_second = 1000000000u / DIVIDER;
    last = *memory32(apic + TIMER_CURRENT);
    *memory32(apic + TIMER_VECTOR) = TIMER_PERIODIC | VECTOR_TIMER;
}

bool platform_stopping(void) {
    return power_button_pressed();
}

void platform_wait(uint64_t until) {
    const uint64_t least = 500000, most = devices_are_polled ? 10000000u : 30000000000u;
    uint64_t now = os_now();
    if (now >= until)
        return;
    uint64_t left = until - now > least ? until - now : least;
    uint64_t ticks = (left < most ? left : most) * (ticks_per_second / 1000) / 1000000 + 1;
    start_counting((uint32_t)ticks);
    /* Interrupts are shut from that look to the hlt (sti holds for one more instruction): no wake-up is missed. */
    if (!power_button_pressed() && !interrupts_device_came())
        __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
    interrupts_device_came();
    /* What is done until the next sleep may take longer than this one was. */
    start_counting(0xffffffff);
}
