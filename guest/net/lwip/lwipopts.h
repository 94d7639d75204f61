/* Copyright (c) 2026, Unifleet developers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * lwIP's settings: IPv4, ICMP, UDP and TCP from static memory, called from one loop, with its assertions on.
 *
 * The sizes let 64 connections be served at once from about 300 KiB in all; see lwIP's src/include/lwip/opt.h for each.
 */
#ifndef UNIFLEET_LWIPOPTS_H
#define UNIFLEET_LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 1
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0

#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define LWIP_ICMP 1
#define LWIP_UDP 1
#define LWIP_TCP 1
#define LWIP_RAW 0
#define LWIP_DNS 0
#define LWIP_DHCP 0
#define LWIP_AUTOIP 0
#define LWIP_IGMP 0
#define LWIP_STATS 0
#define IP_FORWARD 0

#define MEM_ALIGNMENT 8
#define MEM_SIZE (128 * 1024)
#define MEMP_NUM_PBUF 64
#define PBUF_POOL_SIZE 64
#define PBUF_POOL_BUFSIZE 1536
#define MEMP_NUM_TCP_PCB 96
#define MEMP_NUM_TCP_PCB_LISTEN 4
#define MEMP_NUM_TCP_SEG 256
#define MEMP_NUM_UDP_PCB 4
#define MEMP_NUM_REASSDATA 4
#define MEMP_NUM_FRAG_PBUF 16
#define IP_REASS_MAX_PBUFS 16
#define IP_REASS_MAXAGE 5

#define TCP_MSS 1460
#define TCP_WND (8 * TCP_MSS)
#define TCP_SND_BUF (8 * TCP_MSS)
#define TCP_SND_QUEUELEN 32
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 64
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_PBUFS 8
#define LWIP_HOOK_TCP_ISN(local, local_port, remote, remote_port) ((uint32_t)os_random())

/* A segment half the sequence space away from the one that is awaited counts as before and after it at once (RFC 1982, 3.2): tcp_receive
 * of lwIP 2.1.3 takes it for overlapping and trips over "insane offset!". */
#define LWIP_HOOK_FILENAME "hooks.h"
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, options, options_first, options_rest, p) lwip_check_segment(pcb, header)

#define ARP_TABLE_SIZE 32
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 4
#define LWIP_NETIF_TX_SINGLE_PBUF 0
#define LWIP_SINGLE_NETIF 1

#endif
