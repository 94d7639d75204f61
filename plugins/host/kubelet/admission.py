# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a pod fits on this node: the second look that kubelet takes after the scheduler's (pkg/kubelet/lifecycle/predicate.go).

The scheduler can be wrong (a race, a pod with spec.nodeName set by hand); what does not fit is turned away with kubelet's reasons
rather than squeezed in. Processes share the node's network, so their ports are claims on the node that can clash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod, quantity


@dataclass(frozen=True)
class Room:
    """What the node has for pods: thousandths of a core, bytes, number of pods."""

    cpu_millis: int
    memory_bytes: int
    pods: int


@dataclass(frozen=True)
class Rejection:
    """Why a pod is turned away; becomes status.reason and status.message."""

    reason: str
    message: str


def room_of(node: Mapping[str, Any]) -> Optional[Room]:
    """A Node object's allocatable, or None while the node says nothing about it."""
    said = (node.get("status") or {}).get("allocatable") or {}
    if not {"cpu", "memory", "pods"} <= set(said):
        return None
    return Room(int(quantity(said["cpu"]) * 1000), int(quantity(said["memory"])), int(quantity(said["pods"])))


def admit(pod: Pod, others: Iterable[Pod], room: Room, *, shared_network: bool) -> Optional[Rejection]:
    """None when the pod fits beside the others (all that have not ended yet)."""
    others = list(others)
    if len(others) + 1 > room.pods:
        return Rejection("OutOfpods", f"Node didn't have enough resource: pods, requested: 1, used: {len(others)}, capacity: {room.pods}")
    cpu = sum(other.cpu_request for other in others)
    if pod.cpu_request and cpu + pod.cpu_request > room.cpu_millis:
        return _out_of("cpu", pod.cpu_request, cpu, room.cpu_millis)
    memory = sum(other.memory_request for other in others)
    if pod.memory_request and memory + pod.memory_request > room.memory_bytes:
        return _out_of("memory", pod.memory_request, memory, room.memory_bytes)
    return _clash(pod, others) if shared_network else None


def _out_of(what: str, requested: int, used: int, capacity: int) -> Rejection:
    return Rejection(
        f"OutOf{what}", f"Node didn't have enough resource: {what}, requested: {requested}, used: {used}, capacity: {capacity}"
    )


def _clash(pod: Pod, others: Iterable[Pod]) -> Optional[Rejection]:
    taken = {port: other for other in others for container in other.containers for port in container.ports}
    mine: dict[tuple[str, int], str] = {}
    for container in pod.containers:
        for protocol, number in container.ports:
            port = (protocol, number)
            if port in taken:
                return Rejection("HostPortConflict", f"needs port {number}/{protocol} of the node, which pod {taken[port].title} has")
            if mine.setdefault(port, container.name) != container.name:
                return Rejection("HostPortConflict", f"needs port {number}/{protocol} of the node for two of its containers")
    return None
