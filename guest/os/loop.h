/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What os_sleep_until (loop.c) needs of a platform, and what takes part in it.
 */
#ifndef UNIFLEET_LOOP_H
#define UNIFLEET_LOOP_H

#include "os.h"

/* Each platform: wait until os_now() >= until. Returns early whenever anything happened that somebody may care about (an interrupt, a
 * readable socket, a wish to end), also when that was between the last look and this call. */
void platform_wait(uint64_t until);

/* Each platform: whether it has asked the program to end. */
bool platform_stopping(void);

/* Call look before every wait, for as long as the program runs. It returns the time by which it must be called again (UINT64_MAX: when
 * something happened). */
void loop_attend(uint64_t (*look)(void));

#endif
