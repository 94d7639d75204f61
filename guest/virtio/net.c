/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A virtio network card: one queue each way, whole frames in buffers of their own, nothing offloaded.
 *
 * Received frames wait in their buffers until they are asked for; a frame to send takes the next buffer whose last frame has left.
 */
#include "../net/card.h"
#include "virtio.h"

enum { RECEIVE = 0, TRANSMIT = 1, BUFFERS = 64, BUFFER_BYTES = 2048, FEATURE_MTU = 3, FEATURE_MAC = 5, CONFIGURATION_MTU = 10 };
enum { HEADER_LEGACY = 10, HEADER_MODERN = 12 };

static struct {
    struct card card;
    struct virtio *device;
    struct virtio_queue receive, transmit;
    uint32_t header;
    uint16_t free[BUFFERS];
    int free_count;
    uint8_t incoming[BUFFERS][BUFFER_BYTES], outgoing[BUFFERS][BUFFER_BYTES];
} net;

static bool send(struct card *card, const void *frame, size_t length) {
    uint32_t written;
    (void)card;
    for (int entry; (entry = virtio_take(&net.transmit, &written)) >= 0;)
        if (entry < BUFFERS && net.free_count < BUFFERS)
            net.free[net.free_count++] = (uint16_t)entry;
    if (!net.free_count || length > FRAME_MOST)
        return false;
    uint16_t entry = net.free[--net.free_count];
    memcpy(net.outgoing[entry] + net.header, frame, length);
    virtio_give(&net.transmit, entry, net.outgoing[entry], (uint32_t)(net.header + length), 0);
    virtio_notify(net.device, &net.transmit);
    return true;
}

static size_t receive(struct card *card, void *frame) {
    uint32_t length;
    (void)card;
    for (int entry; (entry = virtio_take(&net.receive, &length)) >= 0;) {
        if (entry >= BUFFERS)
            continue;
        bool good = length > net.header && length - net.header <= FRAME_MOST;
        if (good)
            memcpy(frame, net.incoming[entry] + net.header, length - net.header);
        virtio_give(&net.receive, (uint16_t)entry, net.incoming[entry], BUFFER_BYTES, VIRTIO_DEVICE_WRITES);
        virtio_notify(net.device, &net.receive);
        if (good)
            return length - net.header;
    }
    return 0;
}

struct card *virtio_net_start(struct virtio *device) {
    net.device = device;
    if (!virtio_begin(device, 1u << FEATURE_MTU | 1u << FEATURE_MAC))
        return NULL;
    net.header = device->modern ? HEADER_MODERN : HEADER_LEGACY;
    if (!virtio_queue_start(device, &net.receive, RECEIVE, BUFFERS) || !virtio_queue_start(device, &net.transmit, TRANSMIT, BUFFERS))
        return NULL;
    net.card = (struct card){.mtu = ETHERNET_MTU, .send = send, .receive = receive};
    for (uint32_t i = 0; i < 6; i++)
        net.card.address[i] = (uint8_t)(device->features & 1u << FEATURE_MAC ? device->by->read8(device, i) : i ? os_random() : 2);
    if (device->features & 1u << FEATURE_MTU) {
        int mtu = device->by->read8(device, CONFIGURATION_MTU) | device->by->read8(device, CONFIGURATION_MTU + 1) << 8;
        if (mtu >= 576 && mtu < ETHERNET_MTU)
            net.card.mtu = (uint16_t)mtu;
    }
    virtio_quiet(&net.transmit);
    virtio_ready(device);
    for (uint16_t i = 0; i < BUFFERS; i++) {
        if (i < net.receive.size)
            virtio_give(&net.receive, i, net.incoming[i], BUFFER_BYTES, VIRTIO_DEVICE_WRITES);
        if (i < net.transmit.size)
            net.free[net.free_count++] = i;
    }
    virtio_notify(device, &net.receive);
    return &net.card;
}
