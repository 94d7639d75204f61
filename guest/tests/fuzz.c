/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The guest's network as a program of the host, under the address and undefined-behaviour sanitizers: spoiled packets go in, and it must
 * neither break nor stop answering.
 *
 *     fuzz SEED INPUTS [FIRST]
 *
 * The very sources of the virtual machines (net/lwip.c and below, names.c, the HTTP server and client) run against a card made here. Its
 * peer speaks enough TCP to bring a connection to any state and enough of DNS and HTTP to answer the guest's own calls; then each
 * input changes what it says. An input is known by its number: after a failure, "fuzz SEED 1 NUMBER" does not suffice, because the stack has
 * a memory, but "fuzz SEED NUMBER+1" repeats it exactly. Every 500 inputs the guest must answer a proper request.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../net/card.h"
#include "../net/http.h"
#include "../os/bare.h"
#include "../os/loop.h"

enum { QUEUE = 64, PEER = 0x0a000001, GUEST = 0x0a000002, NAME_SERVER = PEER };

static struct {
    size_t length;
    uint8_t bytes[FRAME_MOST];
} queue[QUEUE];
static int queued;
static uint64_t clock, state;

static uint32_t chance(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

/* The platform. */
uint64_t os_now(void) {
    return clock;
}
uint64_t os_random(void) {
    return (uint64_t)chance(UINT32_MAX) << 32 | chance(UINT32_MAX);
}
bool platform_stopping(void) {
    return false;
}
void platform_wait(uint64_t until) {
    clock = until > clock + 1000000 ? clock + 1000000 : until;
}
bool os_write(const char *bytes, size_t length) {
    return fwrite(bytes, 1, length, stderr) == length;
}
_Noreturn void bare_fail(const char *why) {
    fprintf(stderr, "the guest gave up: %s\n", why);
    abort();
}

/* What the peer knows of the connections that it has, so that some of what it says fits. */
enum { CONNECTIONS = 32 };
static struct connection {
    uint16_t port, guest_port;
    uint32_t next, acknowledged;
    bool open;
} connections[CONNECTIONS];
static int newest;
static uint8_t answer_bytes[65536];
static size_t answer_length;
static bool pong;
static uint16_t probe_port = 60000; /* another one each time: an old connection may rest there */

static uint32_t get16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}
static uint32_t get32(const uint8_t *p) {
    return get16(p) << 16 | get16(p + 2);
}
static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}
static void put32(uint8_t *p, uint32_t value) {
    put16(p, value >> 16);
    put16(p + 2, value);
}
static uint32_t add(const uint8_t *p, size_t length, uint32_t sum) {
    for (size_t i = 0; i < length; i++)
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    return sum;
}
static uint32_t fold(uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 1};

static void enqueue(const uint8_t *frame, size_t length) {
    if (queued == QUEUE || length > FRAME_MOST)
        return;
    memcpy(queue[queued].bytes, frame, length);
    queue[queued++].length = length;
}

/* Right checksums, so that what follows them is looked at too. */
static void repair(uint8_t *frame, size_t length) {
    uint8_t *ip = frame + ETHERNET_HEADER;
    size_t header = (ip[0] & 15u) * 4;
    if (length < ETHERNET_HEADER + 20 || get16(frame + 12) != 0x800 || header < 20 || ETHERNET_HEADER + header > length)
        return;
    put16(ip + 10, 0);
    put16(ip + 10, fold(add(ip, header, 0)));
    uint8_t *data = ip + header;
    size_t size = length - ETHERNET_HEADER - header, total = get16(ip + 2);
    if (total >= header && total - header < size)
        size = total - header;
    size_t at = ip[9] == 6 ? 16 : ip[9] == 17 ? 6 : 2;
    if (size < at + 2 || (ip[9] != 1 && ip[9] != 6 && ip[9] != 17))
        return;
    put16(data + at, 0);
    put16(data + at, fold(add(data, size, ip[9] == 1 ? 0 : add(ip + 12, 8, ip[9] + (uint32_t)size))));
}

static size_t make_ip(uint8_t *frame, uint8_t protocol, size_t size) {
    memcpy(frame, guest_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
    put16(frame + 12, 0x800);
    uint8_t *ip = frame + ETHERNET_HEADER;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (uint32_t)(20 + size));
    put16(ip + 4, chance(65536));
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, PEER);
    put32(ip + 16, GUEST);
    return ETHERNET_HEADER + 20 + size;
}

