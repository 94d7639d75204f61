# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Following a collection for ever: list, watch from there, resume where the stream broke off, list again when history is gone.

The rules are the API's own (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes): bookmarks
move the resourceVersion on without an object; an ERROR event or a status of 410 means that the resourceVersion is too old and only a
new list is the truth. Streams end all the time (timeoutSeconds, a restarted server), which is no error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Optional, Protocol

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError, Object, strip
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff

log = logging.getLogger("unifleet.kube.watch")

_STREAM_SECONDS = (240, 480)
_SILENCE_MARGIN = 30.0
_LINE_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class WatchEvent:
    """One piece of news.

    type: SYNCED (items is the whole collection now, authoritative; object is empty), ADDED, MODIFIED or DELETED (object is the one
    that changed, for DELETED its last state; items is empty). After SYNCED an ADDED may repeat what the list already said.
    """

    type: str
    object: Object
    items: tuple[Object, ...] = ()


class Source(Protocol):
    """What of the API client a watch uses."""

    async def list(self, path: str, *, field_selector: str = "", label_selector: str = "") -> tuple[list[Object], str]:
        """The collection and its resourceVersion."""

    def stream(self, path: str, params: Mapping[str, str], silence: float) -> AsyncIterator[bytes]:
        """The pieces of an endless answer."""


async def in_pages(
    get: Callable[[str, Mapping[str, str]], Awaitable[Object]], path: str, selection: Mapping[str, str], most: int
) -> tuple[list[Object], str]:
    """All objects of a collection, most of them at a time, and the resourceVersion to watch from."""
    items: list[Object] = []
    params = {**selection, "limit": str(most)}
    while True:
        page = await get(path, params)
        items.extend(page.get("items") or ())
        metadata = page.get("metadata") or {}
        if not metadata.get("continue"):
            break
        params["continue"] = metadata["continue"]
    for item in items:
        strip(item)
    return items, str(metadata.get("resourceVersion", ""))


class GoneError(Exception):
    """The resourceVersion is too old: list again."""


class StreamDecoder:
    """Newline-separated JSON events out of pieces of any size, and the resourceVersion to resume from."""

    def __init__(self, resource_version: str) -> None:
        self.resource_version = resource_version
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[WatchEvent]:
        """The events that this piece completes. Raises GoneError for 410, ApiError for another ERROR event or for what is not JSON."""
        self._rest += piece
        if b"\n" not in piece:
            if len(self._rest) > _LINE_LIMIT:
                raise ApiError("a watch event is longer than 64 MiB", 0, "BadAnswer")
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [event for line in lines if line.strip() for event in self._event(line)]

    def drop_partial(self) -> None:
        """Forget a line that a broken connection left half-sent; the next connection begins with a whole one."""
        self._rest.clear()

    def _event(self, line: bytes) -> list[WatchEvent]:
        try:
            event = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise _error_event(item)
            strip(item)
            self.resource_version = str(item["metadata"]["resourceVersion"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ApiError(f"a watch event cannot be read: {error}", 0, "BadAnswer") from error
        return [] if kind == "BOOKMARK" else [WatchEvent(kind, item)]


async def follow(
    source: Source, path: str, *, field_selector: str = "", label_selector: str = "", backoff: Optional[Backoff] = None
) -> AsyncIterator[WatchEvent]:
    """SYNCED first, then every change, SYNCED again whenever continuity was lost. Ends by cancellation alone.

    Errors of the API are logged and retried with back-off, a permission that is missing as well: it may be granted yet.
    """
    backoff = backoff or Backoff(base=0.5, ceiling=30.0)
    params = selectors(field_selector, label_selector)
    while True:
        try:
            items, resource_version = await source.list(path, field_selector=field_selector, label_selector=label_selector)
        except ApiError as error:
            await _pause(backoff, path, error)
            continue
        backoff.reset()
        yield WatchEvent("SYNCED", {}, tuple(items))
        decoder = StreamDecoder(resource_version)
        try:
            async for event in _resume(source, path, params, decoder, backoff):
                yield event
        except GoneError:
            log.info("%s: the watch from %s is too old, listing again", path, decoder.resource_version)
            await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311


async def _resume(
    source: Source, path: str, params: Mapping[str, str], decoder: StreamDecoder, backoff: Backoff
) -> AsyncIterator[WatchEvent]:
    """Events over any number of connections, until GoneError. A stream refused again and again ends so too: a list may know better."""
    refusals = 0
    while True:
        seconds = random.randint(*_STREAM_SECONDS)  # noqa: S311
        query = {**params, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query["resourceVersion"] = decoder.resource_version
        decoder.drop_partial()
        try:
            async for piece in source.stream(path, query, seconds + _SILENCE_MARGIN):
                for event in decoder.feed(piece):
                    refusals = 0
                    backoff.reset()
                    yield event
        except ApiError as error:
            refusals += error.status != 0
            if error.status == 410 or refusals > 5:
                raise GoneError from error
            await _pause(backoff, path, error)
        else:
            # A server that ends each stream at once must not be asked in a tight loop.
            await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311


def selectors(field_selector: str, label_selector: str) -> dict[str, str]:
    """Query parameters for the selectors that are not empty."""
    params = {}
    if field_selector:
        params["fieldSelector"] = field_selector
    if label_selector:
        params["labelSelector"] = label_selector
    return params


def _error_event(status: Object) -> Exception:
    code = int(status.get("code") or 0)
    if code == 410 or status.get("reason") in ("Expired", "Gone"):
        return GoneError()
    return ApiError(f"the watch ended: {status.get('message') or status}", code or 500, str(status.get("reason") or "Unknown"))


async def _pause(backoff: Backoff, path: str, error: ApiError) -> None:
    delay = max(backoff.next_delay(), error.retry_after)
    log.warning("%s: %s; next try in %.1f s", path, error.message, delay)
    await asyncio.sleep(delay)
