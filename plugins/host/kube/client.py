# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server, spoken to in raw JSON over one keep-alive HTTP client.

No model classes: a pod as a dict costs 20 KiB and 40 microseconds, as an object of the official client 60 KiB and ten times the time,
on hosts where that matters. managedFields are dropped as they arrive. The client certificate can be replaced while requests run.
The watch (list, follow, resume, relist) is in watch.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Optional

import aiohttp

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError, Object, refusal, strip
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import TokenBucket
from ansible_collections.unifleet.hybrid.plugins.host.kube.sockets import probe_peer
from ansible_collections.unifleet.hybrid.plugins.host.kube.watch import WatchEvent, follow, in_pages, selectors

log = logging.getLogger("unifleet.kube")

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
_PAGE = 500
_TRIES = 4
_OLD_POOL_SECONDS = 5.0


class KubeApi:
    """One user at one API server. Use as an async context manager, inside one event loop.

    Every path is absolute without query ("/api/v1/nodes/pi1/status"). Every call raises ApiError.
    """

    def __init__(
        self,
        config: Kubeconfig,
        *,
        user_agent: str = "unifleet",
        timeout: float = 30.0,
        rate: float = 50.0,
        burst: int = 100,
    ) -> None:
        self.config = config
        self._user_agent = user_agent
        self._timeout = timeout
        self._pool: Optional[aiohttp.ClientSession] = None
        self._retired: set[asyncio.Task[None]] = set()
        self._requests = TokenBucket(rate, burst)
        self._heartbeats = TokenBucket(rate * 2, burst * 2)

    async def __aenter__(self) -> KubeApi:
        self._pool = self._new_pool()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._retired:
            task.cancel()
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def reload(self, config: Optional[Kubeconfig] = None) -> None:
        """Read certificate, key and token again (of a new config when given). Requests under way end on the old connections.

        When the new files cannot be used this raises UnifleetError and the old connections stay.
        """
        if config is not None:
            fresh = self._new_pool(config)
            self.config = config
        else:
            fresh = self._new_pool()
        old, self._pool = self._pool, fresh
        if old is not None:
            task = asyncio.get_running_loop().create_task(_close_later(old))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    async def get(self, path: str, params: Optional[Mapping[str, str]] = None) -> Object:
        """One object."""
        return await self._call("GET", path, params=params)

    async def list(self, path: str, *, field_selector: str = "", label_selector: str = "") -> tuple[list[Object], str]:
        """All objects of a collection, read in pages, and the resourceVersion to watch from."""
        return await in_pages(self.get, path, selectors(field_selector, label_selector), _PAGE)

    async def create(self, path: str, body: Object) -> Object:
        """POST to a collection (or a subresource such as .../token); returns what the server made of it."""
        return await self._call("POST", path, body=body)

    async def replace(self, path: str, body: Object) -> Object:
        """PUT; with metadata.resourceVersion in the body a concurrent change is a 409."""
        return await self._call("PUT", path, body=body)

    async def patch(self, path: str, body: Any, kind: str = "merge") -> Object:
        """PATCH; kind: merge (RFC 7396), strategic or json (RFC 6902, the body is a list). Subresources are part of the path."""
        return await self._call("PATCH", path, body=body, content_type=_PATCH_TYPES[kind])

    async def delete(self, path: str, *, uid: Optional[str] = None, grace_seconds: Optional[int] = None) -> None:
        """DELETE; an object that is gone, or has another uid by now (409), is as good as deleted."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", path, body=body)
        except ApiError as error:
            if error.status != 404 and not (uid is not None and error.status == 409):
                raise

    async def stream(self, path: str, params: Mapping[str, str], silence: float) -> AsyncIterator[bytes]:
        """The body of a GET in the pieces in which it comes; silence: seconds without a byte after which the connection counts as dead."""
        pool = self._require_pool()
        await self._requests.take()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        try:
            async with pool.get(self._url(path), params=params, headers=self._headers(), timeout=timeout) as response:
                if response.status >= 400:
                    raise refusal(f"WATCH {path}", response.status, response.reason or "", response.headers, await response.read())
                probe_peer(response.connection.transport if response.connection is not None else None)
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError) as error:
            raise self._unreachable("WATCH", path, error) from error

    def watch(self, path: str, *, field_selector: str = "", label_selector: str = "") -> AsyncIterator[WatchEvent]:
        """Follow a collection for ever; see watch.follow."""
        return follow(self, path, field_selector=field_selector, label_selector=label_selector)

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        params: Optional[Mapping[str, str]] = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for attempt in range(1, _TRIES + 1):
            await self._bucket(verb, path).take()
            try:
                return await self._once(verb, path, params, data, content_type)
            except ApiError as error:
                if attempt == _TRIES or not _worth_repeating(verb, error):
                    raise
                delay = error.retry_after or 0.1 * 2**attempt * (0.5 + random.random() / 2)  # noqa: S311
                log.debug("%s; trying again in %.1f s", error, delay)
                await asyncio.sleep(min(delay, self._timeout))
        raise AssertionError("unreachable")

    async def _once(self, verb: str, path: str, params: Optional[Mapping[str, str]], data: Optional[bytes], content_type: str) -> Object:
        headers = self._headers()
        if data is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        pool = self._require_pool()
        try:
            async with pool.request(verb, self._url(path), params=params, data=data, headers=headers, timeout=timeout) as response:
                payload = await response.read()
                if response.status >= 400:
                    raise refusal(f"{verb} {path}", response.status, response.reason or "", response.headers, payload)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, RuntimeError) as error:
            raise self._unreachable(verb, path, error) from error
        try:
            answer = json.loads(payload) if payload else {}
        except ValueError as error:
            raise ApiError(f"{verb} {path}: the answer is not JSON", response.status, "BadAnswer") from error
        if not isinstance(answer, dict):
            raise ApiError(f"{verb} {path}: the answer is not an object", response.status, "BadAnswer")
        strip(answer)
        return answer

    def _bucket(self, verb: str, path: str) -> TokenBucket:
        heartbeat = verb != "GET" and (path.endswith("/status") or "/leases" in path)
        return self._heartbeats if heartbeat else self._requests

    def _url(self, path: str) -> str:
        return self.config.server + path

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        token = self.config.bearer_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _require_pool(self) -> aiohttp.ClientSession:
        if self._pool is None:
            raise ApiError("the API client is closed", 0, "Closed")
        return self._pool

    def _new_pool(self, config: Optional[Kubeconfig] = None) -> aiohttp.ClientSession:
        context = (config or self.config).ssl_context()
        connector = aiohttp.TCPConnector(ssl=context, limit=100, keepalive_timeout=90, ttl_dns_cache=10)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True)

    def _unreachable(self, verb: str, path: str, error: Exception) -> ApiError:
        why = str(error) or type(error).__name__
        if isinstance(error, asyncio.TimeoutError):
            why = "no answer in time"
        return ApiError(f"{verb} {path}: the API server {self.config.server} cannot be reached: {why}", 0, "Unreachable")


def _worth_repeating(verb: str, error: ApiError) -> bool:
    """A refused request was not carried out; one without an answer may have been, so only reads and full writes are repeated."""
    if error.status in (429, 503):
        return True
    return verb in ("GET", "PUT") and error.transient


async def _close_later(pool: aiohttp.ClientSession) -> None:
    try:
        await asyncio.sleep(_OLD_POOL_SECONDS)
    finally:
        await pool.close()


__all__ = ["ApiError", "KubeApi", "Object", "WatchEvent", "selectors", "strip"]
