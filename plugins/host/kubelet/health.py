# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the provider answers: one question in flight at most, with a limit, because a hung libvirt call cannot be taken back.

The answer gates the lease and the Ready condition (as virtual-kubelet's ping does), so that a host whose hypervisor is stuck turns
NotReady by itself instead of collecting pods. The capacity is asked for in the same breath.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import Health, timestamp
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity, Machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

log = logging.getLogger("unifleet.health")


class ProviderHealth:
    """The newest answers are in health and capacity (None: never told); changed() is called in the event loop when one turns."""

    def __init__(self, machines: Machines, period: float, limit: float, changed: Callable[[], None]) -> None:
        self._machines = machines
        self._period = period
        self._limit = limit
        self._changed = changed
        self._question: Optional[asyncio.Future[tuple[Health, Optional[Capacity]]]] = None
        self._asked_at = 0.0
        self.health = Health("the provider has not been asked yet")
        self.capacity: Optional[Capacity] = None

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(self._period)

    async def ask(self) -> Health:
        """Ask once, or wait on for the question that is still open; never longer than the limit."""
        if self._question is None:
            self._question = self._put()
            self._asked_at = time.time()
        done, _open = await asyncio.wait({self._question}, timeout=self._limit)
        capacity = self.capacity
        if done:
            answer, told = self._question.result()
            capacity = told or capacity
            self._question = None
        else:
            answer = Health(f"the provider {self._machines.kind} has not answered since {timestamp(self._asked_at)}")
        if answer != self.health:
            log.log(logging.INFO if answer.good else logging.ERROR, "provider %s: %s", self._machines.kind, answer.message or "well")
        if (answer, capacity) != (self.health, self.capacity):
            self.health, self.capacity = answer, capacity
            self._changed()
        return answer

    def _put(self) -> asyncio.Future[tuple[Health, Optional[Capacity]]]:
        """Ask in a thread of its own: a hung one must not keep the process from ending, as a pool's threads do."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Health, Optional[Capacity]]] = loop.create_future()

        def settle(answer: Health, capacity: Optional[Capacity]) -> None:
            if not future.done():
                future.set_result((answer, capacity))

        def work() -> None:
            capacity = None
            try:
                self._machines.health()
                capacity = self._machines.capacity()
                answer = Health()
            except UnifleetError as error:
                answer = Health(str(error))
            except Exception as error:
                log.exception("the provider's health check failed in a way that it should not")
                answer = Health(f"{type(error).__name__}: {error}")
            try:
                loop.call_soon_threadsafe(settle, answer, capacity)
            except RuntimeError:
                log.debug("the loop ended before the provider answered")

        threading.Thread(target=work, name="provider-health", daemon=True).start()
        return future
