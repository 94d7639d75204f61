# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notices that somebody changed links, IPv4 routes or nftables rules of this host, so that who keeps some there looks at once.

What the kernel tells is not read: who is told looks for himself, which also finds what was missed. Where it does not tell (qemu-user, no
CAP_NET_ADMIN), those who keep things find out at their next regular look. rtnetlink(7); nftables: linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

_LOG = logging.getLogger(__name__)
_NETLINK_NETFILTER = 12
_LINK, _IPV4_ROUTE, _NFTABLES = (1 << (group - 1) for group in (1, 7, 7))
_SOURCES = ((socket.NETLINK_ROUTE, _LINK | _IPV4_ROUTE), (_NETLINK_NETFILTER, _NFTABLES))
_SETTLE_SECONDS, _PAUSE_SECONDS = 0.3, 2.0
"""Changes come in groups; and where pods come and go all the time, looking shall not become the host's main work."""


class NetworkEvents:
    """Of the network namespace that the program is in."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> None:
        """changed() is called after changes, its own included, at most every two seconds."""
        self._subscribers.append(changed)

    async def run(self) -> None:
        """Tell the subscribers until cancelled."""
        loop, happened = asyncio.get_running_loop(), asyncio.Event()
        with contextlib.ExitStack() as stack:
            for protocol, groups in _SOURCES:
                try:
                    source = stack.enter_context(_listen(protocol, groups))
                except OSError as error:
                    _LOG.info("the kernel does not tell of changes of the network (%s): they are found by looking now and then", error)
                    continue
                loop.add_reader(source, _drain, source, happened)
                stack.callback(loop.remove_reader, source)
            while True:
                await happened.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
                happened.clear()
                for changed in self._subscribers:
                    changed()
                await asyncio.sleep(_PAUSE_SECONDS)


def _listen(protocol: int, groups: int) -> socket.socket:
    source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        source.bind((0, groups))
    except OSError:
        source.close()
        raise
    return source


def _drain(source: socket.socket, happened: asyncio.Event) -> None:
    happened.set()
    try:
        while True:
            source.recv(65536)
    except OSError:  # nothing more, or more than the buffer holds: either way there is something to look at
        pass
