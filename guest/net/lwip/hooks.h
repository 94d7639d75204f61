/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What lwIP asks before it takes a TCP segment; net/lwip.c answers.
 */
#ifndef UNIFLEET_LWIP_HOOKS_H
#define UNIFLEET_LWIP_HOOKS_H

struct tcp_pcb;
struct tcp_hdr;
err_t lwip_check_segment(const struct tcp_pcb *pcb, const struct tcp_hdr *header);

#endif
