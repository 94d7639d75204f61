/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Host names: a small DNS client (RFC 1035) for A records, the same in virtual machines and processes; addresses as text; settings.
 *
 * A name is asked for at each name server in turn, twice, two seconds apart at first. A name that does not end with a dot is tried as it is when it
 * holds a dot, then with each search domain; without one, the other way round. An answer counts only from the server and port asked,
 * with the query's identity and question; aliases need no following, because a recursive server sends their addresses along.
 */
#include "net.h"

enum { DNS_PORT = 53, HEADER = 12, TYPE_A = 1, CLASS_IN = 1, NO_SUCH_NAME = 3, TRIES_EACH = 2, CANDIDATES = 8 };
static const uint64_t second = 1000000000u;

struct net_settings net_settings;

bool net_address_parse(const char *text, size_t length, uint32_t *out) {
    uint32_t address = 0;
    size_t at = 0;
    for (int part = 0; part < 4; part++) {
        uint32_t number = 0;
        size_t digits = 0;
        for (; at < length && text[at] >= '0' && text[at] <= '9' && digits < 4; digits++)
            number = number * 10 + (uint32_t)(text[at++] - '0');
        if (!digits || digits > 3 || number > 255 || (digits > 1 && text[at - digits] == '0'))
            return false;
        address = address << 8 | number;
        if (part < 3 && (at == length || text[at++] != '.'))
            return false;
    }
    *out = address;
    return at == length;
}

void line_address(struct line *line, uint32_t address) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        line_number(line, address >> shift & 255, 1);
        if (shift)
            line_char(line, '.');
    }
}

const char *net_result_text(enum net_result result) {
    static const char *const texts[] = {
        [NET_OK] = "ok",
        [NET_ABSENT] = "there is no network",
        [NET_SETTINGS] = "UNIFLEET_ADDRESS, UNIFLEET_GATEWAY, UNIFLEET_NAMESERVERS or UNIFLEET_SEARCH cannot be understood",
        [NET_FULL] = "too many connections",
        [NET_PORT_TAKEN] = "the port cannot be listened on",
        [NET_REFUSED] = "connection refused",
        [NET_UNREACHABLE] = "no route",
        [NET_TIMEOUT] = "no answer in time",
        [NET_RESET] = "connection broken",
        [NET_NO_NAME] = "no such name",
        [NET_NO_RESOLVER] = "no name server answers",
    };
    return texts[result];
}

static size_t word_length(const char *s) {
    size_t n = 0;
    while (s[n] && s[n] != ',')
        n++;
    return n;
}

static bool read_nameservers(const char *s) {
    for (; *s; s += *s == ',') {
        size_t n = word_length(s);
        if (net_settings.nameserver_count < 3) {
            if (!net_address_parse(s, n, &net_settings.nameservers[net_settings.nameserver_count]))
                return false;
            net_settings.nameserver_count++;
        }
        s += n;
    }
    return true;
}

enum net_result net_settings_read(char **env) {
    struct net_settings *s = &net_settings;
    const char *address = env_get(env, "UNIFLEET_ADDRESS"), *gateway = env_get(env, "UNIFLEET_GATEWAY");
    const char *nameservers = env_get(env, "UNIFLEET_NAMESERVERS"), *search = env_get(env, "UNIFLEET_SEARCH");
    *s = (struct net_settings){0};
    if (address && *address) {
        size_t n = 0;
        while (address[n] && address[n] != '/')
            n++;
        struct decimal bits = {false, 32, 0};
        if (!net_address_parse(address, n, &s->address))
            return NET_SETTINGS;
        if (address[n] && (!decimal_parse(address + n + 1, text_length(address + n + 1), &bits) || bits.negative || bits.places ||
                           bits.digits < 1 || bits.digits > 32))
            return NET_SETTINGS;
        s->netmask = ~0u << (32 - bits.digits);
    }
    if (gateway && *gateway && !net_address_parse(gateway, text_length(gateway), &s->gateway))
        return NET_SETTINGS;
    if (nameservers && !read_nameservers(nameservers))
        return NET_SETTINGS;
    if (search) {
        if (text_length(search) >= sizeof s->search)
            return NET_SETTINGS;
        for (size_t i = 0; search[i]; i++)
            s->search[i] = search[i] == ',' ? ' ' : search[i];
    }
    return NET_OK;
}

static void finish(struct net_query *query, enum net_result result, uint32_t address) {
    net_give_up(query);
    query->done(query->owner, result, address);
}

/* Append the labels of name to the question; false when one is empty or the whole too long. */
static bool add_labels(struct net_query *query, const char *name, size_t length) {
    while (length) {
        size_t n = 0;
        while (n < length && name[n] != '.')
            n++;
        if (!n || n > 63 || query->question_length + n + 1 > HEADER + 254)
            return false;
        query->question[query->question_length++] = (uint8_t)n;
        memcpy(query->question + query->question_length, name, n);
        query->question_length += n;
        name += n;
        length -= n;
        if (length) {
            name++;
            length--;
        }
    }
    return true;
}

/* The search domain with this number, from 0; NULL when there are not so many. */
static const char *search_domain(int number, size_t *length) {
    const char *s = net_settings.search;
    for (;;) {
        while (*s == ' ')
            s++;
        size_t n = 0;
        while (s[n] && s[n] != ' ')
            n++;
        if (!n)
            return NULL;
        *length = n;
        if (!number--)
            return s;
        s += n;
    }
}

