/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What HTTP's server and client share.
 */
#include "http.h"

const char *http_reason(int status) {
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 414:
        return "URI Too Long";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return "Other";
    }
}

const char *http_header(const char *s, const char *name) {
    if (!text_starts_like(s, name) || s[text_length(name)] != ':')
        return NULL;
    s += text_length(name) + 1;
    while (*s == ' ' || *s == '\t')
        s++;
    return s;
}

bool http_url_parse(const char *text, struct http_url *out) {
    static const char scheme[] = "http://";
    if (!text_starts_like(text, scheme))
        return false;
    text += sizeof scheme - 1;
    size_t n = 0;
    for (; text[n] && text[n] != ':' && text[n] != '/' && text[n] != '?'; n++) {
        char c = text[n];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
        if (!good || n + 1 == sizeof out->host)
            return false;
        out->host[n] = c;
    }
    out->host[n] = 0;
    text += n;
    out->port = HTTP_PORT;
    if (*text == ':') {
        size_t digits = 0;
        struct decimal port;
        text++;
        while (text[digits] && text[digits] != '/' && text[digits] != '?')
            digits++;
        if (!decimal_parse(text, digits, &port) || port.places || port.negative || *text == '+' || port.digits < 1 || port.digits > 65535)
            return false;
        out->port = (uint16_t)port.digits;
        text += digits;
    }
    out->path = text;
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f || *text == '#')
            return false;
    return n;
}
