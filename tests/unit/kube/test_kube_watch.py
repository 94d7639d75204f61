# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A watch never loses its place, whatever the server and the network do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff
from ansible_collections.unifleet.hybrid.plugins.host.kube.watch import GoneError, StreamDecoder, WatchEvent, follow


def line(kind: str, name: str, version: int) -> bytes:
    item = {"metadata": {"name": name, "resourceVersion": str(version), "managedFields": [1]}}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def error_line(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "too old"}}).encode() + b"\n"


@given(cuts=st.lists(st.integers(0, 500), max_size=8), names=st.lists(st.text(max_size=5), min_size=1, max_size=6))
def test_events_come_out_whole_however_the_stream_is_cut(cuts: list[int], names: list[str]) -> None:
    stream = b"".join(line("ADDED", name, number) for number, name in enumerate(names, 1))
    decoder = StreamDecoder("0")
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [event for start, end in zip(edges, edges[1:]) for event in decoder.feed(stream[start:end])]
    assert [event.object["metadata"]["name"] for event in events] == names
    assert decoder.resource_version == str(len(names))


def test_a_bookmark_moves_the_place_and_is_no_event() -> None:
    decoder = StreamDecoder("1")
    assert decoder.feed(line("BOOKMARK", "", 77)) == []
    assert decoder.resource_version == "77"


def test_managed_fields_do_not_arrive() -> None:
    assert "managedFields" not in StreamDecoder("1").feed(line("ADDED", "a", 2))[0].object["metadata"]


def test_an_error_event_of_410_means_list_again_and_another_does_not() -> None:
    with pytest.raises(GoneError):
        StreamDecoder("1").feed(error_line(410))
    with pytest.raises(ApiError) as caught:
        StreamDecoder("1").feed(error_line(500))
    assert caught.value.status == 500


@pytest.mark.parametrize("text", [b"{\n", b"5\n", b"[]\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": {"metadata": {}}}\n'])
def test_what_is_no_event_is_an_error_and_not_skipped(text: bytes) -> None:
    with pytest.raises(ApiError):
        StreamDecoder("1").feed(text)


class Server:
    """Answers lists and streams from a script; an exception in it is raised, b"" in a stream is nothing new."""

    def __init__(self, lists: list[Any], streams: list[Any]) -> None:
        self.lists = lists
        self.streams = streams
        self.asked: list[str] = []

    async def list(self, path: str, *, field_selector: str = "", label_selector: str = "") -> tuple[list[dict[str, Any]], str]:
        self.asked.append(f"list {field_selector}")
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer[0]), str(answer[1])

    async def stream(self, path: str, params: Mapping[str, str], silence: float) -> AsyncIterator[bytes]:
        self.asked.append(f"watch {params['resourceVersion']}")
        assert params["allowWatchBookmarks"] == "true"
        assert int(params["timeoutSeconds"]) < silence
        if not self.streams:
            await asyncio.sleep(3600)
        for piece in self.streams.pop(0):
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def collect(server: Server, count: int, field_selector: str = "") -> list[WatchEvent]:
    events: list[WatchEvent] = []
    source = follow(server, "/x", field_selector=field_selector, backoff=Backoff(base=0.001, ceiling=0.002))
    async for event in source:
        events.append(event)
        if len(events) == count:
            break
    return events


def kinds(events: list[WatchEvent]) -> list[str]:
    return [event.type if event.type == "SYNCED" else f"{event.type} {event.object['metadata']['name']}" for event in events]


def unreachable() -> ApiError:
    return ApiError("gone fishing", 0, "Unreachable")


async def test_the_whole_collection_comes_first_then_the_changes() -> None:
    server = Server([([{"metadata": {"name": "a"}}], "5")], [[line("ADDED", "b", 6) + line("DELETED", "a", 7)]])
    events = await collect(server, 3, "spec.nodeName=n")
    assert kinds(events) == ["SYNCED", "ADDED b", "DELETED a"]
    assert events[0].items == ({"metadata": {"name": "a"}},)
    assert server.asked == ["list spec.nodeName=n", "watch 5"]


async def test_a_stream_that_ends_goes_on_from_the_last_place_without_a_new_list() -> None:
    server = Server([([], "5")], [[line("ADDED", "b", 6)], [line("BOOKMARK", "", 9)], [unreachable()], [line("ADDED", "c", 10)]])
    assert kinds(await collect(server, 3)) == ["SYNCED", "ADDED b", "ADDED c"]
    assert server.asked == ["list ", "watch 5", "watch 6", "watch 9", "watch 9"]


async def test_half_a_line_of_a_broken_connection_is_forgotten() -> None:
    whole = line("ADDED", "b", 6)
    server = Server([([], "5")], [[whole[:20], unreachable()], [whole]])
    assert kinds(await collect(server, 2)) == ["SYNCED", "ADDED b"]


@pytest.mark.parametrize("gone", [[error_line(410)], [ApiError("expired", 410, "Expired")]])
async def test_after_410_there_is_a_new_authoritative_list(gone: list[Any]) -> None:
    server = Server([([], "5"), ([{"metadata": {"name": "z"}}], "50")], [gone, [line("MODIFIED", "z", 51)]])
    events = await collect(server, 3)
    assert kinds(events) == ["SYNCED", "SYNCED", "MODIFIED z"]
    assert server.asked[-1] == "watch 50"


async def test_a_list_that_fails_is_tried_again_whatever_the_reason() -> None:
    server = Server([unreachable(), ApiError("no", 403, "Forbidden"), ApiError("later", 429, "TooManyRequests"), ([], "1")], [])
    assert kinds(await collect(server, 1)) == ["SYNCED"]


async def test_a_stream_refused_again_and_again_leads_to_a_new_list() -> None:
    refusals = [[ApiError("boom", 500, "InternalError")] for _number in range(6)]
    server = Server([([], "5"), ([], "6")], refusals)
    assert kinds(await collect(server, 2)) == ["SYNCED", "SYNCED"]


async def test_cancelling_ends_a_quiet_watch() -> None:
    task: asyncio.Task[Any] = asyncio.ensure_future(collect(Server([([], "5")], []), 99))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_back_off_doubles_with_jitter_up_to_its_ceiling_and_starts_small_again() -> None:
    backoff = Backoff(base=1.0, ceiling=5.0, chance=lambda: 1.0)
    assert [backoff.next_delay() for _number in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.next_delay() == 1.0
    low: Optional[float] = Backoff(base=1.0, chance=lambda: 0.0).next_delay()
    assert low == 0.5
