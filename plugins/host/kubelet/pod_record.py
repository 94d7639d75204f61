# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of one container's runs, and how it is kept where an agent that was killed finds it again.

A Run is one attempt at a container. Its lasting copy is the metadata of its machine, which the hypervisor or systemd keeps; the API
server's status is only the second best source, for machines that a reboot has wiped out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod, parse_time
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, MachineState, Phase

LOST_REASON = "ContainerStatusUnknown"
LOST_MESSAGE = "the container's machine is gone and nobody saw it end (was the host restarted?)"


@dataclass(frozen=True)
class Ended:
    """How an attempt ended. started_at is None when it never ran."""

    exit: Exit
    started_at: Optional[float] = None
    attempt: int = 0


@dataclass(frozen=True)
class Run:
    """One attempt. number counts from 0; backoff: seconds to wait after its end; last: the attempt before.

    wanted_image: the image that the pod's spec named when this attempt was made; image and digest: what it came to.
    """

    number: int
    phase: Phase
    wanted_image: str = ""
    image: str = ""
    digest: str = ""
    family: str = ""
    address: str = ""
    backoff: float = 0.0
    started_at: Optional[float] = None
    exit: Optional[Exit] = None
    last: Optional[Ended] = None

    @property
    def ended(self) -> Optional[Ended]:
        """This attempt as the previous one of the next."""
        return Ended(self.exit, self.started_at, self.number) if self.exit else None

    @property
    def restarts(self) -> int:
        """The restart count: attempts before this one; an attempt that is only defined has restarted nothing yet.

        So the count that is published never has to be taken back when that machine goes before it ran (a reboot, a deletion).
        """
        return max(0, self.number - 1) if self.phase is Phase.CREATED else self.number

    def lost(self, now: float) -> Optional[Run]:
        """What is left of this run after its machine has gone: as it ended, or with an end that nobody saw.

        One that never ran leaves the attempt before it, with the wait that was meant to follow; of a first one nothing is left.
        """
        if self.phase is Phase.STOPPED:
            return self
        if self.phase is Phase.CREATED:
            if self.last is None:
                return None
            started_at, exit_ = self.last.started_at, self.last.exit
            return replace(self, number=self.restarts, phase=Phase.STOPPED, started_at=started_at, exit=exit_, last=None)
        return replace(self, phase=Phase.STOPPED, exit=Exit(137, LOST_REASON, now, LOST_MESSAGE))


def to_metadata(pod: Pod, container: str, run: Run) -> dict[str, str]:
    """What the machine is told to remember; all strings."""
    last = run.last
    return {
        "pod_uid": pod.uid,
        "namespace": pod.namespace,
        "name": pod.name,
        "container": container,
        "attempt": str(run.number),
        "family": run.family,
        "address": run.address,
        "wanted_image": run.wanted_image,
        "image": run.image,
        "image_digest": run.digest,
        "backoff": repr(run.backoff),
        "grace_seconds": str(pod.grace_seconds),
        "last": json.dumps(
            [last.attempt, last.started_at, last.exit.code, last.exit.reason, last.exit.finished_at, last.exit.message[:512]]
        )
        if last
        else "",
    }


def from_machine(state: MachineState) -> Run:
    """The run that a machine is. Tolerates what an older agent did not write."""
    said = state.metadata
    last: Optional[Ended] = None
    if said.get("last"):
        attempt, started_at, code, reason, finished_at, message = json.loads(said["last"])
        last = Ended(Exit(code, reason, finished_at, message), started_at, attempt)
    return Run(
        number=int(said.get("attempt") or 0),
        phase=state.phase,
        wanted_image=said.get("wanted_image", ""),
        image=said.get("image", ""),
        digest=said.get("image_digest", ""),
        family=said.get("family", ""),
        address=said.get("address", ""),
        backoff=float(said.get("backoff") or 0),
        started_at=state.started_at,
        exit=state.exit if state.phase is Phase.STOPPED else None,
        last=last,
    )


def from_status(status: Mapping[str, Any], now: float) -> dict[str, Run]:
    """The runs that a published pod status tells of, by container, for machines that are no longer there."""
    runs: dict[str, Run] = {}
    for said in _containers(status):
        state, last = said.get("state") or {}, (said.get("lastState") or {}).get("terminated")
        number = int(said.get("restartCount") or 0)
        if not said.get("containerID"):
            continue
        run = Run(
            number, Phase.RUNNING, image=said.get("image", ""), digest=_digest(said.get("imageID", "")), last=_ended(last, number - 1)
        )
        if "terminated" in state:
            ended = _ended(state["terminated"], number)
            run = replace(run, phase=Phase.STOPPED, exit=ended.exit if ended else None, started_at=ended.started_at if ended else None)
        elif "running" in state:
            run = replace(run, started_at=_seconds(state["running"].get("startedAt")))
        elif last:
            ended = _ended(last, number)
            run = replace(
                run, phase=Phase.STOPPED, last=None, exit=ended.exit if ended else None, started_at=ended.started_at if ended else None
            )
        left = run.lost(now)
        if left:
            runs[said["name"]] = left
    return runs


def _containers(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _ended(said: Optional[Mapping[str, Any]], attempt: int) -> Optional[Ended]:
    if not said:
        return None
    finished = _seconds(said.get("finishedAt")) or 0.0
    return Ended(
        Exit(int(said.get("exitCode") or 0), said.get("reason") or "Error", finished, said.get("message") or ""),
        _seconds(said.get("startedAt")),
        max(attempt, 0),
    )


def _seconds(text: Optional[str]) -> Optional[float]:
    return parse_time(text) if text else None


def _digest(image_id: str) -> str:
    return image_id.partition("@")[2] or image_id
