/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * xenstore (public/io/xs_wire.h, docs/misc/xenstore.txt), as far as it takes to be asked to shut down.
 *
 * The host writes what it wants to control/shutdown of the domain ("poweroff", "reboot", "halt", "suspend"); the domain empties it to
 * say that it has seen that (docs/misc/xenstore-paths.pandoc). Here a watch tells of the change. Requests have one answer
 * each, and events of the watch come between; no more than one request is in flight.
 */
#include "xen.h"

enum { DIRECTORY = 1, READ = 2, WATCH = 4, WRITE = 11, WATCH_EVENT = 15, RING = 1024, PAYLOAD_MOST = 256, ANSWER_MILLISECONDS = 5000 };

struct ring {
    char request[RING], response[RING];
    volatile uint32_t request_taken, request_put, response_taken, response_put;
};

struct header {
    uint32_t type, request, transaction, length;
};

static const char path[] = "control/shutdown";
static struct ring *ring;
static uint32_t port, number;
static bool changed, asked;

static bool send(uint32_t type, const char *payload, uint32_t length) {
    struct header header = {type, ++number, 0, length};
    uint32_t put = ring->request_put;
    if (RING - (put - ring->request_taken) < sizeof header + length)
        return false;
    for (uint32_t i = 0; i < sizeof header; i++)
        ring->request[put++ % RING] = ((char *)&header)[i];
    for (uint32_t i = 0; i < length; i++)
        ring->request[put++ % RING] = payload[i];
    __asm__ volatile("" : : : "memory");
    ring->request_put = put;
    events_send(port);
    return true;
}

static char response_byte(uint32_t at) {
    return ring->response[(ring->response_taken + at) % RING];
}

/* Take one whole message off the ring, and as much of its payload as has room. False: there is none yet. A message longer than the ring
 * comes in pieces; none of ours is answered by one, so what is too long is taken as it comes and thrown away. */
static bool receive(struct header *header, char *payload) {
    static uint32_t to_drop;
    uint32_t there = ring->response_put - ring->response_taken;
    __asm__ volatile("" : : : "memory");
    if (there > RING)
        return false;
    if (to_drop) {
        uint32_t n = to_drop < there ? to_drop : there;
        to_drop -= n;
        ring->response_taken += n;
        there -= n;
        events_send(port);
    }
    if (to_drop || there < sizeof *header)
        return false;
    for (uint32_t i = 0; i < sizeof *header; i++)
        ((char *)header)[i] = response_byte(i);
    if (header->length > RING - sizeof *header) {
        to_drop = header->length;
        ring->response_taken += (uint32_t)sizeof *header;
        header->type = 0;
        payload[0] = 0;
        return true;
    }
    if (there < sizeof *header + header->length)
        return false;
    uint32_t n = header->length < PAYLOAD_MOST - 1 ? header->length : PAYLOAD_MOST - 1;
    for (uint32_t i = 0; i < n; i++)
        payload[i] = response_byte((uint32_t)sizeof *header + i);
    payload[n] = 0;
    __asm__ volatile("" : : : "memory");
    ring->response_taken += (uint32_t)sizeof *header + header->length;
    events_send(port);
    return true;
}

/* Ask and wait for the answer; its payload goes to answer, which has PAYLOAD_MOST bytes. False: an error, or no answer. */
static bool ask(uint32_t type, const char *payload, uint32_t length, char *answer) {
    const uint64_t until = os_now() + (uint64_t)ANSWER_MILLISECONDS * 1000000;
    bool sent = false;
    uint32_t request = 0;
    while (ring && os_now() < until) {
        struct header header;
        if (!sent && (sent = send(type, payload, length)))
            request = number;
        while (receive(&header, answer)) {
            if (header.type == WATCH_EVENT)
                changed = true;
            else if (sent && header.request == request)
                return header.type == type;
        }
        events_wait(until);
    }
    return false;
}

static bool ask_text(uint32_t type, const char *where, char *value, size_t size) {
    char answer[PAYLOAD_MOST];
    if (!ask(type, where, (uint32_t)text_length(where) + 1, answer) || text_length(answer) >= size)
        return false;
    memcpy(value, answer, text_length(answer) + 1);
    return true;
}

bool store_read(const char *where, char *value, size_t size) {
    return ask_text(READ, where, value, size);
}

bool store_first(const char *where, char *name, size_t size) {
    return ask_text(DIRECTORY, where, name, size) && *name;
}

bool store_write(const char *where, const char *value) {
    char payload[PAYLOAD_MOST], answer[PAYLOAD_MOST];
    struct line line = {payload, sizeof payload, 0};
    line_text(&line, where);
    line_char(&line, 0);
    line_text(&line, value);
    return line.length < sizeof payload && ask(WRITE, payload, (uint32_t)line.length, answer);
}

void store_start(struct channel channel) {
    static const char watch[] = "control/shutdown\0shutdown"; /* path and token */
    char answer[PAYLOAD_MOST];
    ring = channel.page;
    port = channel.port;
    events_watch(port);
    ask(WATCH, watch, sizeof watch, answer);
}

bool shutdown_asked(void) {
    struct header header;
    char text[PAYLOAD_MOST];
    while (ring && receive(&header, text))
        changed = changed || header.type == WATCH_EVENT;
    if (changed) {
        changed = false;
        if (store_read(path, text, sizeof text) && (text_equal(text, "poweroff") || text_equal(text, "halt") || text_equal(text, "reboot"))) {
            asked = true;
            store_write(path, "");
        }
    }
    return asked;
}
