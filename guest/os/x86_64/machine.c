/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The x86_64 machine's start and end: command line in, exit code out.
 *
 * The exit code leaves as the console's last line, "unikernel: exit CODE", since a virtual machine has no other way to tell; then the
 * machine powers off.
 */
#include "machine.h"

/* Xen's public/arch-x86/hvm/start_info.h; QEMU passes the same. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, acpi;
};

enum { START_MAGIC = 0x336ec578, EXIT_USAGE = 2, EXIT_ABORT = 134 };
static const uint64_t mapped = 1u << 30;

static void say(const char *text) {
    os_write(text, text_length(text));
}

_Noreturn void machine_exit(int code) {
    char bytes[32];
    struct line line = {bytes, sizeof bytes, 0};
    line_text(&line, "unikernel: exit ");
    line_number(&line, (uint64_t)(code & 0xff), 1);
    line_char(&line, '\n');
    os_write(bytes, line.length);
    serial_drain();
    power_off();
}

void machine_exception(int vector, uint64_t at);
void machine_exception(int vector, uint64_t at) {
    static bool again;
    char bytes[80];
    struct line line = {bytes, sizeof bytes, 0};
    if (again)
        power_off();
    again = true;
    line_text(&line, "\nunikernel: processor exception ");
    line_number(&line, (uint64_t)vector, 1);
    line_text(&line, " at address ");
    line_number(&line, at, 1);
    line_char(&line, '\n');
    os_write(bytes, line.length);
    machine_exit(EXIT_ABORT);
}

void machine_main(const struct start_info *start);
void machine_main(const struct start_info *start) {
    static char text[COMMAND_LINE_MAX + 2], program[] = "unikernel";
    static struct words words;
    const char *wrong = NULL;

    serial_start();
    interrupts_start();
    time_start();
    power_start();
    if ((uintptr_t)start >= mapped || start->magic != START_MAGIC || start->command_line >= mapped) {
        say("unikernel: the boot loader's start info is not where PVH says\n");
        machine_exit(EXIT_ABORT);
    }
    const char *line = (const char *)(uintptr_t)start->command_line;
    for (size_t i = 0; line && i < sizeof text - 1 && line[i]; i++)
        text[i] = line[i];
    wrong = words_parse(text, program, &words);
    if (wrong) {
        say("unikernel: ");
        say(wrong);
        say("\n");
        machine_exit(EXIT_USAGE);
    }
    machine_exit(app_main(words.argc, words.argv, words.env));
}
