# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API client against a loopback server: answers, refusals, retries, and certificates replaced beneath it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import ApiError, KubeApi
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig, load_kubeconfig, render_kubeconfig, write_private
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import TokenBucket
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass
class Loopback:
    """What was asked, and what to answer: a list of (status, body, headers), the last one for ever."""

    port: int = 0
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, str(request.rel_url), json.loads(body) if body else None, dict(request.headers)))
        status, answer, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    loopback = Loopback()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", loopback.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    loopback.port = runner.addresses[0][1]
    yield loopback
    await runner.cleanup()


def api_of(server: Loopback, **settings: Any) -> KubeApi:
    return KubeApi(Kubeconfig(server=f"http://127.0.0.1:{server.port}", **settings), timeout=5)


def status_of(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": f"because {reason}"}


async def test_an_object_arrives_without_its_managed_fields(server: Loopback) -> None:
    server.answers = [(200, {"metadata": {"name": "a", "managedFields": [1]}}, {})]
    async with api_of(server) as api:
        assert await api.get("/api/v1/nodes/a") == {"metadata": {"name": "a"}}


async def test_a_list_is_read_in_pages_to_its_end(server: Loopback) -> None:
    page = {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "b"}}]}
    server.answers = [(200, page, {}), (200, last, {})]
    async with api_of(server) as api:
        items, version = await api.list("/api/v1/pods", field_selector="spec.nodeName=n")
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert version == "9"
    assert "fieldSelector=spec.nodeName%3Dn" in server.asked[0][1].replace("=n", "%3Dn")
    assert "continue=next" in server.asked[1][1]


@pytest.mark.parametrize(("kind", "media"), [("merge", "merge-patch"), ("strategic", "strategic-merge-patch"), ("json", "json-patch")])
async def test_a_patch_says_which_kind_it_is(server: Loopback, kind: str, media: str) -> None:
    server.answers = [(200, {}, {})]
    async with api_of(server) as api:
        await api.patch("/api/v1/nodes/a/status", {"a": None}, kind=kind)
    assert server.asked[0][3]["Content-Type"] == f"application/{media}+json"
    assert server.asked[0][2] == {"a": None}


async def test_a_refusal_carries_status_reason_and_message(server: Loopback) -> None:
    server.answers = [(403, status_of(403, "Forbidden"), {})]
    async with api_of(server) as api:
        with pytest.raises(ApiError, match="because Forbidden") as caught:
            await api.create("/api/v1/nodes", {})
    assert (caught.value.status, caught.value.reason, caught.value.transient) == (403, "Forbidden", False)


async def test_a_refusal_that_is_no_json_is_told_all_the_same(server: Loopback) -> None:
    server.answers = [(502, "<html>bad gateway</html>", {})]
    async with api_of(server) as api:
        with pytest.raises(ApiError, match="bad gateway"):
            await api.create("/x", {})


async def test_too_many_requests_are_repeated_after_the_time_that_the_server_names(server: Loopback) -> None:
    server.answers = [(429, status_of(429, "TooManyRequests"), {"Retry-After": "0.01"}), (201, {"ok": 1}, {})]
    async with api_of(server) as api:
        assert await api.create("/x", {"a": 1}) == {"ok": 1}
    assert len(server.asked) == 2


async def test_a_creation_that_may_have_happened_is_not_repeated(server: Loopback) -> None:
    server.answers = [(500, status_of(500, "InternalError"), {})]
    async with api_of(server) as api:
        with pytest.raises(ApiError):
            await api.create("/x", {})
    assert len(server.asked) == 1


async def test_deleting_what_is_gone_or_another_by_now_is_done(server: Loopback) -> None:
    server.answers = [(404, status_of(404, "NotFound"), {}), (409, status_of(409, "Conflict"), {}), (403, status_of(403, "Forbidden"), {})]
    async with api_of(server) as api:
        await api.delete("/p/a", uid="u", grace_seconds=0)
        await api.delete("/p/a", uid="u")
        with pytest.raises(ApiError):
            await api.delete("/p/a")
    assert server.asked[0][2]["preconditions"] == {"uid": "u"}
    assert server.asked[0][2]["gracePeriodSeconds"] == 0


