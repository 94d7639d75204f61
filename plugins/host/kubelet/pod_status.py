# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A decision as the status that the API server gets: pure translation into core/v1 PodStatus.

The result is the body of a strategic merge patch on pods/NAME/status. Conditions that others own (PodScheduled, readiness gates) are
not in it and so survive; a transition time moves only when the condition's status does; a field that must go is there as null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Ended
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod, format_time
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_state import FINAL_PHASES, Decision, View

OWN_CONDITIONS = ("Initialized", "Ready", "ContainersReady")
NEVER = "1970-01-01T00:00:00Z"


def build(
    pod: Pod,
    decision: Decision,
    before: Mapping[str, Any],
    clock: float,
    *,
    started_at: float,
    host_ip: str,
    pod_ip: str,
) -> dict[str, Any]:
    """The status to publish. before: the status that the API server has (or was last sent); clock: seconds since the epoch."""
    images = {container.name: container.image for container in pod.every_container}
    final = decision.phase in FINAL_PHASES
    statuses = [_container(pod, view, images[view.name]) for view in decision.views]
    unready = [view.name for view in decision.views if not view.running]
    uninitialized = [view.name for view in decision.init_views if not (view.terminated and view.terminated.exit.code == 0)]
    gates = {said.get("type"): said.get("status") for said in before.get("conditions") or []}
    closed = [gate for gate in pod.readiness_gates if gates.get(gate) != "True"]
    if final:
        done = (decision.phase == "Succeeded", "PodCompleted" if decision.phase == "Succeeded" else "PodFailed", "")
        initialized = (
            ("True", "PodCompleted", "") if done[0] else _named("ContainersNotInitialized", "incomplete", _unless(decision, uninitialized))
        )
        containers_ready = ready = ("False", done[1], "")
    else:
        initialized = _named("ContainersNotInitialized", "incomplete", _unless(decision, uninitialized))
        containers_ready = ready = _named("ContainersNotReady", "unready", unready)
        if not unready and closed:
            ready = (
                "False",
                "ReadinessGatesNotReady",
                "; ".join(f'corresponding condition of pod readiness gate "{g}" is not True' for g in closed),
            )
    conditions = {"Initialized": initialized, "Ready": ready, "ContainersReady": containers_ready}
    status: dict[str, Any] = {
        "phase": decision.phase,
        "reason": decision.reason or None,
        "message": decision.message or None,
        "hostIP": host_ip,
        "startTime": format_time(started_at),
        "conditions": [_condition(kind, said, before, clock) for kind, said in conditions.items()],
        "containerStatuses": statuses,
    }
    if decision.init_views:
        status["initContainerStatuses"] = [_container(pod, view, images[view.name], init=True) for view in decision.init_views]
    if pod_ip:
        status["podIP"] = pod_ip
        status["podIPs"] = [{"ip": pod_ip}]
    return status


def rejection(reason: str, message: str, started_at: float, host_ip: str) -> dict[str, Any]:
    """The status of a pod that this node turned away (OutOfcpu, HostPortConflict, ...), as kubelet's rejectPod writes it."""
    return {"phase": "Failed", "reason": reason, "message": f"Pod {message}", "hostIP": host_ip, "startTime": format_time(started_at)}


def _unless(decision: Decision, uninitialized: list[str]) -> list[str]:
    return [] if decision.initialized else uninitialized or ["?"]


def _named(reason: str, adjective: str, names: Iterable[str]) -> tuple[str, str, str]:
    listed = " ".join(names)
    return ("False", reason, f"containers with {adjective} status: [{listed}]") if listed else ("True", "", "")


def _condition(kind: str, said: tuple[str, str, str], before: Mapping[str, Any], clock: float) -> dict[str, Any]:
    status, reason, message = said
    known: Optional[Mapping[str, Any]] = next((c for c in before.get("conditions") or [] if c.get("type") == kind), None)
    same = known is not None and known.get("status") == status and known.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "reason": reason or None,
        "message": message or None,
        "lastTransitionTime": known["lastTransitionTime"] if known and same else format_time(clock),
        "lastProbeTime": None,
    }


def _container(pod: Pod, view: View, image: str, init: bool = False) -> dict[str, Any]:
    run = view.run
    container_id = f"unifleet://{pod.key_of(view.name)}"
    done = view.terminated is not None and view.terminated.exit.code == 0
    return {
        "name": view.name,
        "image": (run.image if run and run.image else image),
        "imageID": image_id(run.image, run.digest) if run else "",
        "containerID": container_id if run and (run.started_at is not None or run.exit or run.last) else "",
        "ready": done if init else view.running,
        "started": view.running,
        "restartCount": view.restarts,
        "state": _state(view, container_id),
        "lastState": {"terminated": _terminated(view.last, container_id)} if view.last else {},
    }


def image_id(image: str, digest: str) -> str:
    """REPOSITORY@DIGEST, as containerd reports it."""
    if not digest:
        return ""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _state(view: View, container_id: str) -> dict[str, Any]:
    if view.waiting:
        return {"waiting": {"reason": view.waiting, **({"message": view.message} if view.message else {})}}
    if view.terminated:
        return {"terminated": _terminated(view.terminated, container_id)}
    started = view.run.started_at if view.run else None
    return {"running": {"startedAt": format_time(started or 0)}}


def _terminated(ended: Ended, container_id: str) -> dict[str, Any]:
    said = ended.exit
    return {
        "exitCode": said.code,
        "reason": said.reason,
        **({"message": said.message} if said.message else {}),
        "startedAt": format_time(ended.started_at) if ended.started_at else None,
        "finishedAt": format_time(said.finished_at) if said.finished_at else NEVER,
        "containerID": container_id,
    }
