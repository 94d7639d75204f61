/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The network as a program sees it: streams (TCP), datagrams (UDP) and names, all by callback from os_sleep_until.
 *
 * Implemented over lwIP in virtual machines (net/lwip.c) and over Linux' sockets in processes (os/linux/sockets.c); names.c is shared.
 * Addresses are IPv4 in host byte order. Whatever a peer sends is handed over as it is: do not trust it.
 */
#ifndef UNIFLEET_NET_H
#define UNIFLEET_NET_H

#include "../os/os.h"

enum net_result {
    NET_OK,
    NET_ABSENT,      /* there is no network card, or the platform gave no address */
    NET_SETTINGS,    /* the platform's address, gateway or name servers cannot be understood */
    NET_FULL,        /* no room for one more */
    NET_PORT_TAKEN,  /* somebody listens on that port already, or it may not be listened on */
    NET_REFUSED,     /* the peer refuses connections on that port */
    NET_UNREACHABLE, /* no way there */
    NET_TIMEOUT,     /* no answer */
    NET_RESET,       /* the peer broke the connection */
    NET_NO_NAME,     /* the name does not exist */
    NET_NO_RESOLVER, /* no name server, or it could not say */
};
/* One phrase about it, such as "connection refused". */
const char *net_result_text(enum net_result result);

/* What the platform has said about the network. nameservers: count of them, then each. */
struct net_settings {
    uint32_t address, netmask, gateway;
    int nameserver_count;
    uint32_t nameservers[3];
    char search[256]; /* domains that are tried after a name, with spaces between */
};
extern struct net_settings net_settings;

/* Read UNIFLEET_ADDRESS (a.b.c.d/nn), UNIFLEET_GATEWAY, UNIFLEET_NAMESERVERS and UNIFLEET_SEARCH (with commas between) into net_settings. */
enum net_result net_settings_read(char **env);

/* Begin. Processes have their host's network and take only UNIFLEET_NAMESERVERS and UNIFLEET_SEARCH, else /etc/resolv.conf. */
enum net_result net_start(char **env);

/* Whether this network is the program's own (a virtual machine), so that every port is free. */
extern const bool net_is_own;

struct net_stream;
struct net_stream_events {
    void (*opened)(void *owner);                                      /* the connection is there (not for accepted ones) */
    void (*received)(void *owner, const char *bytes, size_t length); /* length 0: the peer sends nothing more */
    void (*ended)(void *owner, enum net_result why);                  /* failed; the stream is gone. Not after net_close */
};

/* Accept connections on port. accept returns the owner of the new stream, or NULL to refuse it. */
enum net_result net_listen(uint16_t port, const struct net_stream_events *events, void *(*accept)(struct net_stream *stream));
/* Begin to connect; opened or ended follows. NULL when there is no room. */
struct net_stream *net_connect(uint32_t address, uint16_t port, const struct net_stream_events *events, void *owner);
/* Send all of it, or return false when it does not fit into what is buffered (8 KiB always fit when nothing waits). */
bool net_send(struct net_stream *stream, const void *bytes, size_t length);
/* End the stream once what was sent has left; no event follows. */
void net_close(struct net_stream *stream);

struct net_socket;
typedef void net_datagram_event(void *owner, uint32_t from, uint16_t port, const char *bytes, size_t length);
struct net_socket *net_open(net_datagram_event *received, void *owner);
bool net_send_to(struct net_socket *socket, uint32_t to, uint16_t port, const void *bytes, size_t length);
void net_shut(struct net_socket *socket);

/* names.c: find the address of a host name or of a dotted quad. The query is the caller's memory until done is called or it is given up. */
struct net_query {
    void (*done)(void *owner, enum net_result result, uint32_t address);
    void *owner;
    struct net_socket *socket;
    struct os_timer timer;
    uint16_t id;
    int tries, candidate;
    enum net_result failure;
    uint8_t question[272];
    size_t question_length;
    char name[256];
};
void net_resolve(struct net_query *query, const char *name);
void net_give_up(struct net_query *query);

/* "a.b.c.d", exactly; and the other way. */
bool net_address_parse(const char *text, size_t length, uint32_t *out);
void line_address(struct line *line, uint32_t address);

#endif