static size_t make_tcp(uint8_t *frame, const struct connection *c, uint8_t flags, const char *text, size_t size) {
    uint8_t *tcp = frame + ETHERNET_HEADER + 20;
    memset(tcp, 0, 20);
    put16(tcp, c->port);
    put16(tcp + 2, c->guest_port);
    put32(tcp + 4, c->next);
    put32(tcp + 8, c->acknowledged);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    memcpy(tcp + 20, text, size);
    return make_ip(frame, 6, 20 + size);
}

static size_t make_udp(uint8_t *frame, uint16_t from, uint16_t to, const uint8_t *bytes, size_t size) {
    uint8_t *udp = frame + ETHERNET_HEADER + 20;
    put16(udp, from);
    put16(udp + 2, to);
    put16(udp + 4, (uint32_t)(8 + size));
    put16(udp + 6, 0);
    memcpy(udp + 8, bytes, size);
    return make_ip(frame, 17, 8 + size);
}

/* Change a frame: bytes, length, stretches moved or doubled, numbers at their bounds; then mend its checksums, mostly. */
static size_t spoil(uint8_t *frame, size_t length) {
    static const uint8_t bounds[] = {0, 1, 4, 5, 15, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xc0, 0xf0, 0xfe, 0xff};
    for (uint32_t changes = chance(4) ? chance(5) : chance(60); changes; changes--) {
        size_t from = chance(8) ? 12 : 0;
        if (length <= from)
            break;
        size_t at = from + chance((uint32_t)(length - from));
        switch (chance(6)) {
        case 0:
            frame[at] = (uint8_t)chance(256);
            break;
        case 1:
            frame[at] ^= (uint8_t)(1u << chance(8));
            break;
        case 2:
            frame[at] = bounds[chance(sizeof bounds)];
            break;
        case 3:
            length = chance(4) ? length : at + 1;
            break;
        case 4: {
            size_t n = chance(40);
            if (at + n < length)
                memmove(frame + at, frame + from + chance((uint32_t)(length - n - from)), n);
            break;
        }
        default: {
            size_t n = chance(chance(8) ? 24 : 1200);
            if (length + n <= FRAME_MOST) {
                memmove(frame + at + n, frame + at, length - at);
                length += n;
                if (get16(frame + 12) == 0x800 && chance(2))
                    put16(frame + ETHERNET_HEADER + 2, (uint32_t)(length - ETHERNET_HEADER));
            }
        }
        }
    }
    if (chance(16))
        repair(frame, length);
    return length;
}

static const char *const http_answers[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
};
static const char *const http_requests[] = {
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\nGET /a?b HTTP/1.1\r\n\r\nHEAD / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
};

/* The peer hears what the guest says, and answers; every answer may be spoiled as well. */
static bool spoiling;

static void say(uint8_t *frame, size_t length) {
    repair(frame, length);
    if (spoiling && !chance(3))
        length = spoil(frame, length);
    enqueue(frame, length);
}

static void hear_tcp(const uint8_t *tcp, size_t size) {
    static uint8_t frame[FRAME_MOST + 64];
    size_t header = (tcp[12] >> 4) * 4u;
    uint8_t flags = tcp[13];
    if (size < header)
        return;
    struct connection *c = NULL;
    for (int i = 0; i < CONNECTIONS; i++)
        if (connections[i].open && connections[i].port == get16(tcp + 2) && connections[i].guest_port == get16(tcp))
            c = &connections[i];
    if (!c && flags == 2) { /* the guest calls */
        c = &connections[newest = (newest + 1) % CONNECTIONS];
        *c = (struct connection){(uint16_t)get16(tcp + 2), (uint16_t)get16(tcp), chance(UINT32_MAX), get32(tcp + 4) + 1, true};
        say(frame, make_tcp(frame, c, 0x12, "", 0));
        c->next++;
        return;
    }
    if (!c)
        return;
    if (flags & 4) {
        c->open = false;
        return;
    }
    if (flags & 2) {
        c->acknowledged = get32(tcp + 4) + 1;
        say(frame, make_tcp(frame, c, 0x10, "", 0));
        return;
    }
    size_t data = size - header;
    if (get32(tcp + 4) == c->acknowledged && (data || flags & 1)) {
        if (c->port == probe_port && answer_length + data < sizeof answer_bytes) {
            memcpy(answer_bytes + answer_length, tcp + header, data);
            answer_length += data;
        }
        c->acknowledged += (uint32_t)(data + (flags & 1));
        bool call = c->port == 80 && data;
        const char *text = call ? http_answers[chance(4)] : "";
        say(frame, make_tcp(frame, c, (uint8_t)(0x10 | (call || flags & 1)), text, text_length(text)));
        c->next += (uint32_t)text_length(text) + (call || flags & 1);
    }
}

