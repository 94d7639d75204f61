/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * net.h over lwIP: for virtual machines, and for the fuzzer, which is the same code as a host program.
 *
 * lwIP's raw interface calls back from inside its own loops, where a connection may not be torn down; so a stream that ends in a
 * callback is only marked there and ended on the way out. Every object is from a fixed pool.
 */
#include "../os/bare.h"
#include "../os/loop.h"
#include "card.h"
#include "net.h"

#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/prot/tcp.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"
#include "netif/ethernet.h"

#include "hooks.h"

enum { STREAMS = 80, LISTENERS = MEMP_NUM_TCP_PCB_LISTEN, SOCKETS = MEMP_NUM_UDP_PCB, FRAMES_AT_ONCE = 64, MILLISECOND = 1000000 };

/* What makes room when every connection is taken: those that only wait for a peer's last word (it may be dead, and lwIP asks for minutes),
 * then those whose peer has not shown that it is there. */
enum { PRIORITY_CLOSED = TCP_PRIO_MIN, PRIORITY_HALF_OPEN = TCP_PRIO_MIN + 1 };

struct listener {
    struct tcp_pcb *pcb;
    const struct net_stream_events *events;
    void *(*accept)(struct net_stream *stream);
};

struct net_stream {
    struct tcp_pcb *pcb; /* NULL: gone, or this entry is free */
    const struct net_stream_events *events;
    void *owner;
    bool used, connecting, closed;
};

struct net_socket {
    struct udp_pcb *pcb;
    net_datagram_event *received;
    void *owner;
};

const bool net_is_own = true;
static struct netif interface;
static struct net_stream streams[STREAMS];
static struct listener listeners[LISTENERS];
static struct net_socket sockets[SOCKETS];
static bool started;
static int closings; /* streams that the program has closed and nobody has settled yet */

_Noreturn void lwip_broken(const char *assertion) {
    bare_fail(assertion);
}

u32_t sys_now(void) {
    return (u32_t)(os_now() / MILLISECOND);
}

err_t lwip_check_segment(const struct tcp_pcb *pcb, const struct tcp_hdr *header) {
    bool has_next = pcb->state != CLOSED && pcb->state != LISTEN && pcb->state != SYN_SENT;
    return has_next && header->seqno - pcb->rcv_nxt == 0x80000000u ? ERR_VAL : ERR_OK;
}

static err_t send_frame(struct netif *netif, struct pbuf *p) {
    static uint8_t frame[FRAME_MOST];
    struct card *card = netif->state;
    u16_t length = pbuf_copy_partial(p, frame, sizeof frame, 0);
    if (length != p->tot_len)
        return ERR_BUF;
    return card->send(card, frame, length) ? ERR_OK : ERR_MEM;
}

static err_t interface_start(struct netif *netif) {
    struct card *card = netif->state;
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->mtu = card->mtu;
    netif->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(netif->hwaddr, card->address, ETH_HWADDR_LEN);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = etharp_output;
    netif->linkoutput = send_frame;
    return ERR_OK;
}

static void take_frame(const uint8_t *frame, size_t length) {
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_POOL);
    if (!p)
        return;
    pbuf_take(p, frame, (u16_t)length);
    if (interface.input(p, &interface) != ERR_OK)
        pbuf_free(p);
}

static void forget(struct net_stream *stream) {
    struct tcp_pcb *pcb = stream->pcb;
    if (pcb) {
        tcp_arg(pcb, NULL);
        tcp_recv(pcb, NULL);
        tcp_sent(pcb, NULL);
        tcp_err(pcb, NULL);
    }
    *stream = (struct net_stream){0};
}

/* After a callback: end the stream if the program wants it gone. ERR_ABRT tells lwIP that the connection is no more. */
static err_t settle(struct net_stream *stream) {
    if (!stream->closed)
        return ERR_OK;
    struct tcp_pcb *pcb = stream->pcb;
    closings--;
    forget(stream);
    tcp_setprio(pcb, PRIORITY_CLOSED);
    if (tcp_close(pcb) == ERR_OK)
        return ERR_OK;
    tcp_abort(pcb);
    return ERR_ABRT;
}

