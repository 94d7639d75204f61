/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What lwIP must know of the compiler and of what it stands on.
 */
#ifndef UNIFLEET_LWIP_CC_H
#define UNIFLEET_LWIP_CC_H

#include "../../../os/os.h"

typedef long ssize_t; /* limits.h has SSIZE_MAX, so lwIP takes it for defined */

#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_UNISTD_H 1
#define LWIP_NO_CTYPE_H 1
#define X8_F "x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "zu"

/* An assertion of lwIP's that does not hold: going on could lead past a buffer. */
_Noreturn void lwip_broken(const char *assertion);

#define LWIP_PLATFORM_DIAG(x) ((void)0)
#define LWIP_PLATFORM_ASSERT(x) lwip_broken(x)
#define LWIP_RAND() ((uint32_t)os_random())

#endif
