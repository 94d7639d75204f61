# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent that is asked what it does names the line that each task waits at."""

from __future__ import annotations

import asyncio

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.stacks import stacks


async def innermost(event: asyncio.Event) -> None:
    await event.wait()


async def outermost(event: asyncio.Event) -> None:
    await innermost(event)


async def test_a_waiting_task_is_shown_with_every_await_down_to_the_one_it_hangs_at() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(outermost(event), name="hanging")
    await asyncio.sleep(0)
    shown = next(line for line in stacks().splitlines() if line.startswith("task hanging:"))
    assert [word for word in ("outermost", "innermost", "wait") if word in shown] == ["outermost", "innermost", "wait"]
    event.set()
    await task