static bool card_send(struct card *self, const void *bytes, size_t length) {
    static uint8_t frame[FRAME_MOST + 64];
    const uint8_t *sent = bytes, *ip = sent + ETHERNET_HEADER;
    (void)self;
    if (get16(sent + 12) == 0x806 && length >= ETHERNET_HEADER + 28 && get16(ip + 6) == 1 && get32(ip + 24) == PEER) {
        memcpy(frame, guest_mac, 6);
        memcpy(frame + 6, peer_mac, 6);
        put16(frame + 12, 0x806);
        memcpy(frame + 14, "\0\1\10\0\6\4\0\2", 8);
        memcpy(frame + 22, peer_mac, 6);
        put32(frame + 28, PEER);
        memcpy(frame + 32, guest_mac, 6);
        put32(frame + 38, GUEST);
        say(frame, 42);
    }
    if (get16(sent + 12) != 0x800 || get16(ip + 6) & 0x3fff)
        return true;
    if (ip[9] == 6 && length >= ETHERNET_HEADER + 40)
        hear_tcp(ip + 20, get16(ip + 2) - 20);
    if (ip[9] == 1 && ip[20] == 0)
        pong = true;
    if (ip[9] == 17 && get16(ip + 22) == 53 && length < 400) { /* a question: an alias and an address */
        uint8_t reply[512];
        size_t size = get16(ip + 2) - 28u;
        memcpy(reply, ip + 28, size);
        put16(reply + 2, 0x8180 | (chance(8) ? 0 : chance(6)));
        put16(reply + 6, 2);
        static const uint8_t records[] = {0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1};
        memcpy(reply + size, records, sizeof records);
        say(frame, make_udp(frame, 53, (uint16_t)get16(ip + 20), reply, size + sizeof records));
    }
    return true;
}

static size_t card_receive(struct card *self, void *frame) {
    (void)self;
    if (!queued)
        return 0;
    size_t length = queue[0].length;
    memcpy(frame, queue[0].bytes, length);
    queued--;
    memmove(queue, queue + 1, sizeof queue[0] * (size_t)queued);
    return length;
}

struct card *card_find(void) {
    static struct card card = {{2, 0, 0, 0, 0, 2}, ETHERNET_MTU, card_send, card_receive};
    return &card;
}

static void serve(const struct http_request *request, struct http_answer *answer) {
    line_text(&answer->body, "{\"path\":");
    line_json(&answer->body, request->path);
    line_text(&answer->body, "}\n");
}

/* The guest calls all the time. */
static struct http_call call;
static struct http_url url;
static char body[200];
static bool calling;
static unsigned calls, good_calls;

static void call_done(struct http_call *done) {
    calling = false;
    calls++;
    good_calls += done->result == NET_OK && !done->malformed;
}

static void begin_call(void) {
    http_url_parse(chance(2) ? "http://name.lab/x" : "http://10.0.0.1/y", &url);
    call = (struct http_call){.url = &url, .method = "POST", .type = "text/plain", .body = "21.5", .timeout = 1000000000u + chance(2000000000u),
                              .bytes = body, .size = sizeof body, .done = call_done};
    calling = true;
    http_call(&call);
}

static void run(uint64_t nanoseconds) {
    uint64_t until = clock + nanoseconds;
    while (clock < until)
        os_sleep_until(until);
}

static void connect_peer(uint16_t port) {
    static uint8_t frame[FRAME_MOST + 64];
    struct connection *c = &connections[newest = (newest + 1) % CONNECTIONS];
    *c = (struct connection){port, 80, chance(UINT32_MAX), 0, true};
    size_t length = make_tcp(frame, c, 2, "", 0);
    repair(frame, length);
    enqueue(frame, length);
    c->next++;
}

