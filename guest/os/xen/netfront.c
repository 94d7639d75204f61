/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Xen's network card (public/io/netif.h): two rings in pages that the other side may use, and xenstore to find each other.
 *
 * Every frame has a page of its own that is granted for good, so that nothing is granted or revoked later. Checksums are whole in both
 * directions (feature-no-csum-offload). What the other side writes to the rings is not believed: numbers are checked, frames copied.
 */
#include "../../net/card.h"
#include "xen.h"

enum { BUFFERS = 32, ENTRIES = 256, GRANTS_RESERVED = 8, GRANTS = PAGE / 8, PERMIT = 1, MORE_DATA = 4 };
enum { STATE_INIT_WAIT = 2, STATE_CONNECTED = 4, WAIT_MILLISECONDS = 3000, PATH_MOST = 128 };

struct grant {
    volatile uint16_t flags;
    uint16_t domain;
    uint32_t page;
};

struct ring {
    volatile uint32_t request_put, request_event, response_put, response_event;
    uint8_t unused[48];
};

struct transmit_ring {
    struct ring ring;
    union {
        struct {
            uint32_t grant;
            uint16_t offset, flags, id, size;
        } request;
        struct {
            uint16_t id;
            int16_t status;
        } response;
    } entries[ENTRIES];
};

struct receive_ring {
    struct ring ring;
    union {
        struct {
            uint16_t id, unused;
            uint32_t grant;
        } request;
        struct {
            uint16_t id, offset, flags;
            int16_t status;
        } response;
    } entries[ENTRIES];
};

static struct {
    struct grant grants[GRANTS] __attribute__((aligned(PAGE)));
    union {
        struct transmit_ring transmit;
        uint8_t transmit_page[PAGE];
    };
    union {
        struct receive_ring receive;
        uint8_t receive_page[PAGE];
    };
    uint8_t outgoing[BUFFERS][PAGE], incoming[BUFFERS][PAGE];
} pages __attribute__((aligned(PAGE)));
_Static_assert(sizeof(struct transmit_ring) <= PAGE && sizeof(struct receive_ring) <= PAGE, "a ring is one page");

static struct card card;
static uint32_t port, transmit_taken, receive_taken;
static uint16_t free_buffers[BUFFERS];
static int free_count;
static uint32_t outgoing_grant[BUFFERS], incoming_grant[BUFFERS];

static void before_others_see(void) {
    __asm__ volatile("mfence" : : : "memory");
}

static uint32_t give(uint16_t domain, const void *page) {
    static uint32_t next = GRANTS_RESERVED;
    pages.grants[next].domain = domain;
    pages.grants[next].page = (uint32_t)page_number(page);
    before_others_see();
    pages.grants[next].flags = PERMIT;
    return next++;
}

static void offer(uint16_t buffer) {
    uint32_t put = pages.receive.ring.request_put;
    pages.receive.entries[put % ENTRIES].request.id = buffer;
    pages.receive.entries[put % ENTRIES].request.grant = incoming_grant[buffer];
    before_others_see();
    pages.receive.ring.request_put = put + 1;
}

static void reclaim(void) {
    uint32_t put = pages.transmit.ring.response_put;
    before_others_see();
    for (uint32_t most = BUFFERS; transmit_taken != put && most; most--) {
        uint16_t id = pages.transmit.entries[transmit_taken++ % ENTRIES].response.id;
        if (id < BUFFERS && free_count < BUFFERS)
            free_buffers[free_count++] = id;
    }
}

static bool send(struct card *self, const void *frame, size_t length) {
    (void)self;
    reclaim();
    if (!free_count || length > FRAME_MOST)
        return false;
    uint16_t buffer = free_buffers[--free_count];
    uint32_t put = pages.transmit.ring.request_put;
    memcpy(pages.outgoing[buffer], frame, length);
    pages.transmit.entries[put % ENTRIES].request.grant = outgoing_grant[buffer];
    pages.transmit.entries[put % ENTRIES].request.offset = 0;
    pages.transmit.entries[put % ENTRIES].request.flags = 0;
    pages.transmit.entries[put % ENTRIES].request.id = buffer;
    pages.transmit.entries[put % ENTRIES].request.size = (uint16_t)length;
    before_others_see();
    pages.transmit.ring.request_put = put + 1;
    before_others_see();
    events_send(port);
    return true;
}

