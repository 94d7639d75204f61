/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * net.h over Linux' sockets, for processes: they use their host's network, or whatever network namespace they were put into.
 *
 * Everything is non-blocking and called back from platform_wait. A stream that the program has closed stays until what waits has left
 * and the peer has ended its half too, or two seconds have gone by: closing earlier may reset the connection and lose the answer.
 */
#include "../../net/net.h"
#include "linux.h"

enum { STREAMS = 80, LISTENERS = 4, SOCKETS = 4, OUTGOING = 12 * 1024, INCOMING = 4096, RESOLVER_FILE = 4096 };
enum { AF_INET = 2, SOCK_STREAM = 1, SOCK_DGRAM = 2, SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4, IPPROTO_TCP = 6, TCP_NODELAY = 1,
       MSG_NOSIGNAL = 0x4000, MSG_DONTWAIT = 0x40, BACKLOG = 64, SHUT_WRITE = 1 };
enum { EPIPE = 32, ENETUNREACH = 101, ECONNRESET = 104, ETIMEDOUT = 110, ECONNREFUSED = 111, EHOSTUNREACH = 113, EINPROGRESS = 115 };
static const uint64_t linger = 2000000000u;

struct address {
    uint16_t family;
    uint8_t port[2], address[4], zero[8];
};

struct net_stream {
    const struct net_stream_events *events; /* NULL: this entry is free */
    void *owner;
    int descriptor, place;
    bool connecting, closed, peer_done, shut;
    enum net_result refusal;
    struct os_timer timer;
    size_t waiting; /* bytes in outgoing */
    char outgoing[OUTGOING];
};

struct listener {
    const struct net_stream_events *events;
    void *(*accept)(struct net_stream *stream);
    int descriptor;
};

struct net_socket {
    net_datagram_event *received;
    void *owner;
    int descriptor, place;
};

const bool net_is_own = false;
static struct net_stream streams[STREAMS];
static struct listener listeners[LISTENERS];
static struct net_socket sockets[SOCKETS];

static struct address address_of(uint32_t address, uint16_t port) {
    return (struct address){AF_INET,
                            {(uint8_t)(port >> 8), (uint8_t)port},
                            {(uint8_t)(address >> 24), (uint8_t)(address >> 16), (uint8_t)(address >> 8), (uint8_t)address},
                            {0}};
}

static enum net_result result_of(long error) {
    switch (-error) {
    case ECONNREFUSED:
        return NET_REFUSED;
    case ENETUNREACH:
    case EHOSTUNREACH:
        return NET_UNREACHABLE;
    case ETIMEDOUT:
        return NET_TIMEOUT;
    default:
        return NET_RESET;
    }
}

static int open_socket(int kind) {
    return (int)linux_call(SYS_socket, AF_INET, kind | O_NONBLOCK | O_CLOEXEC, 0, 0, 0, 0);
}

static void close_descriptor(int descriptor) {
    linux_call(SYS_close, descriptor, 0, 0, 0, 0, 0);
}

/* The name servers and search domains of resolv.conf(5), as far as the settings have none. */
static void read_resolver_file(void) {
    static char text[RESOLVER_FILE];
    struct net_settings *s = &net_settings;
    bool want_servers = !s->nameserver_count, want_search = !*s->search;
    long length = os_read_file("/etc/resolv.conf", text, sizeof text - 1);
    text[length > 0 ? length : 0] = 0;
    for (char *line = text; *line;) {
        char *end = line;
        while (*end && *end != '\n')
            end++;
        char *next = *end ? end + 1 : end;
        *end = 0;
        if (want_servers && s->nameserver_count < 3 && text_starts(line, "nameserver ")) {
            size_t n = text_length(line + 11);
            while (n && (line[10 + n] == ' ' || line[10 + n] == '\r'))
                n--;
            if (net_address_parse(line + 11, n, &s->nameservers[s->nameserver_count]))
                s->nameserver_count++;
        } else if (want_search && text_starts(line, "search ") && text_length(line + 7) < sizeof s->search) {
            memcpy(s->search, line + 7, text_length(line + 7) + 1);
        }
        line = next;
    }
}

enum net_result net_start(char **env) {
    enum net_result result = net_settings_read(env);
    if (result == NET_OK)
        read_resolver_file();
    return result;
}

static void forget(struct net_stream *stream) {
    os_timer_clear(&stream->timer);
    linux_unwatch(stream->place);
    close_descriptor(stream->descriptor);
    stream->events = NULL;
}

