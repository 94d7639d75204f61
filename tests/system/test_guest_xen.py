# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only Xen can show: its network, its short command lines, and that the host boots kernels that nobody here wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guest_targets import XenGuest, wait_for
from test_guest_targets import build, xen_machine

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Network
from ansible_collections.unifleet.hybrid.plugins.host.guests.plain import PlainGuest
from ansible_collections.unifleet.hybrid.tools.xen_host.host import XenHost

__all__ = ["build", "xen_machine"]

pytestmark = [pytest.mark.system, pytest.mark.wide, pytest.mark.timeout(600)]

GRUBS = {"pv": Path("/usr/lib/grub-xen/grub-x86_64-xen.bin"), "pvh": Path("/usr/lib/grub-xen/grub-i386-xen_pvh.bin")}


@contextmanager
def domain(host: XenHost, kind: str, kernel: Path, line: str, memory: int = 8, extra: str = "") -> Iterator[XenGuest]:
    guest = XenGuest(host, kind, kernel, line, memory, extra)
    try:
        yield guest
    finally:
        guest.kill()


@pytest.mark.parametrize("kind", ["pvh", "pv"])
def test_a_domain_serves_its_reading_on_its_network_card(xen_machine: XenHost, build: Path, kind: str) -> None:
    line = PlainGuest().command_line(("--sensor", "humidity", "--period", "3600"), (), Network("10.0.2.77/24", "10.0.2.2"))
    with domain(xen_machine, kind, build / "sensor-xen-amd64", line, extra='vif = ["bridge=xenbr0"]') as guest:
        printed = wait_for(guest, 1)[0]
        ask = "import urllib.request as r\nfor n in range(20): print(r.urlopen('http://10.0.2.77/', timeout=20).read().decode().strip())"
        answers = [json.loads(answer) for answer in xen_machine.run("python3 -", ask.encode()).splitlines()]
        assert len(answers) == 20
        assert all((answer["sensor"], answer["seq"]) == ("humidity", 1) for answer in answers)
        assert f"value={answers[0]['value']} " in printed
        guest.ask_to_stop()
        assert guest.exit_code() == 0


def test_a_command_line_that_xen_cut_off_is_refused(xen_machine: XenHost, build: Path) -> None:
    line = PlainGuest().command_line(("--count", "1"), (("PAD", "x" * 2000),), None)
    with domain(xen_machine, "pv", build / "sensor-xen-amd64", line) as guest:
        assert guest.exit_code() == 2
        assert "1023 bytes" in guest.text()
    with domain(xen_machine, "pvh", build / "sensor-xen-amd64", line) as guest:
        assert guest.exit_code() == 0


@pytest.mark.parametrize("kind", sorted(GRUBS))
def test_a_kernel_that_nobody_here_wrote_boots_on_this_host(xen_machine: XenHost, kind: str) -> None:
    if not GRUBS[kind].exists():
        pytest.skip(f"NOT TESTED: {GRUBS[kind]} is missing; install Debian's grub-xen-host")
    with domain(xen_machine, kind, GRUBS[kind], "", memory=64) as guest:
        until = time.monotonic() + 60
        while "GRUB" not in guest.text():
            assert time.monotonic() < until, guest.text()
            time.sleep(0.3)
