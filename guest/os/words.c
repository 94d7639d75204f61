/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The kernel command line of our guests, taken apart: [NAME=value ...] -- [argument ...]
 *
 * Words are separated by single spaces; %XX is the byte XX; a word that is only % is the empty word. Without a word -- everything is
 * an argument, so that a person may type one by hand. This file is also built as a program for the host, against which
 * the encoder (plugins/host/guests/plain.py) is tested.
 */
#include "os.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decode one word in place; false when an escape is broken or makes a NUL. */
static bool decode(char *word) {
    char *to = word;
    if (text_equal(word, "%")) {
        *word = 0;
        return true;
    }
    for (const char *from = word; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]);
        int low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || high + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = 0;
    return true;
}

const char *words_parse(char *text, char *program, struct words *out) {
    int count = 0, separator = -1, environment = 0;
    char **words = out->argv + 1;

    if (text_length(text) > COMMAND_LINE_MAX)
        return "the command line is longer than 4095 bytes";
    for (char *c = text; *c;) {
        while (*c == ' ')
            *c++ = 0;
        if (!*c)
            break;
        if (count == WORDS_MAX + 1)
            return "the command line has too many words";
        words[count++] = c;
        while (*c && *c != ' ')
            c++;
    }
    for (int i = 0; i < count && separator < 0; i++)
        if (text_equal(words[i], "--"))
            separator = i;
    for (int i = 0; i < count; i++)
        if (i != separator && !decode(words[i]))
            return "the command line has a broken %XX escape";
    for (; environment < separator; environment++) {
        const char *c = words[environment];
        while (*c && *c != '=')
            c++;
        if (!*c || c == words[environment])
            return "the command line has a word before -- that is not NAME=value";
        out->env[environment] = words[environment];
    }
    out->env[environment] = NULL;
    out->argv[0] = program;
    out->argc = 1;
    for (int i = separator + 1; i < count; i++)
        out->argv[out->argc++] = words[i];
    out->argv[out->argc] = NULL;
    return NULL;
}
