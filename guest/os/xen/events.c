/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Time and events under Xen: the clock that Xen keeps in the shared page, and one call that sleeps until a time or an event.
 *
 * SCHEDOP_poll serves PVH and paravirtual domains alike and needs neither interrupt nor handler: an event sets its bit in the shared
 * page, which is looked at when the call returns.
 */
#include "../loop.h"
#include "xen.h"

enum { SCHEDULE_POLL = 3, EVENT_SEND = 4, EVENT_ALLOCATE = 6, WATCHED_MOST = 8 };

static uint64_t began;
static uint32_t watched[WATCHED_MOST], watched_count;

static uint64_t read_tsc(void) {
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Nanoseconds of Xen's clock (public/xen.h, vcpu_time_info): an odd version is one that is being written. */
static uint64_t system_time(void) {
    uint64_t now;
    uint32_t version;
    do {
        while ((version = shared->processor[0].time.version) & 1)
            __asm__ volatile("pause" : : : "memory");
        __asm__ volatile("" : : : "memory");
        uint64_t ticks = read_tsc() - shared->processor[0].time.tsc;
        int shift = shared->processor[0].time.shift;
        ticks = shift < 0 ? ticks >> -shift : ticks << shift;
        now = shared->processor[0].time.nanoseconds + (uint64_t)((unsigned __int128)ticks * shared->processor[0].time.multiplier >> 32);
        __asm__ volatile("" : : : "memory");
    } while (version != shared->processor[0].time.version);
    return now;
}

void time_start(void) {
    began = system_time();
}

uint64_t os_now(void) {
    static uint64_t last;
    uint64_t now = system_time() - began;
    if ((int64_t)(now - last) > 0)
        last = now;
    return last;
}

void events_watch(uint32_t port) {
    if (watched_count < WATCHED_MOST)
        watched[watched_count++] = port;
}

void events_send(uint32_t port) {
    hypercall(CALL_EVENT, EVENT_SEND, (uintptr_t)&port, 0);
}

uint32_t events_listen(uint16_t domain) {
    struct {
        uint16_t here, there;
        uint32_t port;
    } listen = {SELF, domain, 0};
    if (hypercall(CALL_EVENT, EVENT_ALLOCATE, (uintptr_t)&listen, 0))
        return 0;
    events_watch(listen.port);
    return listen.port;
}

void events_wait(uint64_t deadline) {
    struct {
        uint32_t *ports;
        uint32_t count;
        uint64_t until;
    } poll = {watched, watched_count, began + deadline};
    if (deadline > INT64_MAX / 2)
        poll.until = 0; /* for good */
    hypercall(CALL_SCHEDULE, SCHEDULE_POLL, (uintptr_t)&poll, 0);
    /* Whoever waits looks at its ring after this, so the bits have done their work. */
    for (uint32_t i = 0; i < watched_count; i++)
        __asm__ volatile("lock btrq %1, %0" : "+m"(shared->event_pending[watched[i] / 64]) : "r"((uint64_t)(watched[i] % 64)) : "memory");
}

bool platform_stopping(void) {
    return shutdown_asked();
}

void platform_wait(uint64_t until) {
    events_wait(until);
}
