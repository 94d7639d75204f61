# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes events: what happened to a pod or node, told once and counted after that, never at the cost of the work itself.

emit() never blocks and never fails. One task writes: an event that was told already has its count raised; an object that talks too
much is held to a token bucket (25 at once, then one in 5 minutes, as client-go's spam filter does). When the API server is away the
queue is bounded and the oldest go first.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Protocol

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import format_time
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.events")
MESSAGE_LIMIT = 1024
QUEUE_LIMIT = 1000
REMEMBERED = 500


class EventApi(Protocol):
    """What this file needs of the API server."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST."""

    async def patch(self, path: str, body: Any, kind: str = "merge") -> dict[str, Any]:
        """PATCH."""


@dataclass(frozen=True)
class Subject:
    """What an event is about. field_path: "spec.containers{NAME}" for one container of a pod."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    field_path: str = ""

    def reference(self) -> dict[str, str]:
        """As involvedObject."""
        said = {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "apiVersion": "v1",
            "fieldPath": self.field_path,
        }
        return {key: value for key, value in said.items() if value}


@dataclass(frozen=True)
class Event:
    """One thing that happened. type: Normal or Warning; at: seconds since the epoch."""

    subject: Subject
    type: str
    reason: str
    message: str
    at: float = 0.0


@dataclass
class Bucket:
    """Tokens of one object."""

    tokens: float = 25.0
    filled_at: float = 0.0

    def take(self, now: float, burst: float = 25.0, per_second: float = 1 / 300) -> bool:
        """Whether one more may be told."""
        self.tokens = min(burst, self.tokens + (now - self.filled_at) * per_second)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Told:
    """An event that the API server has."""

    path: str
    count: int


@dataclass
class EventRecorder:
    """Writes events in the name of this agent. run() is the task that does so; node_name becomes source.host."""

    api: EventApi
    node_name: str
    component: str = "virtual-kubelet"
    clock: Callable[[], float] = time.time
    queue: deque[Event] = field(default_factory=lambda: deque(maxlen=QUEUE_LIMIT))
    told: OrderedDict[tuple[Any, ...], Told] = field(default_factory=OrderedDict)
    buckets: OrderedDict[tuple[str, str], Bucket] = field(default_factory=OrderedDict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def emit(self, subject: Subject, type_: str, reason: str, message: str) -> None:
        """Say that something happened; from the event loop's thread."""
        self.queue.append(Event(subject, type_, reason, message[:MESSAGE_LIMIT], self.clock()))
        self._wake.set()

    def pod(self, metadata: Mapping[str, str], type_: str, reason: str, message: str, container: str = "") -> None:
        """Say it about a pod (metadata: name, namespace, uid) or about one of its containers."""
        path = f"spec.containers{{{container}}}" if container else ""
        self.emit(Subject("Pod", metadata["name"], metadata["namespace"], metadata["uid"], path), type_, reason, message)

    async def run(self) -> None:
        """Write what was emitted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.queue:
                event = self.queue.popleft()
                try:
                    await self._write(event)
                except (UnifleetError, OSError, asyncio.TimeoutError) as error:
                    LOG.warning("event %s for %s is lost: %s", event.reason, event.subject.name, error)

    async def drain(self, seconds: float = 2.0) -> None:
        """Give what is queued a last chance before the program ends."""
        deadline = self.clock() + seconds
        while self.queue and self.clock() < deadline:
            await asyncio.sleep(0.05)

    async def _write(self, event: Event) -> None:
        key = (event.subject, event.type, event.reason, event.message)
        if not self._bucket(event.subject).take(event.at):
            return
        known = self.told.get(key)
        if known:
            body = {"count": known.count + 1, "lastTimestamp": format_time(event.at)}
            try:
                await self.api.patch(known.path, body, kind="merge")
            except UnifleetError as error:
                if getattr(error, "status", 0) != 404:  # it has expired: tell it anew
                    raise
            else:
                self.told[key] = replace(known, count=known.count + 1)
                self.told.move_to_end(key)
                return
        namespace = event.subject.namespace or "default"
        name = f"{event.subject.name[:200]}.{uuid.uuid4().hex[:16]}"
        stamp = format_time(event.at)
        folder = f"/api/v1/namespaces/{namespace}/events"
        await self.api.create(
            folder,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": event.subject.reference(),
                "type": event.type,
                "reason": event.reason,
                "message": event.message,
                "source": {"component": self.component, "host": self.node_name},
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
            },
        )
        self.told[key] = Told(f"{folder}/{name}", 1)
        while len(self.told) > REMEMBERED:
            self.told.popitem(last=False)

    def _bucket(self, subject: Subject) -> Bucket:
        key = (subject.uid, subject.name)
        bucket = self.buckets.setdefault(key, Bucket(filled_at=self.clock()))
        self.buckets.move_to_end(key)
        while len(self.buckets) > REMEMBERED:
            self.buckets.popitem(last=False)
        return bucket
