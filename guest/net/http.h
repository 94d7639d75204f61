/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * HTTP/1.1 (RFC 9112) as far as small programs need it: answers that fit into one buffer, and calls to other services.
 */
#ifndef UNIFLEET_HTTP_H
#define UNIFLEET_HTTP_H

#include "net.h"

enum { HTTP_PORT = 80, HTTP_BODY_MOST = 8192 };

/* "OK", "Not Found", ... */
const char *http_reason(int status);

/* Past the header line `name:` and blanks, when the line at s is that one; else NULL. */
const char *http_header(const char *s, const char *name);

struct http_request {
    const char *method, *path; /* the path without its query */
};
struct http_answer {
    int status; /* 200 before it is asked */
    const char *type;
    struct line body; /* of HTTP_BODY_MOST bytes */
};

/* Serve on port: answer fills in every answer. */
enum net_result http_serve(uint16_t port, void (*answer)(const struct http_request *request, struct http_answer *answer));

/* Where a call goes to: http://HOST[:PORT][/PATH]. path points into the text. */
struct http_url {
    char host[256];
    uint16_t port;
    const char *path; /* "" counts as "/" */
};
bool http_url_parse(const char *text, struct http_url *out);

enum http_stage { HTTP_NAME, HTTP_CONNECT, HTTP_ANSWER };

/* A call to another service. Set the first part, zero the rest; it is the caller's memory until done. */
struct http_call {
    const struct http_url *url;
    const char *method, *type, *body; /* type and body: NULL for none */
    uint64_t timeout;                 /* nanoseconds for all of it */
    char *bytes;                      /* room for the answer's body, which is cut off at size - 1 and ends with a NUL */
    size_t size;
    void (*done)(struct http_call *call);

    /* What came of it. */
    enum net_result result;
    enum http_stage stage; /* how far it got */
    bool malformed;        /* the answer is not HTTP, or ends too early */
    int status;
    size_t length, total; /* bytes kept of the body, and all of it */

    struct net_query query;
    struct net_stream *stream;
    struct os_timer timer;
    enum { HTTP_STATUS_LINE, HTTP_HEADERS, HTTP_BODY, HTTP_CHUNK_SIZE, HTTP_CHUNK, HTTP_CHUNK_END, HTTP_TRAILERS, HTTP_FINISHED } state;
    bool chunked, sized, interim;
    uint64_t left; /* of the body or the chunk */
    size_t line_length;
    char line[512];
};
void http_call(struct http_call *call);

#endif
