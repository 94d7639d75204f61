/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * An Ethernet card, whatever it is behind (virtio, Xen): what net/lwip.c drives.
 */
#ifndef UNIFLEET_CARD_H
#define UNIFLEET_CARD_H

#include "../os/os.h"

enum { ETHERNET_HEADER = 14, ETHERNET_MTU = 1500, FRAME_MOST = ETHERNET_HEADER + ETHERNET_MTU };

struct card {
    uint8_t address[6];
    uint16_t mtu; /* at most ETHERNET_MTU */
    /* Send a frame of at most ETHERNET_HEADER + mtu bytes; it is copied. Returns false when there is no room now. */
    bool (*send)(struct card *card, const void *frame, size_t length);
    /* Copy the oldest frame that waits to frame, which has FRAME_MOST bytes. Returns its length, 0 when none waits. */
    size_t (*receive)(struct card *card, void *frame);
};

/* Each bare machine: its first card, ready to use and waking platform_wait when a frame comes; NULL when it has none. */
struct card *card_find(void);

#endif
