# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a long-running program ends: SIGTERM or SIGINT cancels its work, and that is a good end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable

LOG = logging.getLogger("unifleet.daemon")


async def until_signal(work: Awaitable[None], parting: str) -> None:
    """Run work until it ends or SIGTERM or SIGINT comes; parting is what to say then."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        LOG.info("ending; %s", parting)
