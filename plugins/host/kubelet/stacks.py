# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent is doing right now, for whoever sends it SIGUSR1: each task with the line it waits at, and each thread.

asyncio's own Task.print_stack() shows one frame of a suspended coroutine; here the chain of awaits is followed to its end.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from typing import Any


def waits_at(coroutine: Any) -> list[str]:
    """FILE:LINE FUNCTION of each await from the outermost coroutine to the innermost, then what that waits for."""
    chain = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is None:
            chain.append(repr(coroutine)[:120])
            break
        chain.append(f"{frame.f_code.co_filename.rpartition('/plugins/')[2]}:{frame.f_lineno} {frame.f_code.co_name}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None) or getattr(coroutine, "ag_await", None)
    return chain


def stacks() -> str:
    """All tasks of the running loop and all threads, as text."""
    lines = [f"task {task.get_name()}: {' > '.join(waits_at(task.get_coro()))}" for task in asyncio.all_tasks()]
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.ident in frames and thread is not threading.current_thread():
            where = [f"{f.filename.rpartition('/plugins/')[2]}:{f.lineno} {f.name}" for f in traceback.extract_stack(frames[thread.ident])]
            lines.append(f"thread {thread.name}: {' > '.join(where[-8:])}")
    return "\n".join(lines)
