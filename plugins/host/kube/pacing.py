# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast we may talk to the API server: a token bucket per kind of request, and jittered exponential back-off after failures.

A burst of pods is bounded by the client's rate limit and not by boot time (kubernetes/kubernetes #39113: the podIP p99 of 300 pods
fell from 50 s to 10 s by raising it), so the buckets are generous and status writes and leases have one of their own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable


class TokenBucket:
    """At most `rate` requests a second in the long run, `burst` at once. Waiters are served in the order they came."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def reserve(self) -> float:
        """Take one token, now or from the future; returns the seconds to wait before using it."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0 else -self._tokens / self._rate

    async def take(self) -> None:
        """Wait until a request may be sent."""
        delay = self.reserve()
        if delay > 0:
            await asyncio.sleep(delay)


class Backoff:
    """Doubling delays with full jitter on the upper half: 0.5-1x of base, 2*base, ... up to ceiling seconds."""

    def __init__(self, base: float = 0.5, ceiling: float = 30.0, chance: Callable[[], float] = random.random) -> None:
        self._base = base
        self._ceiling = ceiling
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """The last attempt went well: start small again."""
        self._failures = 0

    def next_delay(self) -> float:
        """Seconds to wait after one more failure."""
        whole = min(self._ceiling, self._base * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return whole * (0.5 + self._chance() / 2)
