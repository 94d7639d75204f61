# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All pods of this node: the watch that brings them, a worker for each UID, and the machines that nobody claims.

Order matters at the start. Machines are listed before the first pod is looked at, so that whatever runs is adopted, not started again. A
machine of a pod that the API server does not list is left alone until one complete list has come and a hold-off has passed (an API
server that was restored from an old backup must not cost the fleet its workloads at once), and then it is stopped gracefully.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Guest
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.admission import Rejection, Room, admit, room_of
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.events import EventRecorder
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_network import PodNetwork
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import from_machine
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Pod, parse_pod
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_state import FINAL_PHASES
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_worker import PodWorker, Shared
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import Consoles, ContainerRuntime, Images, LogSweeper
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.strays import Strays
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.volumes import TokenVolumes
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines, MachineState, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.pods")
NODE_REFRESH = 10.0


def default_guest(family: str) -> Guest:
    """The family registry of the guests room, imported when a VM first needs it."""
    from ansible_collections.unifleet.hybrid.plugins.host.guests.families import family as guest_of

    return guest_of(family)


class PodController:
    """Runs the pods of one node. consoles: a ConsoleLog (the caller closes it). events, network: of the node, or made here."""

    def __init__(  # noqa: PLR0917
        self,
        api: Any,
        node_name: str,
        node_ip: str,
        machines: Machines,
        images: Images,
        settings: PodSettings,
        *,
        consoles: Optional[Consoles] = None,
        guest_of: Callable[[str], Guest] = default_guest,
        events: Optional[EventRecorder] = None,
        network: Optional[PodNetwork] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.api = api
        self.node_name = node_name
        self.settings = settings
        self.clock = clock
        self.runtime = ContainerRuntime(machines, images, consoles, guest_of, settings)
        self.own_events = events is None
        self.events = events or EventRecorder(api, node_name, clock=clock)
        self.volumes = TokenVolumes(api, settings.token_directory, clock)
        self.network = network or PodNetwork()
        self.shared = Shared(api, node_ip, self.runtime, self.volumes, self.events, self.network, clock)
        self.workers: dict[str, PodWorker] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.uid_of_key: dict[str, str] = {}
        self.found: dict[str, dict[str, MachineState]] = {}
        self.room: Optional[Room] = None
        self.synced_at: Optional[float] = None
        self.log_sweeper = LogSweeper(settings.log_directory)
        self.strays = Strays(self.runtime, settings.hold_off, clock)

    async def run(self) -> None:
        """Until cancelled; machines are then left as they are."""
        loop = asyncio.get_running_loop()
        machines = self.runtime.machines

        def changed(key: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the agent is ending
                loop.call_soon_threadsafe(self.machine_changed, key)

        beside: list[asyncio.Task[None]] = []
        try:
            with machines.watch(changed):
                await self._find_machines()
                await self._refresh_node()
                beside = [asyncio.create_task(self._housekeeping()), asyncio.create_task(self._follow_node())]
                if self.own_events:
                    beside.append(asyncio.create_task(self.events.run()))
                await self._follow_pods()
        finally:
            for task in (*beside, *self.tasks.values()):
                task.cancel()
            await asyncio.gather(*beside, *self.tasks.values(), return_exceptions=True)
            self.runtime.close()

    def machine_changed(self, key: str) -> None:
        """In the event loop: the provider reports a change of this machine."""
        worker = self.workers.get(self.uid_of_key.get(key, ""))
        if worker:
            worker.poke()

    def find(self, namespace: str, name: str) -> Optional[PodWorker]:
        """The worker of a pod by name; of two (the old one still ending), the newer one."""
        found = [w for w in self.workers.values() if w.pod.namespace == namespace and w.pod.name == name]
        return max(found, key=lambda worker: (not worker.gone, worker.pod.created_at), default=None)

    def pods(self) -> list[dict[str, Any]]:
        """Every pod of this node as kubelet's /pods shows it: the API object with the status that is true here."""
        return [{**worker.raw, "status": {**worker.status, **(worker.report.wanted or {})}} for worker in self.workers.values()]

    # -- pods from the API server ------------------------------------------------------------------------------------------------

    async def _follow_pods(self) -> None:
        async for event in self.api.watch("/api/v1/pods", field_selector=f"spec.nodeName={self.node_name}"):
            if event.type == "SYNCED":
                self._synced(event.items or [])
            elif event.type == "DELETED":
                self._deleted(event.object)
            else:
                self._upsert(event.object)

    def _synced(self, items: Iterable[Mapping[str, Any]]) -> None:
        """The whole truth: what is not in it is gone. What runs already is admitted before what is new."""
        items = sorted(items, key=lambda raw: (raw["metadata"]["uid"] not in self.found, raw["metadata"].get("creationTimestamp") or ""))
        listed = {raw["metadata"]["uid"] for raw in items}
        for uid, worker in list(self.workers.items()):
            if uid not in listed and not worker.gone:
                worker.remove(None)
        machines = sum(len(found) for found in self.found.values())
        for raw in items:
            self._upsert(raw)
        if self.synced_at is None:
            self.synced_at = self.clock()
            self.strays.begin(self.synced_at)
            LOG.info("%d pods, %d machines found", len(items), machines)

    def _deleted(self, raw: Mapping[str, Any]) -> None:
        worker = self.workers.get(raw["metadata"]["uid"])
        if worker:
            grace = raw["metadata"].get("deletionGracePeriodSeconds")
            worker.remove(float(grace) if grace is not None else None)

    def _upsert(self, raw: Mapping[str, Any]) -> None:
        raw = {"apiVersion": "v1", "kind": "Pod", **raw}
        try:
            pod = parse_pod(raw, vm=self.runtime.vm, runtime_classes=self.settings.runtime_classes)
        except (UnifleetError, KeyError, TypeError, ValueError) as error:
            metadata = raw.get("metadata") or {}
            LOG.warning("pod %s/%s cannot be understood: %r", metadata.get("namespace"), metadata.get("name"), error)
            about = {key: str(metadata.get(key, "")) for key in ("name", "namespace", "uid")}
            self.events.pod(about, "Warning", "InvalidPod", f"this node cannot understand the pod: {error}")
            return
        worker = self.workers.get(pod.uid)
        if worker:
            worker.update(pod, raw)
            return
        machines = self.found.pop(pod.uid, {})
        worker = PodWorker(self.shared, pod, raw, machines)
        if not (machines or worker.final_phase or worker.runs or pod.deletion_grace is not None or pod.refusals):
            worker.rejected = self._admit(pod)
        self.workers[pod.uid] = worker
        for container in pod.every_container:
            self.uid_of_key[pod.key_of(container.name)] = pod.uid
        self.tasks[pod.uid] = asyncio.create_task(self._supervise(worker))

    def _admit(self, pod: Pod) -> Optional[Rejection]:
        others = [worker.pod for worker in self.workers.values() if worker.active]
        capacity = self.room
        if capacity is None:
            size = self.runtime.machines.capacity()
            capacity = Room(size.cpus * 1000, size.memory_bytes, size.pods)
        return admit(pod, others, capacity, shared_network=not self.runtime.vm)

    async def _supervise(self, worker: PodWorker) -> None:
        """A defect in our own code costs five seconds, not the pod."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                LOG.exception("pod %s: the worker failed and starts over", worker.pod.title)
                await asyncio.sleep(5)
                worker.stale = True
        uid = worker.pod.uid
        self.workers.pop(uid, None)
        self.tasks.pop(uid, None)
        for container in worker.pod.every_container:
            self.uid_of_key.pop(worker.pod.key_of(container.name), None)

    # -- machines ----------------------------------------------------------------------------------------------------------------

    async def _find_machines(self) -> None:
        """Every machine of a pod, by pod UID. Nothing begins before the provider has answered."""
        delay = 0.5
        while True:
            try:
                for state in await self._list():
                    self.found.setdefault(state.metadata["pod_uid"], {})[state.key] = state
            except (UnifleetError, OSError) as error:
                LOG.warning("cannot list machines: %s; trying again in %.0f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)
            else:
                return

    async def _list(self) -> list[MachineState]:
        return [s for s in await self.runtime.call(lambda: list(self.runtime.machines.list())) if s.metadata.get("pod_uid")]

    async def images_in_use(self) -> set[str]:
        """Digests of the images of every machine and of every container that ran, runs or is about to.

        Raises UnifleetError as long as the pods of this node are not known: one that waits to be restarted may have no machine.
        """
        if self.synced_at is None:
            raise UnifleetError("the pods of this node are not known yet", "see whether the API server answers")
        used = {state.metadata.get("image_digest", "") for state in await self._list()}
        for worker in self.workers.values():
            used |= worker.image_digests()
        return used | {state.metadata.get("image_digest", "") for machines in self.found.values() for state in machines.values()}

    async def _housekeeping(self) -> None:
        """Look at every machine now and then, whatever was reported, and at the unclaimed ones."""
        looked_at = self.clock()
        while True:
            await asyncio.sleep(1.0)
            if not (self.strays.due() or self.clock() - looked_at >= self.settings.resync):
                continue
            looked_at = self.clock()
            try:
                states = await self._list()
                self._compare(states)
                self.network.keep({*self.uid_of_key, *(state.key for state in states)})
                await self.strays.step(states, set(self.workers))
                if self.strays.armed():
                    claimed = set(self.workers) | {state.metadata["pod_uid"] for state in states}
                    self.volumes.sweep(claimed)
                    await self.runtime.call(self.log_sweeper.sweep, claimed, self.clock())
            except (UnifleetError, OSError) as error:
                LOG.warning("housekeeping: %s", error)

    def _compare(self, states: list[MachineState]) -> None:
        """Poke the workers whose idea of a machine is not what the provider says."""
        seen = {state.key: state for state in states}
        for worker in self.workers.values():
            for container in worker.pod.every_container:
                run = worker.runs.get(container.name)
                state = seen.get(worker.pod.key_of(container.name))
                known = run.phase if run and run.phase is not Phase.STOPPED else None
                real = state.phase if state and state.phase is not Phase.STOPPED else None
                if known != real:
                    worker.poke()

    # -- the node ----------------------------------------------------------------------------------------------------------------

    async def _follow_node(self) -> None:
        while True:
            await asyncio.sleep(NODE_REFRESH if self.room and (self.network.pool or not self.runtime.vm) else 1.0)
            await self._refresh_node()

    async def _refresh_node(self) -> None:
        """What the node publishes: how much room there is, and which addresses are its VMs'."""
        try:
            node = await self.api.get(f"/api/v1/nodes/{self.node_name}")
        except UnifleetError as error:
            LOG.debug("node %s: %s", self.node_name, error)
            return
        self.room = room_of(node) or self.room
        cidrs = node.get("spec", {}).get("podCIDRs") or [node.get("spec", {}).get("podCIDR")]
        if self.runtime.vm:
            self.network.see(next((c for c in cidrs if c and ipaddress.ip_network(c).version == 4), ""), self._addresses)

    def _addresses(self) -> dict[str, str]:
        """Machine key -> "address/length" of every machine with a network that was found or made here."""
        known = {key: from_machine(state).address for machines in self.found.values() for key, state in machines.items()}
        for worker in self.workers.values():
            for container in worker.pod.every_container:
                run = worker.runs.get(container.name)
                known[worker.pod.key_of(container.name)] = run.address if run else ""
        return {key: address for key, address in known.items() if address}


__all__ = ["FINAL_PHASES", "PodController"]