async def test_no_server_is_a_transient_error_with_its_address() -> None:
    async with KubeApi(Kubeconfig(server="http://127.0.0.1:1"), timeout=1) as api:
        with pytest.raises(ApiError, match="127.0.0.1:1 cannot be reached") as caught:
            await api.create("/x", {})
    assert caught.value.transient


async def test_a_token_file_is_read_for_every_request(server: Loopback, tmp_path: Path) -> None:
    token = tmp_path / "token"
    server.answers = [(200, {}, {})]
    async with api_of(server, token_file=token) as api:
        for text in ("one", "two\n"):
            token.write_text(text)
            await api.get("/x")
    assert [asked[3]["Authorization"] for asked in server.asked] == ["Bearer one", "Bearer two"]


async def test_reloading_leaves_a_request_under_way_alone(server: Loopback) -> None:
    gate = asyncio.Event()
    plain = server.handle

    async def slow(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await plain(request)

    server.handle = slow  # type: ignore[method-assign]
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", slow)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.answers = [(200, {"ok": 1}, {})]
    async with KubeApi(Kubeconfig(server=f"http://127.0.0.1:{runner.addresses[0][1]}")) as api:
        task = asyncio.ensure_future(api.get("/x"))
        await asyncio.sleep(0.05)
        api.reload()
        gate.set()
        assert await task == {"ok": 1}
        assert await api.get("/x") == {"ok": 1}
    await runner.cleanup()


async def test_a_reload_with_a_broken_certificate_keeps_the_old_connections(server: Loopback, tmp_path: Path) -> None:
    server.answers = [(200, {"ok": 1}, {})]
    async with api_of(server) as api:
        broken = tmp_path / "client.pem"
        broken.write_text("nonsense")
        with pytest.raises(UnifleetError, match="client.pem"):
            api.reload(Kubeconfig(server="https://127.0.0.1:1", client_certificate=broken))
        assert await api.get("/x") == {"ok": 1}


def test_a_bucket_lets_a_burst_through_and_then_spaces_the_rest() -> None:
    now = [0.0]
    bucket = TokenBucket(rate=10, burst=2, clock=lambda: now[0])
    assert [bucket.reserve() for _number in range(4)] == [0.0, 0.0, pytest.approx(0.1), pytest.approx(0.2)]
    now[0] = 10.0
    assert bucket.reserve() == 0.0


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    config = Kubeconfig(server="https://h:6443", ca_data=b"CA", client_certificate=Path("/x/c.pem"), client_key=Path("/x/c.pem"), token="t")
    path = tmp_path / "deep" / "kubeconfig"
    write_private(path, render_kubeconfig(config).encode())
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_kubeconfig(path) == config


def test_yaml_and_relative_paths_are_understood(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://h/', certificate-authority: ca.crt}}]\nusers: [{name: u, user: {tokenFile: t}}]\n"
    )
    config = load_kubeconfig(tmp_path / "k")
    assert (config.server, config.ca_file, config.token_file) == ("https://h", tmp_path / "ca.crt", tmp_path / "t")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"current-context": ""}, "current-context is not set"),
        ({"current-context": "b"}, "no context named 'b'"),
        ({"users": []}, "no user named 'u'"),
        ({"users": [{"name": "u", "user": {"exec": {"command": "x"}}}]}, "'exec', which is not supported"),
        ({"clusters": [{"name": "c", "cluster": {"server": "http://h"}}]}, "not an https"),
        ({"clusters": [{"name": "c", "cluster": {"server": "https://h", "insecure-skip-tls-verify": True}}]}, "insecure"),
        ({"clusters": [{"name": "c", "cluster": {"server": "https://h", "certificate-authority-data": "%"}}]}, "not base64"),
        ({"clusters": 5}, "no cluster named"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_file_and_key(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    document = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://h"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        **change,
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(document))
    with pytest.raises(UnifleetError, match=why) as caught:
        load_kubeconfig(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "a: [", "5"])
def test_a_file_that_is_no_kubeconfig_is_told_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(UnifleetError, match=str(path)):
        load_kubeconfig(path)
