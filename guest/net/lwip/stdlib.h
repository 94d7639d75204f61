/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What lwIP asks of a C library's <stdlib.h>: nothing that is called.
 */
#ifndef UNIFLEET_STDLIB_H
#define UNIFLEET_STDLIB_H

int atoi(const char *s);

#endif
