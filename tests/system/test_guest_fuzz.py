# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guests' network code as a host program under sanitizers, fed with spoiled packets (guest/tests/fuzz.c).

`make -C guest fuzz` goes on for longer.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

GUEST = Path(__file__).resolve().parents[2] / "guest"


@pytest.fixture(scope="module")
def fuzz() -> Path:
    subprocess.run(["make", "-s", "-C", str(GUEST), "build/fuzz"], check=True)
    return GUEST / "build" / "fuzz"


@pytest.mark.parametrize("seed", [4, 5, 6, 31, 32, 33])
def test_spoiled_packets_neither_break_nor_silence_a_guest(fuzz: Path, seed: int) -> None:
    """Seed 4 found that peers who die use up all connections, and lwIP's "insane offset!"; 5 and 6 found an event for a closed stream."""
    done = subprocess.run([str(fuzz), str(seed), "60000"], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-400:]
    assert done.stdout.startswith("60000 inputs, ")
