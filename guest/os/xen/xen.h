/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files of the Xen machine share: Xen's calls and shared pages as its public headers have them, and who does what.
 */
#ifndef UNIFLEET_XEN_H
#define UNIFLEET_XEN_H

#include "../bare.h"

enum { PAGE = 4096, SELF = 0x7ff0 /* DOMID_SELF */ };
enum call { CALL_SET_TRAP_TABLE = 0, CALL_MEMORY = 12, CALL_UPDATE_MAPPING = 14, CALL_GRANT = 20, CALL_SCHEDULE = 29, CALL_EVENT = 32, CALL_HVM = 34 };

extern char hypercall_page[PAGE];

static inline long hypercall(enum call number, uint64_t a, uint64_t b, uint64_t c) {
    long result;
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c)
                     : [entry] "r"(hypercall_page + 32 * number)
                     : "rcx", "r8", "r9", "r10", "r11", "memory");
    return result;
}

/* public/xen.h, shared_info, as far as it is used: of the processors only the first. */
struct shared_info {
    struct {
        uint8_t upcall_pending, upcall_mask;
        uint64_t pending_selector;
        uint64_t machine[2];
        struct {
            uint32_t version, unused;
            uint64_t tsc, nanoseconds;
            uint32_t multiplier;
            int8_t shift;
            uint8_t flags, unused_too[2];
        } time;
    } processor[32];
    uint64_t event_pending[64], event_mask[64];
} __attribute__((aligned(PAGE)));
_Static_assert(sizeof((struct shared_info *)0)->processor == 2048, "public/xen.h: vcpu_info has 64 bytes");

/* The page that Xen keeps up to date; machine.c places it. */
extern volatile struct shared_info *shared;

/* machine.c: whom else a page of ours is known to, by its number in the machine (paravirtual) or the domain (PVH). */
uint64_t page_number(const void *page);
/* Place Xen's table of what other domains may use at this page of ours. */
bool place_grants(void *page);

/* machine.c: a shared page of the domain and the event channel that goes with it. */
struct channel {
    void *page;
    uint32_t port;
};

/* events.c: waiting and telling. */
void events_watch(uint32_t port);
void events_send(uint32_t port);
/* A port that the other domain may connect to, and that is watched; 0 when there is none. */
uint32_t events_listen(uint16_t domain);
/* Sleep until an event comes on a port that is watched, or os_now() >= deadline. */
void events_wait(uint64_t deadline);
void time_start(void);

/* console.c */
void console_start(struct channel channel);

/* store.c: xenstore. Paths are absolute or the domain's own. */
void store_start(struct channel channel);
/* The value there, or of a directory the name of the first entry; false when there is none or it is too long for size bytes. */
bool store_read(const char *path, char *value, size_t size);
bool store_first(const char *path, char *name, size_t size);
bool store_write(const char *path, const char *value);
/* Whether the host wants the domain to end. */
bool shutdown_asked(void);

#endif
