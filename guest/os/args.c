/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Options of programs, taken apart alike in each.
 */
#include "args.h"

int args_refuse(const char *program, const char *what, const char *word) {
    static char bytes[1024];
    struct line line = {bytes, sizeof bytes - 1, 0};
    line_text(&line, program);
    line_text(&line, ": ");
    line_text(&line, what);
    if (word) {
        char shown[64];
        size_t n = 0;
        for (; word[n] && n < sizeof shown - 1; n++)
            shown[n] = word[n];
        shown[n] = 0;
        line_text(&line, ": ");
        line_value(&line, shown);
    }
    bytes[line.length++] = '\n';
    os_write(bytes, line.length);
    return EXIT_USAGE;
}

int args_without_network(const char *program, const char *what, const char *why) {
    static char bytes[512];
    struct line line = {bytes, sizeof bytes - 1, 0};
    line_text(&line, what);
    line_text(&line, ": ");
    line_text(&line, why);
    bytes[line.length] = 0;
    args_refuse(program, bytes, NULL);
    return EXIT_NETWORK;
}

static int refuse_unknown(const char *program, const struct arg *args, int count, const char *word) {
    static char bytes[512];
    struct line line = {bytes, sizeof bytes - 1, 0};
    line_text(&line, "unknown option (known:");
    for (int i = 0; i < count; i++) {
        line_char(&line, ' ');
        line_text(&line, args[i].name);
    }
    line_char(&line, ')');
    bytes[line.length] = 0;
    return args_refuse(program, bytes, word);
}

int args_parse(const char *program, struct arg *args, int count, int argc, char **argv, char **env, int *words) {
    bool only_words = false;
    *words = 0;
    for (int i = 0; i < count; i++)
        args[i].value = env_get(env, args[i].variable);
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (only_words || word[0] != '-') {
            argv[1 + (*words)++] = word;
            continue;
        }
        if (text_equal(word, "--")) {
            only_words = true;
            continue;
        }
        int option = 0;
        while (option < count && !text_equal(word, args[option].name))
            option++;
        if (option == count)
            return refuse_unknown(program, args, count, word);
        if (++i == argc)
            return args_refuse(program, "an option lacks its value", word);
        args[option].value = argv[i];
    }
    return 0;
}

bool args_number(const char *text, uint64_t most, uint64_t *out) {
    struct decimal d;
    if (!text)
        return true;
    if (!decimal_parse(text, text_length(text), &d) || d.negative || d.places || d.digits > most)
        return false;
    *out = d.digits;
    return true;
}

bool args_seconds(const char *text, uint64_t least, uint64_t *out) {
    struct decimal d;
    if (!text)
        return true;
    return decimal_parse(text, text_length(text), &d) && decimal_nanoseconds(&d, out) && *out >= least;
}

bool args_port(const char *text, uint16_t *out) {
    uint64_t port = *out;
    if (text && text_equal(text, "none"))
        port = 0;
    else if (!args_number(text, 65535, &port) || (text && !port))
        return false;
    *out = (uint16_t)port;
    return true;
}
