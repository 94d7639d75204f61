/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A virtio console's ports, received from only: the stream that a host feeds to its guest. Multiport (virtio 1.2, 5.3) as far as it takes to open
 * them; what comes in at any port is one stream.
 */
#include "virtio.h"

enum { FEATURE_MULTIPORT = 1, PORTS = 2, BUFFERS = 4, BUFFER_BYTES = 512, CONTROL_RECEIVE = 2, CONTROL_TRANSMIT = 3 };
enum { DEVICE_READY = 0, DEVICE_ADD = 1, PORT_READY = 3, PORT_OPEN = 6 };

struct message {
    uint32_t id;
    uint16_t event, value;
};

static struct {
    struct virtio *device;
    bool multiport;
    struct virtio_queue control_receive, control_transmit, receive[PORTS];
    struct message incoming[BUFFERS], outgoing[BUFFERS];
    uint16_t next_outgoing;
    uint8_t bytes[PORTS][BUFFERS][BUFFER_BYTES];
    int entry[PORTS]; /* the buffer that is being read, -1: none */
    uint32_t length[PORTS], at[PORTS];
} console;

/* A control message; the few that are sent at the start never fill the queue. */
static void tell(uint32_t port, uint16_t event, uint16_t value) {
    uint32_t written;
    uint16_t entry = console.next_outgoing++ % console.control_transmit.size % BUFFERS;
    virtio_take(&console.control_transmit, &written);
    console.outgoing[entry] = (struct message){port, event, value};
    virtio_give(&console.control_transmit, entry, &console.outgoing[entry], sizeof console.outgoing[entry], 0);
    virtio_notify(console.device, &console.control_transmit);
}

/* Which queue a port receives by: 0 for port 0, then after the control queues 4, 6, ... */
static uint16_t queue_of(int port) {
    return (uint16_t)(port ? 2 + 2 * port : 0);
}

static void take_control(void) {
    uint32_t length;
    for (int entry; (entry = virtio_take(&console.control_receive, &length)) >= 0;) {
        if (entry >= BUFFERS)
            continue;
        struct message message = console.incoming[entry];
        virtio_give(&console.control_receive, (uint16_t)entry, &console.incoming[entry], sizeof console.incoming[entry], VIRTIO_DEVICE_WRITES);
        virtio_notify(console.device, &console.control_receive);
        if (length < sizeof message || message.id >= PORTS || message.event != DEVICE_ADD)
            continue;
        tell(message.id, PORT_READY, 1);
        tell(message.id, PORT_OPEN, 1);
    }
}

bool virtio_console_start(struct virtio *device) {
    console.device = device;
    if (!virtio_begin(device, 1u << FEATURE_MULTIPORT))
        return false;
    console.multiport = device->features & 1u << FEATURE_MULTIPORT;
    for (int port = 0; port < (console.multiport ? PORTS : 1); port++) {
        console.entry[port] = -1;
        if (!virtio_queue_start(device, &console.receive[port], queue_of(port), BUFFERS))
            return false;
    }
    if (console.multiport && (!virtio_queue_start(device, &console.control_receive, CONTROL_RECEIVE, BUFFERS) ||
                              !virtio_queue_start(device, &console.control_transmit, CONTROL_TRANSMIT, BUFFERS)))
        return false;
    virtio_ready(device);
    for (int port = 0; port < (console.multiport ? PORTS : 1); port++) {
        for (uint16_t i = 0; i < BUFFERS; i++)
            virtio_give(&console.receive[port], i, console.bytes[port][i], BUFFER_BYTES, VIRTIO_DEVICE_WRITES);
        virtio_notify(device, &console.receive[port]);
    }
    if (!console.multiport)
        return true;
    for (uint16_t i = 0; i < BUFFERS; i++)
        virtio_give(&console.control_receive, i, &console.incoming[i], sizeof console.incoming[i], VIRTIO_DEVICE_WRITES);
    virtio_notify(device, &console.control_receive);
    tell(0, DEVICE_READY, 1);
    return true;
}

static size_t read_port(int port, char *bytes, size_t size) {
    size_t done = 0;
    while (done < size) {
        if (console.entry[port] < 0) {
            console.entry[port] = virtio_take(&console.receive[port], &console.length[port]);
            console.at[port] = 0;
            if (console.entry[port] < 0 || console.entry[port] >= BUFFERS)
                break;
        }
        int entry = console.entry[port];
        size_t left = console.length[port] - console.at[port], n = left < size - done ? left : size - done;
        memcpy(bytes + done, console.bytes[port][entry] + console.at[port], n);
        done += n;
        console.at[port] += (uint32_t)n;
        if (console.at[port] < console.length[port])
            continue;
        virtio_give(&console.receive[port], (uint16_t)entry, console.bytes[port][entry], BUFFER_BYTES, VIRTIO_DEVICE_WRITES);
        virtio_notify(console.device, &console.receive[port]);
        console.entry[port] = -1;
    }
    return done;
}

size_t virtio_console_read(char *bytes, size_t size) {
    size_t done = 0;
    if (console.multiport)
        take_control();
    for (int port = 0; port < (console.multiport ? PORTS : 1); port++)
        done += read_port(port, bytes + done, size - done);
    return done;
}
