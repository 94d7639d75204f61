/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What lwIP asks of a C library's <string.h>; os/text.c has it.
 */
#ifndef UNIFLEET_STRING_H
#define UNIFLEET_STRING_H

#include "../../os/os.h"

size_t strlen(const char *s);
int strncmp(const char *a, const char *b, size_t n);

#endif
