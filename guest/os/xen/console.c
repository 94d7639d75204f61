/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The console: a ring that xenconsoled reads (public/io/console.h). A writer that fills it sleeps until there is room.
 */
#include "xen.h"

enum { NANOSECONDS_PER_MILLISECOND = 1000000, DRAIN_MILLISECONDS = 2000 };

struct ring {
    char in[1024], out[2048];
    volatile uint32_t in_taken, in_put, out_taken, out_put;
};

static struct ring *ring;
static uint32_t port;

void console_start(struct channel channel) {
    ring = channel.page;
    port = channel.port;
    events_watch(port);
}

bool os_write(const char *bytes, size_t length) {
    while (ring && length) {
        uint32_t put = ring->out_put, room = sizeof ring->out - (put - ring->out_taken);
        if (!room || room > sizeof ring->out) {
            events_wait(os_now() + 100 * NANOSECONDS_PER_MILLISECOND);
            continue;
        }
        for (; room && length; room--, length--)
            ring->out[put++ % sizeof ring->out] = *bytes++;
        __asm__ volatile("" : : : "memory");
        ring->out_put = put;
        events_send(port);
    }
    return true;
}

void console_drain(void) {
    uint64_t until = os_now() + (uint64_t)DRAIN_MILLISECONDS * NANOSECONDS_PER_MILLISECOND;
    while (ring && ring->out_taken != ring->out_put && os_now() < until)
        events_wait(os_now() + 10 * NANOSECONDS_PER_MILLISECOND);
}