/* Make the question for the next name to try; false when all were tried. */
static bool next_question(struct net_query *query) {
    size_t length = text_length(query->name), domain_length = 0;
    bool whole = length && query->name[length - 1] == '.', dotted = false;
    for (size_t i = 0; i + 1 < length; i++)
        dotted |= query->name[i] == '.';
    for (; query->candidate < CANDIDATES; query->candidate++) {
        int domain = dotted || whole ? query->candidate - 1 : query->candidate; /* -1: the name as it is */
        const char *suffix = domain < 0 ? NULL : search_domain(domain, &domain_length);
        if (domain >= 0 && whole)
            return false;
        if (domain >= 0 && !suffix) {
            if (dotted || query->candidate == CANDIDATES - 1)
                return false;
            query->candidate = CANDIDATES - 1; /* a bare name as it is comes last */
        }
        static const uint8_t tail[5] = {0, 0, TYPE_A, 0, CLASS_IN};
        query->question_length = HEADER;
        if (!add_labels(query, query->name, length - whole) || (suffix && !add_labels(query, suffix, domain_length)))
            continue;
        if (query->question_length + sizeof tail > sizeof query->question)
            continue;
        memcpy(query->question + query->question_length, tail, sizeof tail);
        query->question_length += sizeof tail;
        query->id = (uint16_t)os_random();
        const uint8_t header[HEADER] = {(uint8_t)(query->id >> 8), (uint8_t)query->id, 1, 0, 0, 1};
        memcpy(query->question, header, HEADER);
        query->tries = 0;
        query->candidate++;
        return true;
    }
    return false;
}

static void ask(void *owner) {
    struct net_query *query = owner;
    const struct net_settings *s = &net_settings;
    if (query->tries >= TRIES_EACH * s->nameserver_count) {
        finish(query, NET_NO_RESOLVER, 0);
        return;
    }
    uint64_t wait = query->tries < s->nameserver_count ? second : 2 * second;
    net_send_to(query->socket, s->nameservers[query->tries++ % s->nameserver_count], DNS_PORT, query->question, query->question_length);
    os_timer_set(&query->timer, os_now() + wait);
}

static void ask_next(struct net_query *query) {
    if (next_question(query))
        ask(query);
    else
        finish(query, NET_NO_NAME, 0);
}

static uint32_t number16(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

/* Past the name at `at`; 0 when it runs out of the message. */
static size_t skip_name(const uint8_t *message, size_t length, size_t at) {
    while (at < length) {
        if (message[at] >= 0xc0)
            return at + 2;
        if (!message[at])
            return at + 1;
        at += message[at] + 1u;
    }
    return 0;
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static void answered(void *owner, uint32_t from, uint16_t port, const char *bytes, size_t length) {
    struct net_query *query = owner;
    const uint8_t *message = (const uint8_t *)bytes;
    bool asked = false;
    for (int i = 0; i < net_settings.nameserver_count; i++)
        asked |= net_settings.nameservers[i] == from;
    if (!asked || port != DNS_PORT || length < query->question_length || number16(message) != query->id || !(message[2] & 0x80) ||
        number16(message + 4) != 1)
        return;
    for (size_t i = HEADER; i < query->question_length; i++)
        if (lower(message[i]) != lower(query->question[i]))
            return;
    int code = message[3] & 15;
    if (code == NO_SUCH_NAME) {
        ask_next(query);
        return;
    }
    if (code) { /* this server cannot say: the next one may */
        ask(query);
        return;
    }
    size_t at = query->question_length;
    for (uint32_t left = number16(message + 6); left; left--) {
        at = skip_name(message, length, at);
        if (!at || at + 10 > length)
            break;
        size_t data = number16(message + at + 8);
        if (at + 10 + data > length)
            break;
        const uint8_t *a = message + at + 10;
        if (number16(message + at) == TYPE_A && number16(message + at + 2) == CLASS_IN && data == 4) {
            finish(query, NET_OK, (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3]);
            return;
        }
        at += 10 + data;
    }
    ask_next(query); /* it exists and has no such address */
}

static void begin(void *owner) {
    struct net_query *query = owner;
    uint32_t address;
    if (net_address_parse(query->name, text_length(query->name), &address)) {
        finish(query, NET_OK, address);
        return;
    }
    if (text_equal(query->name, "localhost")) {
        finish(query, NET_OK, 0x7f000001);
        return;
    }
    if (!net_settings.nameserver_count) {
        finish(query, NET_NO_RESOLVER, 0);
        return;
    }
    query->socket = net_open(answered, query);
    if (!query->socket) {
        finish(query, NET_FULL, 0);
        return;
    }
    query->timer.run = ask;
    ask_next(query);
}

void net_resolve(struct net_query *query, const char *name) {
    size_t n = text_length(name);
    if (n >= sizeof query->name)
        n = 0;
    memcpy(query->name, name, n);
    query->name[n] = 0;
    query->candidate = 0;
    query->socket = NULL;
    query->timer = (struct os_timer){.run = begin, .owner = query};
    os_timer_set(&query->timer, os_now()); /* the answer never comes before this returns */
}

void net_give_up(struct net_query *query) {
    os_timer_clear(&query->timer);
    if (query->socket)
        net_shut(query->socket);
    query->socket = NULL;
}
