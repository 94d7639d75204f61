/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Text and exact decimals without a libc: what both platforms share.
 */
#include "os.h"

void *memcpy(void *to, const void *from, size_t n) {
    char *t = to;
    const char *f = from;
    while (n--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    char *t = to;
    const char *f = from;
    if (t < f)
        return memcpy(to, from, n);
    while (n--)
        t[n] = f[n];
    return to;
}

void *memset(void *to, int byte, size_t n) {
    char *t = to;
    while (n--)
        *t++ = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const unsigned char *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

size_t text_length(const char *s) {
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

bool text_equal(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

bool text_starts(const char *s, const char *prefix) {
    while (*prefix)
        if (*s++ != *prefix++)
            return false;
    return true;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool text_starts_like(const char *s, const char *prefix) {
    while (*prefix)
        if (lower(*s++) != lower(*prefix++))
            return false;
    return true;
}

const char *env_get(char **env, const char *name) {
    size_t n = text_length(name);
    const char *found = NULL;
    for (; *env; env++)
        if (text_starts(*env, name) && (*env)[n] == '=')
            found = *env + n + 1;
    return found;
}

void line_char(struct line *line, char c) {
    if (line->length < line->size)
        line->bytes[line->length++] = c;
}

void line_text(struct line *line, const char *s) {
    while (*s)
        line_char(line, *s++);
}

void line_number(struct line *line, uint64_t n, int least_digits) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n || count < least_digits);
    while (count)
        line_char(line, digits[--count]);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_bare(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit((char)c) || c == '-' || c == '_' || c == '.' || c == ':' ||
           c == '/' || c == '+' || c == '@' || c == ',';
}

void line_value(struct line *line, const char *s) {
    static const char hex[] = "0123456789abcdef";
    bool bare = *s != 0;
    for (const char *c = s; *c && bare; c++)
        bare = is_bare((unsigned char)*c);
    if (bare) {
        line_text(line, s);
        return;
    }
    line_char(line, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            line_char(line, '\\');
            line_char(line, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            line_text(line, "\\x");
            line_char(line, hex[c >> 4]);
            line_char(line, hex[c & 15]);
        } else {
            line_char(line, (char)c);
        }
    }
    line_char(line, '"');
}

/* The length of the UTF-8 sequence at s (RFC 3629), 0 when it is none. */
static int sequence(const unsigned char *s) {
    int more = *s < 0x80 ? 0 : *s >= 0xc2 && *s < 0xe0 ? 1 : *s >= 0xe0 && *s < 0xf0 ? 2 : *s >= 0xf0 && *s < 0xf5 ? 3 : -1;
    if (more < 0 || (*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] >= 0xa0) || (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] >= 0x90))
        return 0;
    for (int i = 1; i <= more; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return more + 1;
}

void line_json(struct line *line, const char *s) {
    static const char hex[] = "0123456789abcdef";
    line_char(line, '"');
    for (const unsigned char *c = (const unsigned char *)s; *c;) {
        int length = sequence(c);
        if (!length) {
            line_text(line, "\xef\xbf\xbd");
            c++;
        } else if (*c < 0x20) {
            line_text(line, "\\u00");
            line_char(line, hex[*c >> 4]);
            line_char(line, hex[*c & 15]);
            c++;
        } else {
            if (*c == '"' || *c == '\\')
                line_char(line, '\\');
            while (length--)
                line_char(line, (char)*c++);
        }
    }
    line_char(line, '"');
}

bool decimal_parse(const char *s, size_t length, struct decimal *out) {
    const char *end = s + length;
    int digits = 0, places = 0;
    bool point = false;
    out->negative = s < end && *s == '-';
    if (s < end && (*s == '-' || *s == '+'))
        s++;
    out->digits = 0;
    if (s == end || !is_digit(*s))
        return false;
    for (; s < end; s++) {
        if (*s == '.' && !point) {
            point = true;
            if (s + 1 == end)
                return false;
            continue;
        }
        if (!is_digit(*s) || ++digits > 18)
            return false;
        out->digits = out->digits * 10 + (uint64_t)(*s - '0');
        places += point;
    }
    out->places = places;
    return true;
}

bool decimal_nanoseconds(const struct decimal *d, uint64_t *out) {
    const uint64_t most = 366ull * 86400 * 1000000000;
    uint64_t n = d->digits;
    if (d->negative && n)
        return false;
    for (int places = d->places; places > 9; places--)
        n /= 10;
    for (int places = d->places; places < 9; places++) {
        if (n > most / 10)
            return false;
        n *= 10;
    }
    *out = n;
    return n <= most;
}

void line_decimal(struct line *line, struct decimal d) {
    uint64_t scale = 1;
    while (d.places > 0 && d.digits % 10 == 0) {
        d.digits /= 10;
        d.places--;
    }
    for (int i = 0; i < d.places && i < 19; i++)
        scale *= 10;
    if (d.negative && d.digits)
        line_char(line, '-');
    line_number(line, d.digits / scale, 1);
    if (d.places > 0) {
        line_char(line, '.');
        line_number(line, d.digits % scale, d.places);
    }
}