static size_t receive(struct card *self, void *frame) {
    static bool in_pieces; /* the frame at hand has more than one page, which was not asked for: all of it is dropped */
    (void)self;
    for (int turns = 0; turns < 2 * ENTRIES; turns++) {
        if (receive_taken == pages.receive.ring.response_put) {
            pages.receive.ring.response_event = receive_taken + 1;
            before_others_see();
            if (receive_taken == pages.receive.ring.response_put)
                return 0;
        }
        before_others_see();
        uint32_t at = receive_taken++ % ENTRIES;
        uint16_t id = pages.receive.entries[at].response.id, offset = pages.receive.entries[at].response.offset;
        uint16_t flags = pages.receive.entries[at].response.flags;
        int16_t length = pages.receive.entries[at].response.status;
        if (id >= BUFFERS)
            continue;
        bool good = !in_pieces && !(flags & MORE_DATA) && length > 0 && length <= FRAME_MOST && offset + length <= PAGE;
        in_pieces = flags & MORE_DATA;
        if (good)
            memcpy(frame, pages.incoming[id] + offset, (size_t)length);
        offer(id);
        events_send(port);
        if (good)
            return (size_t)length;
    }
    return 0;
}

static void path_join(char *out, const char *directory, const char *name) {
    struct line line = {out, PATH_MOST - 1, 0};
    line_text(&line, directory);
    line_char(&line, '/');
    line_text(&line, name);
    out[line.length] = 0;
}

static bool write_number(const char *directory, const char *name, uint32_t value) {
    char path[PATH_MOST], digits[16];
    struct line line = {digits, sizeof digits - 1, 0};
    line_number(&line, value, 1);
    digits[line.length] = 0;
    path_join(path, directory, name);
    return store_write(path, digits);
}

static bool read_number(const char *directory, const char *name, uint16_t *out) {
    char path[PATH_MOST], text[16];
    struct decimal value;
    path_join(path, directory, name);
    if (!store_read(path, text, sizeof text) || !decimal_parse(text, text_length(text), &value) || value.digits > UINT16_MAX)
        return false;
    *out = (uint16_t)value.digits;
    return true;
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "00:16:3e:01:02:03" */
static bool read_address(const char *directory, uint8_t *out) {
    char path[PATH_MOST], text[24];
    path_join(path, directory, "mac");
    if (!store_read(path, text, sizeof text) || text_length(text) != 17)
        return false;
    for (int i = 0; i < 6; i++) {
        int high = hex(text[3 * i]), low = hex(text[3 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool wait_for_backend(const char *backend) {
    uint16_t state = 0;
    for (int waited = 0; waited < WAIT_MILLISECONDS; waited += 10) {
        if (read_number(backend, "state", &state) && state == STATE_INIT_WAIT)
            return true;
        events_wait(os_now() + 10000000);
    }
    return false;
}

struct card *card_find(void) {
    char name[16], own[PATH_MOST], path[PATH_MOST], backend[PATH_MOST / 2];
    uint16_t domain;
    if (!store_first("device/vif", name, sizeof name))
        return NULL;
    path_join(own, "device/vif", name);
    path_join(path, own, "backend");
    if (!store_read(path, backend, sizeof backend) || !read_number(own, "backend-id", &domain) || !read_address(own, card.address))
        return NULL;
    if (!wait_for_backend(backend) || !place_grants(pages.grants) || !(port = events_listen(domain)))
        return NULL;
    uint32_t transmit_grant = give(domain, &pages.transmit), receive_grant = give(domain, &pages.receive);
    pages.transmit.ring.request_event = pages.transmit.ring.response_event = 1;
    pages.receive.ring.request_event = pages.receive.ring.response_event = 1;
    for (uint16_t i = 0; i < BUFFERS; i++) {
        outgoing_grant[i] = give(domain, pages.outgoing[i]);
        incoming_grant[i] = give(domain, pages.incoming[i]);
        free_buffers[free_count++] = i;
        offer(i);
    }
    bool told = write_number(own, "tx-ring-ref", transmit_grant) && write_number(own, "rx-ring-ref", receive_grant) &&
                write_number(own, "event-channel", port) && write_number(own, "request-rx-copy", 1) &&
                write_number(own, "feature-rx-notify", 1) && write_number(own, "feature-no-csum-offload", 1) &&
                write_number(own, "feature-ipv6-csum-offload", 0) && write_number(own, "state", STATE_CONNECTED);
    if (!told)
        return NULL;
    events_send(port);
    card.mtu = ETHERNET_MTU;
    card.send = send;
    card.receive = receive;
    return &card;
}
