/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The one loop of a program: while it sleeps, devices are looked after and timers run.
 */
#include "loop.h"

enum { ATTENDANTS_MOST = 4 };

static uint64_t (*attendants[ATTENDANTS_MOST])(void);
static int attendant_count;
static struct os_timer *timers; /* the earliest first */
static bool woken;

void os_wake(void) {
    woken = true;
}

void loop_attend(uint64_t (*look)(void)) {
    if (attendant_count < ATTENDANTS_MOST)
        attendants[attendant_count++] = look;
}

void os_timer_clear(struct os_timer *timer) {
    if (!timer->set)
        return;
    struct os_timer **at = &timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    timer->set = false;
}

void os_timer_set(struct os_timer *timer, uint64_t due) {
    os_timer_clear(timer);
    struct os_timer **at = &timers;
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    timer->next = *at;
    timer->due = due;
    timer->set = true;
    *at = timer;
}

static void run_timers(void) {
    uint64_t now = os_now();
    while (timers && timers->due <= now) {
        struct os_timer *timer = timers;
        os_timer_clear(timer);
        timer->run(timer->owner);
    }
}

bool os_sleep_until(uint64_t deadline) {
    for (;;) {
        uint64_t until = deadline;
        run_timers();
        for (int i = 0; i < attendant_count; i++) {
            uint64_t due = attendants[i]();
            until = due < until ? due : until;
        }
        if (timers && timers->due < until)
            until = timers->due;
        if (platform_stopping())
            return true;
        if (woken || os_now() >= deadline) {
            woken = false;
            return false;
        }
        platform_wait(until);
    }
}
