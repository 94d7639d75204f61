# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of one pod: its events, and its status at the API server.

Writing the status is a task beside the pod's own, so that a slow API server never keeps a pod from being stopped. What was overtaken
before it could be written is never sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet import pod_status
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.admission import Rejection
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.events import EventRecorder
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_state import Decision

LOG = logging.getLogger("unifleet.pods")
FAILURE_DELAY_CAP = 30.0
IMAGE_REASONS = ("ErrImagePull", "ErrImageNeverPull", "InvalidImageName")


def pull_events(reason: str, image: str, message: str) -> list[tuple[str, str, str]]:
    """What kubelet tells of an image that is not to be had: (type, reason, message); pkg/kubelet/images/image_manager.go."""
    said = {
        "ErrImagePull": [("Warning", "Failed", f'Failed to pull image "{image}": {message}')],
        "ErrImageNeverPull": [("Warning", "ErrImageNeverPull", message)],
        "InvalidImageName": [("Warning", "InspectFailed", f'Failed to apply default image tag "{image}": {message}')],
    }.get(reason, [])
    if said:
        said.append(("Warning", "Failed", f"Error: {reason}"))
    if reason == "ErrImagePull":
        said.append(("Normal", "BackOff", f'Back-off pulling image "{image}"'))
    return said


class PodReport:
    """Of one pod UID. api: a KubeApi. gone: called when the API server says that the pod is no more.

    frozen: the status is final already. closed: there is no pod to write to any more.
    """

    def __init__(self, pod: Pod, api: Any, events: EventRecorder, gone: Callable[[], None], frozen: bool) -> None:
        self._pod, self._api, self._events, self._gone = pod, api, events, gone
        self.frozen, self.closed = frozen, False
        self.wanted: Optional[dict[str, Any]] = None
        self.published: Optional[dict[str, Any]] = None
        self._to_publish = asyncio.Event()
        self._said: set[str] = set()

    def event(self, type_: str, reason: str, message: str, container: str = "") -> None:
        """Record an event of the pod, or of one container."""
        about = {"name": self._pod.name, "namespace": self._pod.namespace, "uid": self._pod.uid}
        self._events.pod(about, type_, reason, message, container)

    def once(self, type_: str, reason: str, message: str) -> None:
        """Record an event that would say the same each round, the first time only."""
        if self.first_time(message):
            self.event(type_, reason, message)

    def first_time(self, what: str) -> bool:
        """Whether this is asked for the first time."""
        new = what not in self._said
        self._said.add(what)
        return new

    def announce(self, pod: Pod, decision: Decision, rejected: Optional[Rejection], over: bool) -> None:
        """Events that follow from a decision rather than from an action. over: the pod has its final phase."""
        if rejected:
            self.once("Warning", rejected.reason, rejected.message)
        elif not over:
            for refusal in pod.refusals:
                self.once("Warning", "UnsupportedField", str(refusal))
        if decision.reason == "DeadlineExceeded":
            self.once("Normal", decision.reason, decision.message)
        for view in (*decision.init_views, *decision.views):
            if view.waiting == "CrashLoopBackOff" and self.first_time(f"{view.name} {view.restarts}"):
                self.event("Warning", "BackOff", "Back-off restarting failed container", view.name)

    def waiting_reason(self, container: str) -> str:
        """Why a container does not run yet, as its status says it."""
        said = [*((self.wanted or {}).get("containerStatuses") or []), *((self.wanted or {}).get("initContainerStatuses") or [])]
        states = [entry["state"] for entry in said if entry["name"] == container]
        return str((states[0].get("waiting") or {}).get("reason") if states else "") or "ContainerCreating"

    def conditions_before(self, theirs: list[dict[str, Any]]) -> Mapping[str, Any]:
        """The conditions to build on: our own from the last round, those of others (theirs) from the API server."""
        if self.wanted is None:
            return {"conditions": theirs}
        mine = self.wanted.get("conditions") or []
        return {"conditions": [*mine, *(c for c in theirs if c.get("type") not in pod_status.OWN_CONDITIONS)]}

    def propose(self, status: dict[str, Any]) -> None:
        """The status that is to be published; at once when it is another than the last."""
        if status != self.wanted:
            self.wanted = status
            self._to_publish.set()

    async def run(self, busy: Callable[[], bool]) -> None:
        """Bring the newest status to the API server, until cancelled. busy: every container is just being started."""
        failures = 0
        while True:
            await self._to_publish.wait()
            self._to_publish.clear()
            if self.published is None and busy():
                await asyncio.sleep(0.05)  # a machine that is up at once costs one write instead of two
            try:
                await self.write()
                failures = 0
            except ApiError as error:
                failures += 1
                LOG.warning("pod %s: status not written: %s", self._pod.title, error)
                await asyncio.sleep(min(0.5 * 2**failures, FAILURE_DELAY_CAP))
                self._to_publish.set()

    async def write(self) -> None:
        """Write the status now, unless it is written. Raises ApiError."""
        wanted = self.wanted
        if wanted is None or wanted == self.published or self.closed:
            return
        try:
            await self._api.patch(f"{self._pod.path}/status", {"metadata": {"uid": self._pod.uid}, "status": wanted}, kind="strategic")
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and "uid" in str(error).lower()):
                self._gone()
                return
            raise
        self.published = wanted
