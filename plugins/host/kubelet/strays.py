# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of pods that the API server does not know: left alone at first, then stopped as gracefully as their pod asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import ContainerRuntime
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import MachineState, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.pods")


class Strays:
    """Stops and removes unclaimed machines, a step each time it is asked to; hold_off: seconds after the first complete list."""

    def __init__(self, runtime: ContainerRuntime, hold_off: float, clock: Callable[[], float]) -> None:
        self.runtime = runtime
        self.hold_off = hold_off
        self.clock = clock
        self.began: Optional[float] = None
        self.asked: dict[str, float] = {}
        self.swept = False

    def begin(self, at: float) -> None:
        """The first complete list of pods has come."""
        self.began = at

    def armed(self) -> bool:
        """Whether the hold-off is over."""
        return self.began is not None and self.clock() >= self.began + self.hold_off

    def due(self) -> bool:
        """Whether to step now rather than at the next general look."""
        return self.armed() and (not self.swept or bool(self.asked))

    async def step(self, machines: Iterable[MachineState], claimed: set[str]) -> None:
        """claimed: UIDs of the pods that have a worker."""
        if not self.armed():
            return
        self.swept = True
        seen = set()
        for state in machines:
            if state.metadata["pod_uid"] in claimed:
                continue
            seen.add(state.key)
            try:
                await self._step(state)
            except (UnifleetError, OSError, ValueError) as error:
                LOG.warning("stray machine %s: %s", state.key, error)
        self.asked = {key: at for key, at in self.asked.items() if key in seen}

    async def _step(self, state: MachineState) -> None:
        machines, said, now = self.runtime.machines, state.metadata, self.clock()
        if state.phase is not Phase.RUNNING:
            LOG.warning("removing machine %s of pod %s/%s, which is no more", state.key, said.get("namespace"), said.get("name"))
            await self.runtime.call(self.runtime.detach_log, state.key)
            await self.runtime.call(machines.remove, state.key)
            self.asked.pop(state.key, None)
        elif state.key not in self.asked:
            LOG.warning("stopping machine %s of pod %s/%s, which is no more", state.key, said.get("namespace"), said.get("name"))
            self.asked[state.key] = now
            if not await self.runtime.call(machines.request_stop, state.key):
                await self.runtime.call(machines.kill, state.key)
        elif now >= self.asked[state.key] + float(said.get("grace_seconds") or 30):
            await self.runtime.call(machines.kill, state.key)