static void fail(struct net_stream *stream, enum net_result why) {
    const struct net_stream_events *events = stream->events;
    void *owner = stream->owner;
    bool closed = stream->closed;
    forget(stream);
    if (!closed)
        events->ended(owner, why);
}

static void watch_again(struct net_stream *stream) {
    linux_watch_for(stream->place, (short)((stream->peer_done ? 0 : POLLIN) | (stream->waiting || stream->connecting ? POLLOUT : 0)));
}

/* Send what waits; false when the stream broke (and is gone). */
static bool flush(struct net_stream *stream) {
    size_t sent = 0;
    while (sent < stream->waiting) {
        long n = linux_call(SYS_sendto, stream->descriptor, (long)(stream->outgoing + sent), (long)(stream->waiting - sent), MSG_NOSIGNAL, 0, 0);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            fail(stream, result_of(n));
            return false;
        }
        sent += (size_t)n;
    }
    memmove(stream->outgoing, stream->outgoing + sent, stream->waiting - sent);
    stream->waiting -= sent;
    return true;
}

static void leave(void *owner) {
    forget(owner);
}

/* A closed stream: shut our half once everything has left, go once the peer has shut its own. */
static void settle(struct net_stream *stream) {
    if (!stream->closed)
        return;
    if (!stream->waiting && !stream->shut) {
        stream->shut = true;
        linux_call(SYS_shutdown, stream->descriptor, SHUT_WRITE, 0, 0, 0, 0);
    }
    if (stream->shut && stream->peer_done)
        forget(stream);
}

static void receive(struct net_stream *stream) {
    static char bytes[INCOMING];
    long n = linux_call(SYS_recvfrom, stream->descriptor, (long)bytes, sizeof bytes, MSG_DONTWAIT, 0, 0);
    if (n == -EAGAIN || n == -EINTR)
        return;
    if (n < 0) {
        fail(stream, result_of(n));
        return;
    }
    if (!n)
        stream->peer_done = true;
    if (!stream->closed)
        stream->events->received(stream->owner, bytes, (size_t)n);
}

static void ready(void *owner, short found) {
    struct net_stream *stream = owner;
    if (stream->refusal)
        return; /* an unconnected socket counts as hung up */
    if (stream->connecting) {
        int error = 0, size = sizeof error;
        linux_call(SYS_getsockopt, stream->descriptor, SOL_SOCKET, SO_ERROR, (long)&error, (long)&size, 0);
        if (error) {
            fail(stream, result_of(-error));
            return;
        }
        stream->connecting = false;
        if (!stream->closed)
            stream->events->opened(stream->owner);
    }
    if (stream->waiting && !flush(stream))
        return;
    if (found & (POLLIN | POLLERR | POLLHUP) && (!stream->peer_done || found & POLLERR))
        receive(stream);
    if (!stream->events)
        return;
    settle(stream);
    if (stream->events)
        watch_again(stream);
}

static struct net_stream *take_stream(int descriptor, short events_wanted, const struct net_stream_events *events) {
    for (struct net_stream *stream = streams; stream < streams + STREAMS; stream++) {
        if (stream->events)
            continue;
        int place = linux_watch(descriptor, events_wanted, ready, stream), one = 1;
        if (place < 0)
            return NULL;
        linux_call(SYS_setsockopt, descriptor, IPPROTO_TCP, TCP_NODELAY, (long)&one, sizeof one, 0);
        stream->events = events;
        stream->owner = NULL;
        stream->descriptor = descriptor;
        stream->place = place;
        stream->connecting = stream->closed = stream->peer_done = stream->shut = false;
        stream->refusal = NET_OK;
        stream->timer = (struct os_timer){.run = leave, .owner = stream};
        stream->waiting = 0;
        return stream;
    }
    return NULL;
}

static void accept_one(void *owner, short found) {
    struct listener *listener = owner;
    (void)found;
    int descriptor = (int)linux_call(SYS_accept4, listener->descriptor, 0, 0, O_NONBLOCK | O_CLOEXEC, 0, 0);
    if (descriptor < 0)
        return;
    struct net_stream *stream = take_stream(descriptor, POLLIN, listener->events);
    if (!stream) {
        close_descriptor(descriptor);
        return;
    }
    stream->owner = listener->accept(stream);
    if (!stream->owner)
        forget(stream);
}

