/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What every bare machine (os/x86_64, os/arm64, os/xen) does alike: command line in, exit code out. The rest is the machine's own.
 */
#ifndef UNIFLEET_BARE_H
#define UNIFLEET_BARE_H

#include "os.h"

enum { EXIT_BAD_COMMAND_LINE = 2, EXIT_ABORT = 134 };

/* bare.c: run the program with this kernel command line (NULL: an empty one) and leave with its exit code. */
_Noreturn void bare_run(const char *command_line);

/* Leave with this exit code: the console's last line is "unikernel: exit CODE", since a virtual machine has no other way to tell. */
_Noreturn void bare_exit(int code);

/* Say why nothing can run and leave with EXIT_ABORT. */
_Noreturn void bare_fail(const char *why);

/* Say what is wrong with the command line and leave with EXIT_BAD_COMMAND_LINE. */
_Noreturn void bare_refuse(const char *why);

/* A processor exception of this number happened at this address; leave with EXIT_ABORT. */
_Noreturn void bare_exception(uint64_t number, uint64_t address);

/* files.c: the initrd, as the boot loader has placed it: a cpio archive ("newc"), or else the file /initrd itself. */
void files_start(const void *bytes, size_t length);

/* Each machine has these: wait until everything written has left; switch the machine off. */
void console_drain(void);
_Noreturn void power_off(void);

#endif
