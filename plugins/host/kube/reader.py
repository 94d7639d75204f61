# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading from the API server with the standard library alone, for a program that lists and watches and must be small.

aiohttp costs 8 MiB and a dozen of Debian's packages, for pools and writing that such a program has no use of. Here each request has a
connection of its own, and reads server, authority, certificate and token anew from their files: what others renew is taken over by itself.
HTTP is RFC 9112 as far as Go's servers and the proxies before them speak it.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from email.message import Message
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError, Object, refusal, strip
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig
from ansible_collections.unifleet.hybrid.plugins.host.kube.sockets import probe_peer
from ansible_collections.unifleet.hybrid.plugins.host.kube.watch import WatchEvent, follow, in_pages, selectors
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_PAGE = 50
_PIECE = 65536


class ApiReader:
    """One user at one API server, inside one event loop. Paths are absolute without query. Every call raises ApiError.

    config: what to connect with, asked before each request; when it raises UnifleetError there is no connection yet.
    timeout: seconds for a connection, and for each silence in an answer to anything but a watch.
    """

    def __init__(self, config: Callable[[], Kubeconfig], *, user_agent: str = "unifleet", timeout: float = 30.0) -> None:
        self._config = config
        self._user_agent = user_agent
        self._timeout = timeout

    async def get(self, path: str, params: Optional[Mapping[str, str]] = None) -> Object:
        """One object."""
        payload = b"".join([piece async for piece in self._ask("GET", path, params or {}, self._timeout)])
        try:
            answer = json.loads(payload)
        except ValueError as error:
            raise ApiError(f"GET {path}: the answer is not JSON", 200, "BadAnswer") from error
        if not isinstance(answer, dict):
            raise ApiError(f"GET {path}: the answer is not an object", 200, "BadAnswer")
        strip(answer)
        return answer

    async def list(self, path: str, *, field_selector: str = "", label_selector: str = "") -> tuple[list[Object], str]:
        """All objects of a collection, read in pages, and the resourceVersion to watch from."""
        return await in_pages(self.get, path, selectors(field_selector, label_selector), _PAGE)

    def stream(self, path: str, params: Mapping[str, str], silence: float) -> AsyncIterator[bytes]:
        """The body of a GET in the pieces in which it comes; silence: seconds without a byte after which the connection counts as dead."""
        return self._ask("WATCH", path, params, silence)

    def watch(self, path: str, *, field_selector: str = "", label_selector: str = "") -> AsyncIterator[WatchEvent]:
        """Follow a collection for ever; see watch.follow."""
        return follow(self, path, field_selector=field_selector, label_selector=label_selector)

    async def _ask(self, verb: str, path: str, params: Mapping[str, str], silence: float) -> AsyncIterator[bytes]:
        writer: Optional[asyncio.StreamWriter] = None
        server = "the API server"
        try:
            config = self._config()
            server = f"the API server {config.server}"
            reader, opened = await asyncio.wait_for(_connect(config), self._timeout)
            writer = opened
            probe_peer(opened.transport)
            opened.write(self._request(config, path, params))
            status, phrase, headers = await asyncio.wait_for(_head(reader), self._timeout)
            if status >= 300:
                payload = b"".join([piece async for piece in _body(reader, headers, self._timeout)])
                raise refusal(f"{verb} {path}", status, phrase, {"Retry-After": headers.get("Retry-After", "0")}, payload)
            async for piece in _body(reader, headers, silence):
                yield piece
        except ApiError:
            raise
        except UnifleetError as error:
            raise ApiError(f"{verb} {path}: {error.message}", 0, "Unreachable", hint=error.hint) from error
        except (OSError, EOFError, ValueError, http.client.HTTPException, asyncio.TimeoutError, asyncio.LimitOverrunError) as error:
            why = "no answer in time" if isinstance(error, asyncio.TimeoutError) else str(error) or type(error).__name__
            raise ApiError(f"{verb} {path}: {server} cannot be reached: {why}", 0, "Unreachable") from error
        finally:
            if writer is not None:
                writer.transport.abort()

    def _request(self, config: Kubeconfig, path: str, params: Mapping[str, str]) -> bytes:
        base = urllib.parse.urlsplit(config.server)
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        token = config.bearer_token()
        lines = [
            f"GET {base.path}{urllib.parse.quote(path)}{query} HTTP/1.1",
            f"Host: {base.netloc}",
            f"User-Agent: {self._user_agent}",
            "Accept: application/json",
            *([f"Authorization: Bearer {token}"] if token else []),
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode()


async def _connect(config: Kubeconfig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    base = urllib.parse.urlsplit(config.server)
    context = config.ssl_context() if base.scheme == "https" else None
    return await asyncio.open_connection(base.hostname, base.port or (443 if context else 80), ssl=context)


async def _head(reader: asyncio.StreamReader) -> tuple[int, str, Message]:
    """Status, its phrase, and headers, whose names are of any case."""
    first, _newline, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    version, status, phrase = [*first.decode("latin-1").split(" ", 2), "", ""][:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise ValueError(f"the answer is no HTTP: {first[:80]!r}")
    return int(status), phrase, http.client.parse_headers(io.BytesIO(rest))


async def _body(reader: asyncio.StreamReader, headers: Message, silence: float) -> AsyncIterator[bytes]:
    """The body in pieces. Raises EOFError when it ends too early."""
    if headers.get("Transfer-Encoding", "").strip().lower() == "chunked":
        while True:
            line = await asyncio.wait_for(reader.readuntil(b"\r\n"), silence)
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                return
            async for piece in _exactly(reader, size, silence):
                yield piece
            await asyncio.wait_for(reader.readexactly(2), silence)
    elif "Content-Length" in headers:
        async for piece in _exactly(reader, int(headers["Content-Length"]), silence):
            yield piece
    else:
        while True:
            piece = await asyncio.wait_for(reader.read(_PIECE), silence)
            if not piece:
                return
            yield piece


async def _exactly(reader: asyncio.StreamReader, size: int, silence: float) -> AsyncIterator[bytes]:
    while size > 0:
        piece = await asyncio.wait_for(reader.read(min(size, _PIECE)), silence)
        if not piece:
            raise EOFError("the answer ended in the middle")
        size -= len(piece)
        yield piece
