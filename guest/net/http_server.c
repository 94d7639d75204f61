/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * An HTTP server for answers that fit into one buffer.
 *
 * A connection holds no more than its request's header; bodies are read past. Requests on one connection are answered in turn. One that
 * says nothing for ten seconds is closed, and when all are taken the one that has been silent longest has to go, so that slow or dead peers
 * cannot shut others out.
 */
#include "http.h"

enum { CONNECTIONS = 64, HEADER_MOST = 2048, ANSWER_MOST = HTTP_BODY_MOST + 256 };
static const uint64_t idle_most = 10000000000u;

struct connection {
    struct net_stream *stream; /* NULL: this entry is free */
    struct os_timer timer;
    uint64_t heard;
    size_t length;
    uint64_t skip; /* bytes of a body still to read past */
    char header[HEADER_MOST];
};

static struct connection connections[CONNECTIONS];
static void (*answer_request)(const struct http_request *request, struct http_answer *answer);

static void drop(void *owner) {
    struct connection *c = owner;
    os_timer_clear(&c->timer);
    net_close(c->stream);
    c->stream = NULL;
}

static bool send_answer(struct connection *c, const struct http_answer *answer, bool head, bool close) {
    static char bytes[ANSWER_MOST];
    struct line line = {bytes, sizeof bytes, 0};
    line_text(&line, "HTTP/1.1 ");
    line_number(&line, (uint64_t)answer->status, 1);
    line_char(&line, ' ');
    line_text(&line, http_reason(answer->status));
    line_text(&line, "\r\nContent-Type: ");
    line_text(&line, answer->type);
    line_text(&line, "\r\nContent-Length: ");
    line_number(&line, answer->body.length, 1);
    if (answer->status == 405)
        line_text(&line, "\r\nAllow: GET, HEAD");
    line_text(&line, close ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n");
    for (size_t i = 0; i < answer->body.length && !head; i++)
        line_char(&line, answer->body.bytes[i]);
    return net_send(c->stream, bytes, line.length);
}

/* Answer the request whose header lines (each ended by a NUL instead of CR LF, the last one empty) begin at text. False: the connection ends. */
static bool answer_one(struct connection *c, char *text) {
    static char body[HTTP_BODY_MOST];
    struct http_answer answer = {200, "application/json", {body, sizeof body, 0}};
    struct http_request request = {text, NULL};
    bool keep = true;
    char *version = NULL;
    struct decimal size = {0};

    for (char *s = text; *s; s++) {
        if (*s != ' ')
            continue;
        *s = 0;
        if (!request.path)
            request.path = s + 1;
        else if (!version)
            version = s + 1;
        else
            answer.status = 400;
    }
    if (!version || (!text_equal(version, "HTTP/1.1") && !text_equal(version, "HTTP/1.0")) || request.path[0] != '/')
        answer.status = 400;
    if (answer.status == 200) {
        const char *line = version + text_length(version) + 1;
        keep = text_equal(version, "HTTP/1.1");
        for (; *line; line += text_length(line) + 1) {
            const char *value;
            if ((value = http_header(line, "connection")) && text_starts_like(value, "close"))
                keep = false;
            else if ((value = http_header(line, "content-length")) &&
                     (!decimal_parse(value, text_length(value), &size) || size.negative || size.places))
                answer.status = 400;
            else if (http_header(line, "transfer-encoding"))
                keep = false; /* where its body ends is not worth knowing */
        }
    }
    for (char *s = (char *)(uintptr_t)request.path; s && *s; s++)
        if (*s == '?')
            *s = 0;
    bool head = text_equal(request.method, "HEAD");
    if (answer.status != 200)
        keep = false;
    else if (!head && !text_equal(request.method, "GET"))
        answer.status = 405;
    else
        answer_request(&request, &answer);
    c->skip = size.digits;
    return send_answer(c, &answer, head, !keep) && keep;
}

static void refuse(struct connection *c, int status) {
    struct http_answer answer = {status, "text/plain", {NULL, 0, 0}};
    send_answer(c, &answer, false, true);
    drop(c);
}

/* The end of the header in the first length bytes, past its empty line; 0 when it is not there yet. */
static size_t header_end(const char *s, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (s[i] != '\n')
            continue;
        if (i + 1 < length && s[i + 1] == '\n')
            return i + 2;
        if (i + 2 < length && s[i + 1] == '\r' && s[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

/* Lines with a NUL at their end, and one more: CR, LF and NULs in the text may not reach the parser. */
static void split(char *s, size_t length) {
    char *to = s;
    for (size_t i = 0; i < length; i++)
        if (s[i] == '\n')
            *to++ = 0;
        else if (s[i] != '\r')
            *to++ = s[i] ? s[i] : '?';
    while (to < s + length)
        *to++ = 0;
}

static void received(void *owner, const char *bytes, size_t length) {
    struct connection *c = owner;
    c->heard = os_now();
    os_timer_set(&c->timer, c->heard + idle_most);
    if (!length) {
        drop(c);
        return;
    }
    while (length) {
        if (c->skip) {
            size_t n = c->skip < length ? (size_t)c->skip : length;
            c->skip -= n;
            bytes += n;
            length -= n;
            continue;
        }
        if (!c->length && (*bytes == '\r' || *bytes == '\n')) { /* RFC 9112, 2.2 */
            bytes++;
            length--;
            continue;
        }
        size_t before = c->length, n = sizeof c->header - before;
        n = n < length ? n : length;
        memcpy(c->header + before, bytes, n);
        c->length += n;
        size_t end = header_end(c->header, c->length);
        if (!end) {
            if (c->length < sizeof c->header)
                return;
            refuse(c, 431);
            return;
        }
        size_t taken = end - before;
        bytes += taken;
        length -= taken;
        split(c->header, end);
        c->length = 0;
        if (!answer_one(c, c->header)) {
            drop(c);
            return;
        }
    }
}

static void ended(void *owner, enum net_result why) {
    struct connection *c = owner;
    (void)why;
    os_timer_clear(&c->timer);
    c->stream = NULL;
}

static void *accepted(struct net_stream *stream) {
    struct connection *c = connections, *silent = connections;
    for (; c < connections + CONNECTIONS && c->stream; c++)
        if (c->heard < silent->heard)
            silent = c;
    if (c == connections + CONNECTIONS) {
        c = silent;
        drop(c);
    }
    c->stream = stream;
    c->heard = os_now();
    c->length = 0;
    c->skip = 0;
    c->timer = (struct os_timer){.run = drop, .owner = c};
    os_timer_set(&c->timer, c->heard + idle_most);
    return c;
}

enum net_result http_serve(uint16_t port, void (*answer)(const struct http_request *request, struct http_answer *answer)) {
    static const struct net_stream_events events = {.received = received, .ended = ended};
    answer_request = answer;
    return net_listen(port, &events, accepted);
}
