# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching from a release site that behaves, and from one that does not: a real server on loopback."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_release import answers, fetch

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /file; cut: how many bytes of a response's body are sent before the connection is dropped, per request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str] = []
        self.honour_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/file" else 404)
        self.end_headers()

    def do_GET(self) -> None:
        site = self.server
        asked = self.headers.get("Range", "")
        site.ranges.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        found = re.fullmatch(r"bytes=(\d+)-", asked) if site.honour_ranges else None
        start = int(found.group(1)) if found else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_a_file_with_the_pinned_checksum_is_fetched_once_and_may_be_run(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "kubelet"
    assert fetch(site.url, SHA256, path) is True
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o111
    assert fetch(site.url, SHA256, path) is False
    assert len(site.ranges) == 1


def test_a_file_with_another_checksum_is_refused_and_not_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match=f"SHA-256 is {SHA256} .300000 bytes., pinned is {'0' * 64}"):
        fetch(site.url, "0" * 64, tmp_path / "kubelet")
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_file_in_the_cache_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "kubelet").write_bytes(b"evil")
    assert fetch(site.url, SHA256, tmp_path / "kubelet") is True
    assert (tmp_path / "kubelet").read_bytes() == CONTENT


def test_a_broken_transfer_is_continued_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    fetch(site.url, SHA256, tmp_path / "kubelet")
    assert site.ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_server_that_keeps_breaking_is_given_up_but_what_came_is_kept_for_the_next_run(site: Site, tmp_path: Path) -> None:
    site.cuts = [10_000] * 4
    with pytest.raises(UnifleetError, match="ended before the file did"):
        fetch(site.url, SHA256, tmp_path / "kubelet")
    assert not (tmp_path / "kubelet").exists()
    site.ranges.clear()
    fetch(site.url, SHA256, tmp_path / "kubelet")
    assert site.ranges == ["bytes=40000-"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    site.cuts, site.honour_ranges = [100_000], False
    fetch(site.url, SHA256, tmp_path / "kubelet")
    assert (tmp_path / "kubelet").read_bytes() == CONTENT


@pytest.mark.parametrize("rubbish", [b"rubbish from an earlier mirror", CONTENT + b"too long", b"x" * len(CONTENT)])
def test_rubbish_left_by_an_earlier_run_does_not_spoil_the_file(site: Site, tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / f"kubelet.{SHA256[:12]}.part").write_bytes(rubbish)
    fetch(site.url, SHA256, tmp_path / "kubelet")
    assert (tmp_path / "kubelet").read_bytes() == CONTENT


def test_a_missing_file_is_said_to_be_missing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="answers 404") as caught:
        fetch(site.url + "2", SHA256, tmp_path / "kubelet")
    assert "architecture" in caught.value.hint


def test_a_site_answers_or_tells_why_not(site: Site) -> None:
    assert answers(site.url) == ""
    assert answers(site.url + "2") == "it answers 404"
    site.shutdown()
    site.server_close()
    assert "cannot be reached" in answers(site.url, seconds=1)