static uint64_t look_after(void) {
    static uint8_t frame[FRAME_MOST];
    struct card *card = interface.state;
    size_t length = 0;
    int count = 0;
    for (; count < FRAMES_AT_ONCE && (length = card->receive(card, frame)); count++)
        take_frame(frame, length);
    sys_check_timeouts();
    for (struct net_stream *stream = streams; closings && stream < streams + STREAMS; stream++)
        settle(stream);
    if (length)
        return 0;
    u32_t sleep = sys_timeouts_sleeptime();
    return sleep == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? UINT64_MAX : (os_now() / MILLISECOND + sleep) * MILLISECOND;
}

enum net_result net_start(char **env) {
    const struct net_settings *s = &net_settings;
    enum net_result result = net_settings_read(env);
    if (result != NET_OK || started)
        return result;
    if (!s->address)
        return NET_ABSENT;
    struct card *card = card_find();
    if (!card)
        return NET_ABSENT;
    ip4_addr_t address = {lwip_htonl(s->address)}, netmask = {lwip_htonl(s->netmask)}, gateway = {lwip_htonl(s->gateway)};
    lwip_init();
    if (!netif_add(&interface, &address, &netmask, &gateway, card, interface_start, ethernet_input))
        return NET_FULL;
    netif_set_default(&interface);
    netif_set_link_up(&interface);
    netif_set_up(&interface); /* tells the neighbours by a gratuitous ARP */
    started = true;
    loop_attend(look_after);
    return NET_OK;
}

static enum net_result result_of(err_t error, bool connecting) {
    switch (error) {
    case ERR_OK:
        return NET_OK;
    case ERR_RST:
        return connecting ? NET_REFUSED : NET_RESET;
    case ERR_ABRT:
        return NET_TIMEOUT;
    case ERR_RTE:
        return NET_UNREACHABLE;
    case ERR_MEM:
    case ERR_BUF:
        return NET_FULL;
    case ERR_USE:
        return NET_PORT_TAKEN;
    default:
        return NET_RESET;
    }
}

static err_t on_received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error) {
    struct net_stream *stream = arg;
    (void)error;
    if (!p) {
        if (!stream->closed)
            stream->events->received(stream->owner, NULL, 0);
        return settle(stream);
    }
    tcp_recved(pcb, p->tot_len);
    for (struct pbuf *q = p; q && !stream->closed; q = q->next)
        if (q->len)
            stream->events->received(stream->owner, q->payload, q->len);
    pbuf_free(p);
    return settle(stream);
}

static void on_error(void *arg, err_t error) {
    struct net_stream *stream = arg;
    if (!stream)
        return;
    const struct net_stream_events *events = stream->events;
    void *owner = stream->owner;
    bool connecting = stream->connecting, closed = stream->closed;
    stream->pcb = NULL;
    forget(stream);
    if (closed)
        closings--;
    else
        events->ended(owner, result_of(error, connecting));
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t error) {
    struct net_stream *stream = arg;
    (void)pcb, (void)error;
    stream->connecting = false;
    if (!stream->closed)
        stream->events->opened(stream->owner);
    return settle(stream);
}

static struct net_stream *take_stream(struct tcp_pcb *pcb, const struct net_stream_events *events) {
    for (struct net_stream *stream = streams; stream < streams + STREAMS; stream++) {
        if (stream->used)
            continue;
        *stream = (struct net_stream){.pcb = pcb, .events = events, .used = true};
        tcp_arg(pcb, stream);
        tcp_recv(pcb, on_received);
        tcp_err(pcb, on_error);
        tcp_nagle_disable(pcb);
        return stream;
    }
    return NULL;
}

static err_t on_accepted(void *arg, struct tcp_pcb *pcb, err_t error) {
    struct listener *listener = arg;
    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    struct net_stream *stream = take_stream(pcb, listener->events);
    if (stream) {
        tcp_setprio(pcb, TCP_PRIO_NORMAL);
        stream->owner = listener->accept(stream);
        if (stream->owner)
            return settle(stream);
        forget(stream);
    }
    tcp_abort(pcb);
    return ERR_ABRT;
}

