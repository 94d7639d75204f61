/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Options of programs: --NAME VALUE, each with an environment variable, and words.
 */
#ifndef UNIFLEET_ARGS_H
#define UNIFLEET_ARGS_H

#include "os.h"

enum { EXIT_OUTPUT = 1, EXIT_USAGE = 2, EXIT_NETWORK = 3 };

struct arg {
    const char *name, *variable; /* "--period", "SENSOR_PERIOD" */
    const char *value;           /* NULL: not given. Last one wins; an option goes before its variable */
};

/* Take options from env and argv; words that are none of them (after "--" all) are moved to argv[1...], their count to words.
 * Returns 0, or EXIT_USAGE after having said why. */
int args_parse(const char *program, struct arg *args, int count, int argc, char **argv, char **env, int *words);

/* Print "PROGRAM: what: word" (word may be NULL) and return EXIT_USAGE. */
int args_refuse(const char *program, const char *what, const char *word);

/* Print "PROGRAM: what: why" and return EXIT_NETWORK. */
int args_without_network(const char *program, const char *what, const char *why);

/* text as a whole number up to most; as seconds in nanoseconds, from least on. NULL leaves out as it is. */
bool args_number(const char *text, uint64_t most, uint64_t *out);
bool args_seconds(const char *text, uint64_t least, uint64_t *out);

/* What --port says: 0 for "none", a port, or the default when it is NULL. */
bool args_port(const char *text, uint16_t *out);

#endif
