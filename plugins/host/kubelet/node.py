# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node object's whole life: made or adopted, kept true, made again when somebody deletes it. What others put on it stays.

One task holds the Node: it wakes for a watch event, for changed labels, for a turn in the provider's health and for the clock,
compares what is with what should be, and writes the difference, metadata (a merge patch on the Node) and status (a strategic merge
patch on its status) apart. Failing to write is never fatal; the next wake-up tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.daemon.together import run_together
from ansible_collections.unifleet.hybrid.plugins.host.kube.client import ApiError, KubeApi, Object
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import PROVIDER_TAINT, Config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.health import ProviderHealth
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import LabelSourcesError, NodeLabels
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.lease import NodeLease
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import (
    Health,
    HostFacts,
    Readings,
    conditions,
    node_status,
    pod_cidr,
    status_differs,
    status_patch,
    take_readings,
)
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import (
    AGENT_LABELS,
    INVENTORY_TAINTS,
    plan_labels,
    read_owned,
    write_owned,
)

log = logging.getLogger("unifleet.node")

NODES = "/api/v1/nodes"
_SICK_REPORT_SECONDS = 15.0

Tell = Callable[[str, str, str], None]
"""tell(type, reason, message): an event about this node."""


class NodeController:
    """Keeps one Node. registered is set once it exists; pod_cidr is its pod network, "" while it has none.

    port: where the HTTPS server listens. tell: how events about the node are emitted. network: how the pod network does, None
    while that is unknown. images: what status.images shows.
    """

    def __init__(
        self,
        api: KubeApi,
        config: Config,
        facts: HostFacts,
        machines: Machines,
        labels: NodeLabels,
        *,
        port: int = 0,
        tell: Optional[Tell] = None,
        readings: Optional[Callable[[], Readings]] = None,
        network: Callable[[], Optional[Health]] = lambda: None,
        images: Callable[[], Sequence[Object]] = lambda: (),
    ) -> None:
        self._api = api
        self._config = config
        self._facts = facts
        self._labels = labels
        self._port = port
        self._tell: Tell = tell or (lambda _type, _reason, _message: None)
        self._readings = readings or (lambda: take_readings(config.state_directory))
        self._network = network
        self._images = images
        self._node: Optional[Object] = None
        self._seen = False
        self._untainted = False
        self._reported_at = 0.0
        self._wake = asyncio.Event()
        self.registered = asyncio.Event()
        self.pod_cidr = ""
        timing = config.timing
        self.provider = ProviderHealth(machines, timing.lease_renew, timing.health_timeout, self._wake.set)
        self.lease = NodeLease(api, config.node_name, timing, self._uid, lambda: self.provider.health.good)

    def poke(self) -> None:
        """What the status tells of may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Hold the node until cancelled."""
        await self.provider.ask()
        await run_together([self.provider.run(), self._watch(), self._hold(), self._poll_labels(), self._lease_when_registered()])

    def reload_labels(self) -> None:
        """Take over the label sources as they are now; bad ones are told of and leave the labels alone."""
        try:
            changed = self._labels.reload()
        except UnifleetError as error:
            log.error("the labels stay as they are: %s", error)  # noqa: TRY400
            for line in error.lines if isinstance(error, LabelSourcesError) else (str(error),):
                self._tell("Warning", "InvalidNodeLabels", f"the labels stay as they are: {line}")
            return
        if changed:
            log.info("the labels are now %s", ", ".join(f"{key}={value}" for key, value in sorted(self._labels.wanted.items())))
            self._wake.set()

    def _uid(self) -> str:
        return str(self._node["metadata"]["uid"]) if self._node else ""

    async def _lease_when_registered(self) -> None:
        await self.registered.wait()
        await self.lease.run()

    async def _poll_labels(self) -> None:
        while True:
            await asyncio.sleep(self._config.timing.labels_poll)
            if self._labels.changed_on_disk():
                self.reload_labels()

    async def _watch(self) -> None:
        async for event in self._api.watch(NODES, field_selector=f"metadata.name={self._config.node_name}"):
            if event.type == "SYNCED":
                self._see(event.items[0] if event.items else None)
            elif event.type == "DELETED":
                log.warning("the node was deleted; it is made again")
                self._see(None)
            else:
                self._see(event.object)

    def _see(self, node: Optional[Object]) -> None:
        self._seen = True
        self._node = node
        if node is not None:
            self.pod_cidr = pod_cidr(node) or ""
        self._wake.set()

    async def _hold(self) -> None:
        backoff = Backoff(base=0.5, ceiling=self._config.timing.status_check)
        delay = self._config.timing.status_check
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout=delay)
            self._wake.clear()
            if not self._seen:
                continue
            try:
                await self._reconcile()
                backoff.reset()
                delay = self._config.timing.status_check
            except ApiError as error:
                delay = backoff.next_delay()
                log.warning("the node is not up to date: %s; next try in %.1f s", error, delay)
                if error.status in (404, 409):
                    # Our picture of the node is old and the watch may be slow to say so.
                    self._node = await self._look()

    async def _look(self) -> Optional[Object]:
        try:
            return await self._api.get(f"{NODES}/{self._config.node_name}")
        except ApiError as error:
            return None if error.status == 404 else self._node

    async def _reconcile(self) -> None:
        """Bring the Node to what it should be. Raises ApiError."""
        if self._node is None:
            await self._create()
        else:
            self._look_at_taints(self._node)
            await self._write_metadata(self._node)
        if self._node is not None:
            await self._write_status(self._node)
        self.registered.set()

    async def _create(self) -> None:
        status = self._status({})
        labels = dict(self._labels.wanted)
        annotations = {AGENT_LABELS: write_owned(labels)}
        extra = [taint.identity for taint in self._config.taints if taint != PROVIDER_TAINT]
        if extra:
            # A node may not change its taints later; the module node_labels may, and has to know which came from the inventory.
            annotations[INVENTORY_TAINTS] = write_owned(extra)
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._config.node_name, "labels": labels, "annotations": annotations},
            "spec": {"taints": [taint.to_api() for taint in self._config.taints]},
            "status": status,
        }
        self._node = await self._api.create(NODES, body)
        self._reported_at = time.monotonic()
        log.info("registered node %s with labels %s", self._config.node_name, ", ".join(f"{k}={v}" for k, v in sorted(labels.items())))
        self._tell("Normal", "RegisteredNode", f"Node {self._config.node_name} registered itself")

    def _look_at_taints(self, node: Object) -> None:
        """Tell once of a Node that pods without a toleration land on: a node may not change its taints (NodeRestriction)."""
        found = {(taint.get("key"), taint.get("effect")) for taint in (node.get("spec") or {}).get("taints") or ()}
        missing = (PROVIDER_TAINT.key, PROVIDER_TAINT.effect) not in found
        if missing and not self._untainted:
            message = (
                f"the taint {PROVIDER_TAINT} is missing, and a node may not add it to itself; ordinary pods will land here and not run"
            )
            log.warning("%s", message)
            self._tell("Warning", "ProviderTaintMissing", message)
        self._untainted = missing

    async def _write_metadata(self, node: Object) -> None:
        metadata = node["metadata"]
        annotations = metadata.get("annotations") or {}
        plan = plan_labels(metadata.get("labels") or {}, read_owned(annotations, AGENT_LABELS), self._labels.wanted)
        body: dict[str, Any] = {}
        if plan.patch:
            body["labels"] = dict(plan.patch)
        if annotations.get(AGENT_LABELS) != write_owned(plan.owned):
            body["annotations"] = {AGENT_LABELS: write_owned(plan.owned)}
        if body:
            self._node = await self._api.patch(f"{NODES}/{self._config.node_name}", {"metadata": body}, kind="merge")
            for key, value in plan.patch.items():
                log.info("label %s %s", key, "removed" if value is None else f"set to {value!r}")

    async def _write_status(self, node: Object) -> None:
        theirs = node.get("status") or {}
        mine = self._status(theirs)
        since = time.monotonic() - self._reported_at
        # While the provider is sick the lease rests, and only a repeated status keeps its reason from turning into "Unknown".
        often = self._config.timing.status_report if self.provider.health.good else _SICK_REPORT_SECONDS
        if since < often and not status_differs(mine, theirs):
            return
        self._node = await self._api.patch(f"{NODES}/{self._config.node_name}/status", status_patch(mine), kind="strategic")
        self._reported_at = time.monotonic()

    def _status(self, theirs: Object) -> Object:
        readings = self._readings()
        return node_status(
            self._facts,
            self.provider.capacity,
            readings,
            reserve=self._config.reserve,
            conditions=conditions(
                theirs.get("conditions") or (), self.provider.health, readings, self._config.pressure, time.time(), network=self._network()
            ),
            port=self._port,
            node_name=self._config.node_name,
            images=self._images(),
        )
