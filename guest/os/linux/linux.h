/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files of the Linux platform share: system calls, and file descriptors that are waited on.
 */
#ifndef UNIFLEET_LINUX_H
#define UNIFLEET_LINUX_H

#include "../loop.h"

enum { EINTR = 4, EAGAIN = 11, POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, O_NONBLOCK = 04000, O_CLOEXEC = 02000000 };

/* A system call as the kernel numbers it here; -errno when it fails. */
long linux_call(long number, long a, long b, long c, long d, long e, long f);

#if defined(__x86_64__)
enum { SYS_socket = 41, SYS_connect = 42, SYS_sendto = 44, SYS_recvfrom = 45, SYS_shutdown = 48, SYS_bind = 49, SYS_listen = 50, SYS_setsockopt = 54,
       SYS_getsockopt = 55, SYS_accept4 = 288, SYS_close = 3, SYS_read = 0 };
#elif defined(__aarch64__)
enum { SYS_socket = 198, SYS_connect = 203, SYS_sendto = 206, SYS_recvfrom = 207, SYS_shutdown = 210, SYS_bind = 200, SYS_listen = 201, SYS_setsockopt = 208,
       SYS_getsockopt = 209, SYS_accept4 = 242, SYS_close = 57, SYS_read = 63 };
#elif defined(__arm__)
enum { SYS_socket = 281, SYS_connect = 283, SYS_sendto = 290, SYS_recvfrom = 292, SYS_shutdown = 293, SYS_bind = 282, SYS_listen = 284, SYS_setsockopt = 294,
       SYS_getsockopt = 295, SYS_accept4 = 366, SYS_close = 6, SYS_read = 3 };
#endif

/* Call ready whenever the descriptor is ready for one of events (POLLIN, POLLOUT), or broken. Returns the place, -1 when there is none left. */
int linux_watch(int descriptor, short events, void (*ready)(void *owner, short events), void *owner);
void linux_watch_for(int place, short events);
void linux_unwatch(int place);

#endif
