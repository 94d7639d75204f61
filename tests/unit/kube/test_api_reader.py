# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small client against a loopback server: every way of ending a body, refusals, what is broken, and credentials renewed beneath it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig
from ansible_collections.unifleet.hybrid.plugins.host.kube.reader import ApiReader
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

NODES = "/api/v1/nodes"
ITEM = {"metadata": {"name": "a", "resourceVersion": "7"}}


def plain(body: str, status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]).encode()


def chunked(*pieces: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(b"%x;x=y\r\n%s\r\n" % (len(p), p) for p in pieces)


class Loopback:
    """Answers each connection with the next of some bytes, the last for ever, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.asked: list[str] = []
        self.hangs = False
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        if self.hangs:
            await reader.read()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    loopback = Loopback()
    listening = await asyncio.start_server(loopback.handle, "127.0.0.1", 0)
    loopback.port = listening.sockets[0].getsockname()[1]
    yield loopback
    listening.close()


def reader_of(server: Loopback, timeout: float = 5, **settings: Any) -> ApiReader:
    return ApiReader(lambda: Kubeconfig(server=f"http://127.0.0.1:{server.port}/k8s", **settings), timeout=timeout)


ENDINGS: dict[str, Callable[[str], bytes]] = {
    "a length": plain,
    "chunks": lambda body: chunked(body[:3].encode(), body[3:].encode()) + b"0\r\n\r\n",
    "the connection's end": lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body.encode(),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
async def test_an_answer_that_ends_with(server: Loopback, ending: Callable[[str], bytes]) -> None:
    server.answers = [ending(json.dumps({"metadata": {"name": "a", "managedFields": [1]}}))]
    assert await reader_of(server).get(f"{NODES}/a b", {"limit": "1"}) == {"metadata": {"name": "a"}}
    assert server.asked[0].startswith("GET /k8s/api/v1/nodes/a%20b?limit=1 HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_list_is_read_in_pages_to_its_end(server: Loopback) -> None:
    page = {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": [ITEM]}
    server.answers = [plain(json.dumps(page)), plain(json.dumps({"metadata": {"resourceVersion": "9"}, "items": [ITEM]}))]
    items, version = await reader_of(server).list(NODES)
    assert (len(items), version) == (2, "9")
    assert "continue=next" in server.asked[1]


async def test_a_watch_goes_from_the_list_through_streams_that_end_to_the_next(server: Loopback) -> None:
    event = json.dumps({"type": "MODIFIED", "object": {"metadata": {"name": "a", "resourceVersion": "8"}}}).encode() + b"\n"
    empty = plain(json.dumps({"metadata": {"resourceVersion": "7"}, "items": []}))
    server.answers = [empty, chunked(event[:20], event[20:]) + b"0\r\n\r\n", chunked(event, event[:9]), chunked(event)]
    seen = []
    async for news in reader_of(server).watch(NODES):
        seen.append(news.type)
        if len(seen) == 4:
            break
    assert seen == ["SYNCED", "MODIFIED", "MODIFIED", "MODIFIED"]
    assert "resourceVersion=7" in server.asked[1]
    assert "resourceVersion=8" in server.asked[2]


async def test_a_refusal_tells_reason_and_when_to_come_again(server: Loopback) -> None:
    server.answers = [plain(json.dumps({"reason": "TooManyRequests", "message": "later"}), "429 Too Many Requests", "Retry-After: 3")]
    with pytest.raises(ApiError, match="later") as caught:
        await reader_of(server).get(NODES)
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (429, "TooManyRequests", 3.0)


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", chunked(b"{}"), b"HTTP/1.1 200 OK\r\n" + b"x" * 200000],
    ids=["nothing", "no HTTP", "too short", "no last chunk", "endless head"],
)
async def test_an_answer_that_breaks_off_is_an_error_and_not_half_an_answer(server: Loopback, answer: bytes) -> None:
    server.answers = [answer]
    with pytest.raises(ApiError) as caught:
        await reader_of(server).get(NODES)
    assert caught.value.status == 0


async def test_a_silent_server_is_given_up(server: Loopback) -> None:
    server.answers, server.hangs = [chunked(b"{")], True
    with pytest.raises(ApiError, match="no answer in time"):
        await reader_of(server, timeout=0.2).get(NODES)


async def test_credentials_are_taken_as_they_are_now_and_waited_for_while_there_are_none(server: Loopback) -> None:
    server.answers = [plain("{}")]
    tokens = ["one", "two"]

    def config() -> Kubeconfig:
        if not tokens:
            raise UnifleetError("cannot read the kubeconfig /x: not there")
        return Kubeconfig(server=f"http://127.0.0.1:{server.port}", token=tokens.pop(0))

    api = ApiReader(config)
    await api.get(NODES)
    await api.get(NODES)
    assert ["Bearer one" in server.asked[0], "Bearer two" in server.asked[1]] == [True, True]
    with pytest.raises(ApiError, match="not there") as caught:
        await api.get(NODES)
    assert caught.value.transient


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8), st.integers(1, 7))
def test_chunks_of_any_size_in_segments_of_any_size_are_one_body(pieces: list[bytes], size: int) -> None:
    async def read() -> bytes:
        from ansible_collections.unifleet.hybrid.plugins.host.kube import reader as module

        stream = asyncio.StreamReader()
        whole = chunked(*pieces) + b"0\r\n\r\n"

        async def feed() -> None:
            for start in range(0, len(whole), size):
                stream.feed_data(whole[start : start + size])
                await asyncio.sleep(0)
            stream.feed_eof()

        task = asyncio.create_task(feed())
        _status, _phrase, headers = await module._head(stream)
        body = b"".join([piece async for piece in module._body(stream, headers, 5)])
        await task
        return body

    assert asyncio.run(read()) == b"".join(pieces)
