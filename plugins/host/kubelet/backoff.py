# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long to wait before trying again: kubelet's curve, as pure arithmetic.

Two users. A container that ended is restarted at once the first time, then after 10 s, 20 s, ... 300 s; a run longer than
10 minutes starts the curve over (kubernetes pkg/kubelet/kuberuntime doBackOff and client-go util/flowcontrol/backoff.go). A step
that failed (a pull, a definition) is tried again on the same curve, for ever: nothing is ever given up.

The wait that follows an attempt is written into that attempt's machine, so an agent that was killed keeps its place on the curve.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """initial, cap: seconds of the first wait and of the longest. reset_after: seconds of a run that count as recovered."""

    initial: float = 10.0
    cap: float = 300.0
    reset_after: float = 600.0

    def after(self, previous: float) -> float:
        """The wait that follows a wait of previous seconds; 0 means that there was none yet."""
        return self.initial if previous <= 0 else min(previous * 2, self.cap)

    def wait(self, assigned: float, ran_for: float) -> float:
        """Seconds to wait after an attempt that was assigned this wait at its start and then ran for so long."""
        return 0.0 if ran_for >= self.reset_after else assigned


KUBELET = Curve()
RETRY = Curve(reset_after=float("inf"))