enum net_result net_listen(uint16_t port, const struct net_stream_events *events, void *(*accept)(struct net_stream *stream)) {
    struct listener *listener = listeners;
    if (!started)
        return NET_ABSENT;
    while (listener < listeners + LISTENERS && listener->pcb)
        listener++;
    struct tcp_pcb *pcb = listener < listeners + LISTENERS ? tcp_new() : NULL;
    if (!pcb)
        return NET_FULL;
    err_t error = tcp_bind(pcb, IP_ADDR_ANY, port);
    struct tcp_pcb *listening = error == ERR_OK ? tcp_listen_with_backlog_and_err(pcb, TCP_DEFAULT_LISTEN_BACKLOG, &error) : NULL;
    if (!listening) {
        tcp_close(pcb);
        return result_of(error, false);
    }
    tcp_setprio((struct tcp_pcb *)listening, PRIORITY_HALF_OPEN);
    *listener = (struct listener){listening, events, accept};
    tcp_arg(listening, listener);
    tcp_accept(listening, on_accepted);
    return NET_OK;
}

struct net_stream *net_connect(uint32_t address, uint16_t port, const struct net_stream_events *events, void *owner) {
    struct tcp_pcb *pcb = started ? tcp_new() : NULL;
    ip_addr_t to = IPADDR4_INIT(lwip_htonl(address));
    if (!pcb)
        return NULL;
    struct net_stream *stream = take_stream(pcb, events);
    if (stream) {
        stream->owner = owner;
        stream->connecting = true;
        if (tcp_connect(pcb, &to, port, on_connected) == ERR_OK)
            return stream;
        forget(stream);
    }
    tcp_abort(pcb);
    return NULL;
}

bool net_send(struct net_stream *stream, const void *bytes, size_t length) {
    if (stream->closed || length > tcp_sndbuf(stream->pcb))
        return false;
    if (tcp_write(stream->pcb, bytes, (u16_t)length, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return false;
    tcp_output(stream->pcb);
    return true;
}

/* Inside a callback of this stream's its end settles it; elsewhere the next look after all does. */
void net_close(struct net_stream *stream) {
    if (stream->closed)
        return;
    stream->closed = true;
    closings++;
}

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port) {
    static char bytes[ETHERNET_MTU];
    struct net_socket *socket = arg;
    (void)pcb;
    u16_t length = pbuf_copy_partial(p, bytes, sizeof bytes, 0);
    pbuf_free(p);
    socket->received(socket->owner, lwip_ntohl(ip_addr_get_ip4_u32(from)), port, bytes, length);
}

struct net_socket *net_open(net_datagram_event *received, void *owner) {
    for (struct net_socket *socket = sockets; started && socket < sockets + SOCKETS; socket++) {
        if (socket->pcb)
            continue;
        struct udp_pcb *pcb = udp_new();
        if (!pcb)
            return NULL;
        /* A port that cannot be guessed: lwIP's own choice only counts up. */
        for (int tries = 0; udp_bind(pcb, IP_ADDR_ANY, (u16_t)(32768 + os_random() % 28232)) != ERR_OK; tries++)
            if (tries == 8) {
                udp_remove(pcb);
                return NULL;
            }
        *socket = (struct net_socket){pcb, received, owner};
        udp_recv(pcb, on_datagram, socket);
        return socket;
    }
    return NULL;
}

bool net_send_to(struct net_socket *socket, uint32_t to, uint16_t port, const void *bytes, size_t length) {
    ip_addr_t address = IPADDR4_INIT(lwip_htonl(to));
    struct pbuf *p = length <= ETHERNET_MTU ? pbuf_alloc(PBUF_TRANSPORT, (u16_t)length, PBUF_RAM) : NULL;
    if (!p)
        return false;
    pbuf_take(p, bytes, (u16_t)length);
    err_t error = udp_sendto(socket->pcb, p, &address, port);
    pbuf_free(p);
    return error == ERR_OK;
}

void net_shut(struct net_socket *socket) {
    udp_remove(socket->pcb);
    *socket = (struct net_socket){0};
}
