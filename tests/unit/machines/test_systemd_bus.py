# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to the system bus that is lost under a call is made anew, and told of when that does not help."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jeepney import Message, new_method_return
from jeepney.io.common import ReplyMatcher, RouterClosed
from jeepney.io.threading import Future

from ansible_collections.unifleet.hybrid.plugins.host.machines.systemd_bus import SystemdBus
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


class Router:
    """jeepney's router, as far as a call goes: its receiving thread dies under the call, or answers."""

    def __init__(self, dies: bool) -> None:
        self.dies = dies
        self._rcv_thread = SimpleNamespace(is_alive=lambda: True)

    def send_and_get_reply(self, message: Message, timeout: float) -> Message:
        message.header.serial = 3
        if not self.dies:
            return new_method_return(message, "v", (("s", "252"),))
        self._rcv_thread = SimpleNamespace(is_alive=lambda: False)
        replies = ReplyMatcher()
        with replies.catch(3, Future()) as reply:
            replies.drop_all()
            raise reply.exception() or RouterClosed


def bus_over(monkeypatch: pytest.MonkeyPatch, *routers: Router) -> SystemdBus:
    left = list(routers)
    bus = SystemdBus()

    def connect() -> Any:
        bus._router = None
        return left.pop(0)

    monkeypatch.setattr(bus, "_connect", connect)
    return bus


def test_a_call_whose_connection_is_lost_is_made_again_on_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = bus_over(monkeypatch, Router(dies=True), Router(dies=False))
    first = bus._connected()
    assert bus.manager("Version") == "252"
    assert bus._connected() is not first


def test_a_connection_that_is_lost_again_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnifleetError, match="systemd does not answer"):
        bus_over(monkeypatch, Router(dies=True), Router(dies=True)).manager("Version")
