# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who keeps routes or rules is told of changes: soon, once for many, and not all the time. That the kernel tells is the router's test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.machines import network_events
from ansible_collections.unifleet.hybrid.plugins.host.machines.network_events import NetworkEvents


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], int]]:
    """Says something to whoever listens for routes; there are no nftables here."""
    mouth, ear = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.setblocking(False)

    def listen(protocol: int, _groups: int) -> socket.socket:
        if protocol != socket.NETLINK_ROUTE:
            raise OSError("Protocol not supported")
        return ear

    monkeypatch.setattr(network_events, "_listen", listen)
    monkeypatch.setattr(network_events, "_SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(network_events, "_PAUSE_SECONDS", 0.2)
    with mouth, ear:
        yield mouth.send


async def told(script: Callable[[], Any]) -> int:
    """How often a subscriber was told while the script ran."""
    count = 0

    def changed() -> None:
        nonlocal count
        count += 1

    events = NetworkEvents()
    events.subscribe(changed)
    running = asyncio.create_task(events.run())
    await script()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return count


async def test_many_changes_at_once_are_told_once(kernel: Callable[[bytes], int]) -> None:
    async def script() -> None:
        await asyncio.sleep(0.02)
        for _change in range(5):
            kernel(b"x")
        await asyncio.sleep(0.12)

    assert await told(script) == 1


async def test_a_change_after_the_last_look_is_told_and_never_more_often_than_allowed(kernel: Callable[[bytes], int]) -> None:
    async def script() -> None:
        for _change in range(50):
            kernel(b"x")
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.25)

    assert 2 <= await told(script) <= 4


async def test_a_quiet_network_is_told_of_never(kernel: Callable[[bytes], int]) -> None:
    async def script() -> None:
        await asyncio.sleep(0.1)

    assert await told(script) == 0