enum net_result net_listen(uint16_t port, const struct net_stream_events *events, void *(*accept)(struct net_stream *stream)) {
    struct listener *listener = listeners;
    struct address address = address_of(0, port);
    int one = 1;
    while (listener < listeners + LISTENERS && listener->events)
        listener++;
    if (listener == listeners + LISTENERS)
        return NET_FULL;
    int descriptor = open_socket(SOCK_STREAM);
    if (descriptor < 0)
        return NET_ABSENT;
    linux_call(SYS_setsockopt, descriptor, SOL_SOCKET, SO_REUSEADDR, (long)&one, sizeof one, 0);
    if (linux_call(SYS_bind, descriptor, (long)&address, sizeof address, 0, 0, 0) < 0 || linux_call(SYS_listen, descriptor, BACKLOG, 0, 0, 0, 0) < 0) {
        close_descriptor(descriptor);
        return NET_PORT_TAKEN;
    }
    *listener = (struct listener){events, accept, descriptor};
    if (linux_watch(descriptor, POLLIN, accept_one, listener) < 0) {
        close_descriptor(descriptor);
        listener->events = NULL;
        return NET_FULL;
    }
    return NET_OK;
}

/* connect() may fail at once, but ended() comes from the loop: an owner is not called back before it has the stream. */
static void refuse_now(void *owner) {
    struct net_stream *stream = owner;
    fail(stream, stream->refusal);
}

struct net_stream *net_connect(uint32_t address, uint16_t port, const struct net_stream_events *events, void *owner) {
    struct address to = address_of(address, port);
    int descriptor = open_socket(SOCK_STREAM);
    if (descriptor < 0)
        return NULL;
    struct net_stream *stream = take_stream(descriptor, 0, events);
    if (!stream) {
        close_descriptor(descriptor);
        return NULL;
    }
    stream->owner = owner;
    long error = linux_call(SYS_connect, descriptor, (long)&to, sizeof to, 0, 0, 0);
    if (error < 0 && error != -EINPROGRESS) {
        stream->refusal = result_of(error);
        stream->timer.run = refuse_now;
        os_timer_set(&stream->timer, os_now());
        return stream;
    }
    stream->connecting = true;
    linux_watch_for(stream->place, POLLOUT);
    return stream;
}

bool net_send(struct net_stream *stream, const void *bytes, size_t length) {
    if (stream->closed || length > OUTGOING - stream->waiting)
        return false;
    memcpy(stream->outgoing + stream->waiting, bytes, length);
    stream->waiting += length;
    linux_watch_for(stream->place, POLLIN | POLLOUT); /* the loop sends it: nothing may fail in here */
    return true;
}

void net_close(struct net_stream *stream) {
    if (stream->closed)
        return;
    stream->closed = true;
    if (stream->connecting)
        linux_call(SYS_shutdown, stream->descriptor, 2, 0, 0, 0, 0);
    os_timer_clear(&stream->timer);
    stream->timer.run = leave;
    stream->timer.owner = stream;
    os_timer_set(&stream->timer, os_now() + (stream->connecting ? 0 : linger));
    linux_watch_for(stream->place, POLLIN | POLLOUT);
}

static void datagram(void *owner, short found) {
    static char bytes[INCOMING];
    struct net_socket *socket = owner;
    struct address from = {0};
    int size = sizeof from;
    (void)found;
    long n = linux_call(SYS_recvfrom, socket->descriptor, (long)bytes, sizeof bytes, MSG_DONTWAIT, (long)&from, (long)&size);
    if (n < 0)
        return;
    const uint8_t *a = from.address;
    socket->received(socket->owner, (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3],
                     (uint16_t)(from.port[0] << 8 | from.port[1]), bytes, (size_t)n);
}

struct net_socket *net_open(net_datagram_event *received, void *owner) {
    for (struct net_socket *socket = sockets; socket < sockets + SOCKETS; socket++) {
        if (socket->received)
            continue;
        int descriptor = open_socket(SOCK_DGRAM);
        int place = descriptor < 0 ? -1 : linux_watch(descriptor, POLLIN, datagram, socket);
        if (place < 0) {
            if (descriptor >= 0)
                close_descriptor(descriptor);
            return NULL;
        }
        *socket = (struct net_socket){received, owner, descriptor, place};
        return socket;
    }
    return NULL;
}

bool net_send_to(struct net_socket *socket, uint32_t to, uint16_t port, const void *bytes, size_t length) {
    struct address address = address_of(to, port);
    return linux_call(SYS_sendto, socket->descriptor, (long)bytes, (long)length, MSG_NOSIGNAL, (long)&address, sizeof address) == (long)length;
}

void net_shut(struct net_socket *socket) {
    linux_unwatch(socket->place);
    close_descriptor(socket->descriptor);
    *socket = (struct net_socket){0};
}
