/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The card and the stream of a machine whose devices are virtio's; where those are, virtio_open of the machine knows.
 */
#include "../net/card.h"
#include "../os/os.h"
#include "virtio.h"

struct card *card_find(void) {
    static struct virtio device;
    return virtio_open(&device, VIRTIO_NET) ? virtio_net_start(&device) : NULL;
}

long os_read_stream(char *bytes, size_t size) {
    static struct virtio device;
    static enum { UNKNOWN, THERE, ABSENT } state;
    if (state == UNKNOWN)
        state = virtio_open(&device, VIRTIO_CONSOLE) && virtio_console_start(&device) ? THERE : ABSENT;
    return state == THERE ? (long)virtio_console_read(bytes, size) : -19;
}
