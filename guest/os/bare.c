/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The start and end of a program on a bare machine, whichever it is.
 */
#include "bare.h"

static void say(const char *text) {
    os_write(text, text_length(text));
}

_Noreturn void bare_exit(int code) {
    char bytes[32];
    struct line line = {bytes, sizeof bytes, 0};
    line_text(&line, "unikernel: exit ");
    line_number(&line, (uint64_t)(code & 0xff), 1);
    line_char(&line, '\n');
    os_write(bytes, line.length);
    console_drain();
    power_off();
}

static void say_why(const char *why) {
    say("unikernel: ");
    say(why);
    say("\n");
}

_Noreturn void bare_fail(const char *why) {
    say_why(why);
    bare_exit(EXIT_ABORT);
}

_Noreturn void bare_refuse(const char *why) {
    say_why(why);
    bare_exit(EXIT_BAD_COMMAND_LINE);
}

_Noreturn void bare_exception(uint64_t number, uint64_t address) {
    static bool again;
    char bytes[96];
    struct line line = {bytes, sizeof bytes, 0};
    if (again)
        power_off();
    again = true;
    line_text(&line, "\nunikernel: processor exception ");
    line_number(&line, number, 1);
    line_text(&line, " at address ");
    line_number(&line, address, 1);
    line_char(&line, '\n');
    os_write(bytes, line.length);
    bare_exit(EXIT_ABORT);
}

_Noreturn void bare_run(const char *command_line) {
    static char text[COMMAND_LINE_MAX + 2], program[] = "unikernel";
    static struct words words;
    for (size_t i = 0; command_line && i < sizeof text - 1 && command_line[i]; i++)
        text[i] = command_line[i];
    const char *wrong = words_parse(text, program, &words);
    if (wrong)
        bare_refuse(wrong);
    bare_exit(app_main(words.argc, words.argv, words.env));
}