static void one_input(void) {
    static uint8_t frame[FRAME_MOST + 64], message[600];
    struct connection *c = &connections[chance(CONNECTIONS)];
    size_t length = 0;
    const char *text;
    if (!calling && !chance(8))
        begin_call();
    switch (chance(8)) {
    case 0:
        connect_peer((uint16_t)(1024 + chance(58000)));
        return;
    case 1:
    case 2:
        text = http_requests[chance(4)];
        length = make_tcp(frame, c, (uint8_t)(0x18 | (chance(8) ? 0 : 1)), text, text_length(text));
        if (chance(3))
            c->next += (uint32_t)text_length(text);
        break;
    case 3: /* out of order, overlapping, with options */
        c->next += chance(4) ? 0 : chance(3000) - 1500;
        length = make_tcp(frame, c, (uint8_t)chance(64), (const char *)answer_bytes, chance(1400));
        break;
    case 4:
        for (size_t i = 0; i < sizeof message; i++)
            message[i] = (uint8_t)chance(256);
        length = make_udp(frame, chance(2) ? 53 : (uint16_t)chance(65536), (uint16_t)(chance(2) ? 32768 + chance(28232) : chance(65536)), message, chance(sizeof message));
        break;
    case 5: /* echo, and what routers say about our packets */
        memset(frame + 34, 0, 8);
        frame[34] = (uint8_t)(chance(2) ? 8 : chance(20));
        for (int i = 0; i < 60; i++)
            frame[42 + i] = (uint8_t)chance(256);
        length = make_ip(frame, 1, 8 + chance(60));
        break;
    case 6: /* fragments */
        length = make_ip(frame, chance(2) ? 17 : 1, 8 + chance(64) * 8);
        put16(frame + ETHERNET_HEADER + 4, chance(4));
        put16(frame + ETHERNET_HEADER + 6, chance(2) << 13 | (chance(8) ? chance(20) : chance(8192)));
        break;
    default:
        for (size_t i = 12; i < 60; i++)
            frame[i] = (uint8_t)chance(256);
        put16(frame + 12, chance(2) ? 0x806 : 0x800);
        length = 14 + chance(46);
    }
    if (length < ETHERNET_HEADER)
        return;
    if (get16(frame + 12) == 0x800)
        repair(frame, length);
    enqueue(frame, spoil(frame, length));
}

/* A proper ping and a proper request, from a port of its own. */
static bool answers(void) {
    static uint8_t frame[FRAME_MOST + 64];
    static const char request[] = "GET /still-here HTTP/1.1\r\nConnection: close\r\n\r\n";
    spoiling = false;
    queued = 0;
    for (int tries = 0; tries < 40; tries++) {
        memset(connections, 0, sizeof connections);
        answer_length = 0;
        pong = false;
        /* The guest may have been told a wrong address of ours. */
        memcpy(frame, guest_mac, 6);
        memcpy(frame + 6, peer_mac, 6);
        memcpy(frame + 12, "\10\6\0\1\10\0\6\4\0\1", 10);
        memcpy(frame + 22, peer_mac, 6);
        put32(frame + 28, PEER);
        memset(frame + 32, 0, 6);
        put32(frame + 38, GUEST);
        enqueue(frame, 42);
        memset(frame + 34, 0, 40);
        frame[34] = 8;
        size_t length = make_ip(frame, 1, 40);
        repair(frame, length);
        enqueue(frame, length);
        probe_port = probe_port < 65535 ? probe_port + 1 : 60000;
        connect_peer(probe_port);
        struct connection *c = &connections[newest];
        run(100000000);
        if (c->acknowledged) {
            length = make_tcp(frame, c, 0x18, request, sizeof request - 1);
            repair(frame, length);
            enqueue(frame, length);
            c->next += sizeof request - 1;
            run(200000000);
        }
        answer_bytes[answer_length] = 0;
        static const char good[] = "HTTP/1.1 200 OK\r\n";
        if (pong && answer_length > sizeof good && !memcmp(answer_bytes, good, sizeof good - 1)) {
            run(1000000000);
            spoiling = true;
            return true;
        }
        run(5000000000u); /* half-open connections and old fragments go */
    }
    return false;
}

int main(int argc, char **argv) {
    char address[] = "UNIFLEET_ADDRESS=10.0.0.2/24", gateway[] = "UNIFLEET_GATEWAY=10.0.0.1", servers[] = "UNIFLEET_NAMESERVERS=10.0.0.1";
    char *env[] = {address, gateway, servers, NULL};
    unsigned long seed = argc > 1 ? strtoul(argv[1], NULL, 10) : 1, inputs = argc > 2 ? strtoul(argv[2], NULL, 10) : 10000;
    state = seed * 0x9e3779b97f4a7c15u | 1;
    if (net_start(env) != NET_OK || http_serve(HTTP_PORT, serve) != NET_OK)
        return 2;
    for (unsigned long number = 0; number < inputs; number++) {
        if (number % 500 == 0 && !answers()) {
            fprintf(stderr, "seed %lu: no answer any more before input %lu\n", seed, number);
            return 1;
        }
        one_input();
        run(chance(16) ? 1000000 : chance(400) * 1000000ull);
    }
    if (!answers()) {
        fprintf(stderr, "seed %lu: no answer any more after %lu inputs\n", seed, inputs);
        return 1;
    }
    printf("%lu inputs, %u calls of the guest's own, %u of them answered properly\n", inputs, calls, good_calls);
    return calls && good_calls && good_calls < calls ? 0 : 3;
}
