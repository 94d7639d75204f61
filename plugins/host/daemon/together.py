# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several tasks that live and end together: asyncio.TaskGroup is newer than the Python of the hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence


async def run_together(works: Sequence[Awaitable[None]]) -> None:
    """Run all until one fails or we are cancelled; then none is left."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
