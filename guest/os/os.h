/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What an application of ours may ask of the ground it stands on: a Linux process or a bare virtual machine.
 *
 * The application is written once against this header and net/net.h. Each platform (os/linux, os/x86_64, ...) implements the os_ calls
 * and the two of loop.h; loop.c, text.c and words.c are shared. There is no libc in either, so that the same few kilobytes run everywhere, and no floating point, because
 * a guest on a software-virtualised /dev/kvm (KVM_PVM) dies at its first SSE instruction.
 */
#ifndef UNIFLEET_OS_H
#define UNIFLEET_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The program: returns its exit code (0-255). env is a NULL-terminated list of NAME=value. */
int app_main(int argc, char **argv, char **env);

/* Write all of it to standard output, or the serial console. Returns false when nobody can read it any more. */
bool os_write(const char *bytes, size_t length);

/* Nanoseconds since the program began; never goes back. */
uint64_t os_now(void);

/* Sleep until os_now() >= deadline; meanwhile the network and the timers are looked after, in callbacks. Returns true at once when the
 * platform has asked the program to end (SIGTERM, power button). */
bool os_sleep_until(uint64_t deadline);

/* Have the os_sleep_until that is under way, or else the next one, return early with false. */
void os_wake(void);

/* A call that os_sleep_until makes once os_now() >= due. Zero-initialised it is not set; setting it again moves it. */
struct os_timer {
    void (*run)(void *owner);
    void *owner;
    uint64_t due;
    bool set;
    struct os_timer *next;
};
void os_timer_set(struct os_timer *timer, uint64_t due);
void os_timer_clear(struct os_timer *timer);

/* 64 bits that a peer cannot guess from what it has seen: for sequence numbers and ports, not for keys. */
uint64_t os_random(void);

/* Whether this platform has files at all: a process always, a virtual machine when it was given an initrd. */
bool os_has_files(void);

/* Read at most size bytes of the file at path; never waits for a writer. Returns the count, or -errno. */
long os_read_file(const char *path, char *bytes, size_t size);

/* The stream that the platform feeds to the program: a process' standard input, a virtual machine's virtio-serial port. Returns how many
 * bytes were read, 0 when none wait, or -errno (ENODEV, 19: there is no such stream). Does not wait. */
long os_read_stream(char *bytes, size_t size);

/* The usual four; GCC emits calls to them even in freestanding code. */
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* text.c */
size_t text_length(const char *s);
bool text_equal(const char *a, const char *b);
bool text_starts(const char *s, const char *prefix);
/* The same regardless of the case of ASCII letters. */
bool text_starts_like(const char *s, const char *prefix);

/* The value of NAME in env, or NULL; the last one of several counts. */
const char *env_get(char **env, const char *name);

/* A line under construction. What does not fit is dropped: size it so that it fits. */
struct line {
    char *bytes;
    size_t size, length;
};
void line_char(struct line *line, char c);
void line_text(struct line *line, const char *s);
void line_number(struct line *line, uint64_t n, int least_digits);
/* s as a value of NAME=value: bare when harmless, else in double quotes with \" \\ \xNN. Never breaks the line. */
void line_value(struct line *line, const char *s);

/* s as a string of JSON, quotes included; bytes that are no UTF-8 become U+FFFD. */
void line_json(struct line *line, const char *s);

/* A decimal number, exact: (negative ? -1 : 1) * digits / 10^places. */
struct decimal {
    bool negative;
    uint64_t digits;
    int places;
};
/* Parse [+-]DIGITS[.DIGITS] of at most 18 digits in all; the whole of the length bytes must be it. */
bool decimal_parse(const char *s, size_t length, struct decimal *out);
/* Seconds as nanoseconds; false when negative or above 366 days. */
bool decimal_nanoseconds(const struct decimal *d, uint64_t *out);
void line_decimal(struct line *line, struct decimal d);

/* words.c: a kernel command line, taken apart. The grammar is in guest/README.md; its other half is plugins/host/guests/plain.py. */
enum { WORDS_MAX = 2048, COMMAND_LINE_MAX = 4095 };
struct words {
    int argc;
    char *argv[WORDS_MAX + 2];
    char *env[WORDS_MAX + 1];
};
/* Decode text in place. Returns NULL, or one sentence on what is wrong. */
const char *words_parse(char *text, char *program, struct words *out);

#endif
