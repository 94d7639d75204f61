/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * An HTTP client: one call at a time over a connection of its own, which the server is asked to close.
 *
 * The answer may be of a given length, in chunks, or go on to the connection's end; of its body the beginning is kept.
 */
#include "http.h"

enum { REQUEST_MOST = 8192 };

static void finish(struct http_call *call, enum net_result result) {
    os_timer_clear(&call->timer);
    net_give_up(&call->query);
    if (call->stream)
        net_close(call->stream);
    call->stream = NULL;
    call->state = HTTP_FINISHED;
    call->result = result;
    call->bytes[call->length] = 0;
    call->done(call);
}

static void broken(struct http_call *call) {
    call->malformed = true;
    finish(call, NET_OK);
}

static void keep(struct http_call *call, const char *bytes, size_t length) {
    size_t room = call->size - 1 - call->length, n = length < room ? length : room;
    memcpy(call->bytes + call->length, bytes, n);
    call->length += n;
    call->total += length;
}

static bool whole_number(const char *s, uint64_t *out) {
    size_t n = 0;
    struct decimal d;
    while (s[n] >= '0' && s[n] <= '9')
        n++;
    if (!decimal_parse(s, n, &d) || (s[n] && s[n] != ' ' && s[n] != '\t'))
        return false;
    *out = d.digits;
    return true;
}

static bool hex_number(const char *s, uint64_t *out) {
    size_t n = 0;
    *out = 0;
    for (;; n++) {
        char c = s[n];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            break;
        if (n == 15)
            return false;
        *out = *out << 4 | (uint64_t)digit;
    }
    return n && (!s[n] || s[n] == ';' || s[n] == ' ');
}

/* The header is over: what comes of the body? False when the call is finished. */
static bool begin_body(struct http_call *call) {
    if (call->interim) { /* 1xx: the real answer follows */
        call->state = HTTP_STATUS_LINE;
        return true;
    }
    bool none = text_equal(call->method, "HEAD") || call->status == 204 || call->status == 304;
    if (none || (call->sized && !call->chunked && !call->left)) {
        finish(call, NET_OK);
        return false;
    }
    call->state = call->chunked ? HTTP_CHUNK_SIZE : HTTP_BODY;
    return true;
}

/* One line of the header or of the chunks. False when the call is finished. */
static bool take_line(struct http_call *call) {
    const char *line = call->line, *value;
    uint64_t number;
    switch (call->state) {
    case HTTP_STATUS_LINE:
        if (!text_starts(line, "HTTP/1.") || (line[7] != '0' && line[7] != '1') || line[8] != ' ' || text_length(line) < 12 ||
            !decimal_parse(line + 9, 3, &(struct decimal){0}) || (line[12] && line[12] != ' ') || line[9] < '1' || line[9] > '9') {
            broken(call);
            return false;
        }
        call->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
        call->interim = call->status < 200;
        call->chunked = call->sized = false;
        call->state = HTTP_HEADERS;
        return true;
    case HTTP_HEADERS:
        if (!*line)
            return begin_body(call);
        if ((value = http_header(line, "content-length"))) {
            if (!whole_number(value, &call->left)) {
                broken(call);
                return false;
            }
            call->sized = true;
        } else if ((value = http_header(line, "transfer-encoding"))) {
            call->chunked = text_starts_like(value, "chunked");
        }
        return true;
    case HTTP_CHUNK_SIZE:
        if (!hex_number(line, &number)) {
            broken(call);
            return false;
        }
        call->left = number;
        call->state = number ? HTTP_CHUNK : HTTP_TRAILERS;
        return true;
    case HTTP_CHUNK_END:
        if (*line) {
            broken(call);
            return false;
        }
        call->state = HTTP_CHUNK_SIZE;
        return true;
    default:
        if (*line)
            return true; /* a trailer */
        finish(call, NET_OK);
        return false;
    }
}

static void received(void *owner, const char *bytes, size_t length) {
    struct http_call *call = owner;
    if (!length) {
        if (call->state == HTTP_BODY && !call->sized)
            finish(call, NET_OK);
        else
            broken(call);
        return;
    }
    while (length) {
        if (call->state == HTTP_BODY || call->state == HTTP_CHUNK) {
            bool limited = call->state == HTTP_CHUNK || call->sized;
            size_t n = limited && call->left < length ? (size_t)call->left : length;
            keep(call, bytes, n);
            bytes += n;
            length -= n;
            call->left -= limited ? n : 0;
            if (!limited || call->left)
                continue;
            if (call->state == HTTP_BODY) {
                finish(call, NET_OK);
                return;
            }
            call->state = HTTP_CHUNK_END;
            continue;
        }
        char c = *bytes++;
        length--;
        if (c != '\n') { /* too long a line is cut: no header that matters here is */
            if (c && call->line_length < sizeof call->line - 1)
                call->line[call->line_length++] = c;
            continue;
        }
        if (call->line_length && call->line[call->line_length - 1] == '\r')
            call->line_length--;
        call->line[call->line_length] = 0;
        call->line_length = 0;
        if (!take_line(call))
            return;
    }
}

static void ended(void *owner, enum net_result why) {
    struct http_call *call = owner;
    call->stream = NULL;
    finish(call, why);
}

static void opened(void *owner) {
    static char bytes[REQUEST_MOST];
    struct http_call *call = owner;
    struct line line = {bytes, sizeof bytes, 0};
    call->stage = HTTP_ANSWER;
    line_text(&line, call->method);
    line_char(&line, ' ');
    if (*call->url->path != '/')
        line_char(&line, '/');
    line_text(&line, call->url->path);
    line_text(&line, " HTTP/1.1\r\nHost: ");
    line_text(&line, call->url->host);
    if (call->url->port != HTTP_PORT) {
        line_char(&line, ':');
        line_number(&line, call->url->port, 1);
    }
    line_text(&line, "\r\nUser-Agent: unifleet-caller\r\nAccept: */*\r\nConnection: close\r\n");
    if (call->body) {
        line_text(&line, "Content-Type: ");
        line_text(&line, call->type);
        line_text(&line, "\r\nContent-Length: ");
        line_number(&line, text_length(call->body), 1);
        line_text(&line, "\r\n");
    }
    line_text(&line, "\r\n");
    if (call->body)
        line_text(&line, call->body);
    if (!net_send(call->stream, bytes, line.length))
        finish(call, NET_FULL);
}

static void resolved(void *owner, enum net_result result, uint32_t address) {
    static const struct net_stream_events events = {opened, received, ended};
    struct http_call *call = owner;
    if (result != NET_OK) {
        finish(call, result);
        return;
    }
    call->stage = HTTP_CONNECT;
    call->stream = net_connect(address, call->url->port, &events, call);
    if (!call->stream)
        finish(call, NET_FULL);
}

static void too_late(void *owner) {
    finish(owner, NET_TIMEOUT);
}

void http_call(struct http_call *call) {
    call->query.done = resolved;
    call->query.owner = call;
    call->timer = (struct os_timer){.run = too_late, .owner = call};
    os_timer_set(&call->timer, os_now() + call->timeout);
    net_resolve(&call->query, call->url->host);
}
