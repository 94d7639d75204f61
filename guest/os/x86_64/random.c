/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Numbers that a peer cannot guess, on an x86_64 processor.
 */
#include "../os.h"

static uint64_t counter(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static uint64_t hardware_random(void) {
    uint32_t a = 1, b, c = 0, d;
    uint64_t value = 0;
    uint8_t good = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    for (int tries = 0; c >> 30 & 1 && !good && tries < 8; tries++)
        __asm__ volatile("rdrand %0\n\tsetc %1" : "=r"(value), "=qm"(good) : : "cc");
    return value;
}

/* The processor's generator where there is one; else the cycle counter over the guest's life, mixed (splitmix64's finish). */
uint64_t os_random(void) {
    static uint64_t state;
    if (!state)
        state = hardware_random();
    state += counter() | 1;
    uint64_t x = state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
