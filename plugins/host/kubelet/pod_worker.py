# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pod's task: observe, decide, act, publish, wait; for as long as the pod lasts.

The latest spec always wins, because every round begins with whatever spec there is. Nothing is given up: what fails is tried again
on a capped back-off. Slow things (a pull, a status write) are tasks beside the round, so that a pod can always be stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.kubelet import pod_dns, pod_status, pull_secrets
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.admission import Rejection
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.events import EventRecorder
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.logs import termination_message
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_network import PodNetwork
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Run, from_machine, from_status
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_report import FAILURE_DELAY_CAP, IMAGE_REASONS, PodReport, pull_events
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Container, Pod, parse_time
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_state import (
    FINAL_PHASES,
    Action,
    Decision,
    Do,
    Ending,
    Progress,
    Situation,
    Trouble,
    decide,
)
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import ContainerRuntime, StepError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.volumes import TokenVolumes, VolumeError
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import MachineState, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.pods")


@dataclass
class Shared:
    """What all pods of a node share. api: a KubeApi."""

    api: Any
    node_ip: str
    runtime: ContainerRuntime
    volumes: TokenVolumes
    events: EventRecorder
    network: PodNetwork
    clock: Callable[[], float] = time.time


@dataclass
class Launch:
    """A launch under way; it can be given up until it comes to the machine. digest: of its image, once that is here."""

    task: asyncio.Task[None]
    interruptible: bool = True
    digest: str = ""


@dataclass
class PodWorker:
    """The task of one pod UID. raw: the pod as the API server last said it. machines: what was found of this pod when the agent started."""

    shared: Shared
    pod: Pod
    raw: Mapping[str, Any]
    machines: Mapping[str, MachineState] = field(default_factory=dict)
    rejected: Optional[Rejection] = None

    def __post_init__(self) -> None:
        now = self.shared.clock()
        self.status: Mapping[str, Any] = self.raw.get("status") or {}
        self.gone = False
        self.runs: dict[str, Run] = from_status(self.status, now)
        self.progress: dict[str, Progress] = {}
        self.launches: dict[str, Launch] = {}
        self.jobs: set[asyncio.Task[Any]] = set()
        self.stale = True
        self.final_phase = self.status.get("phase", "") if self.status.get("phase") in FINAL_PHASES else ""
        self.final: Optional[Decision] = None
        gone = functools.partial(self.remove, None)
        self.report = PodReport(self.pod, self.shared.api, self.shared.events, gone, frozen=bool(self.final_phase))
        started = self.status.get("startTime")
        self.started_at = parse_time(started) if started else now
        self.ended_grace: Optional[float] = None
        self.pull_troubles: dict[str, int] = {}
        self._poked = asyncio.Event()
        self._read_to_the_end: dict[str, int] = {}

    @property
    def active(self) -> bool:
        """Whether the pod counts against the node's room."""
        return not (self.final_phase or self.rejected) or any(run.phase is not Phase.STOPPED for run in self.runs.values())

    def image_digests(self) -> set[str]:
        """Of the images that this pod's containers have, had last, or are about to have."""
        return {run.digest for run in self.runs.values()} | {launch.digest for launch in self.launches.values()}

    def update(self, pod: Pod, raw: Mapping[str, Any]) -> None:
        """The API server has a new version of the pod."""
        self.raw, self.status = raw, raw.get("status") or {}
        if pod != self.pod or self.pod.readiness_gates:
            self.pod = pod
            self._poked.set()

    def poke(self) -> None:
        """A machine of this pod may have changed."""
        self.stale = True
        self._poked.set()

    def remove(self, grace: Optional[float]) -> None:
        """The pod has gone from the API server; grace: seconds that its machines still get, None for the pod's own."""
        self.gone = self.report.closed = True
        self.ended_grace = self.pod.grace_seconds if grace is None else grace
        self._poked.set()

    async def run(self) -> None:
        """Until the pod is gone and nothing of it is left here. Cancelled, it leaves every machine as it is."""
        publisher = asyncio.create_task(self.report.run(self._busy))
        failures = 0
        try:
            while True:
                self._poked.clear()
                wait: Optional[float] = None
                try:
                    decision = await self._round()
                    if decision is None:
                        return
                    wait = self._wait(decision)
                    failures = 0
                except (UnifleetError, OSError) as error:
                    failures += 1
                    wait = min(2.0**failures / 2, FAILURE_DELAY_CAP)
                    LOG.warning("pod %s: %s; trying again in %.0f s", self.pod.title, error, wait)
                    self.stale = True
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._poked.wait(), wait)
        finally:
            for task in (publisher, *(launch.task for launch in self.launches.values()), *self.jobs):
                task.cancel()

    async def _round(self) -> Optional[Decision]:
        now = self.shared.clock()
        await self._renew_tokens(now)
        while self.stale:  # what changes while it is looked at is looked at again: decide() never sees an old machine
            await self._observe(now)
        situation = self._situation()
        decision = decide(situation, now)
        if self.final:
            decision = replace(decision, reason=self.final.reason, message=self.final.message)
        elif decision.phase in FINAL_PHASES and not situation.ending and not self.rejected:
            self.final, self.final_phase = decision, decision.phase
        self.report.announce(self.pod, decision, self.rejected, over=bool(self.final_phase))
        for action in decision.actions:
            self._act(action)
        if not self.gone:
            self._publish(decision, now)
        if decision.stopped and situation.ending is Ending.DELETED and not self.jobs:
            await self._finish()
            return None
        return decision

    def _situation(self) -> Situation:
        deleted = self.pod.deletion_grace is not None
        grace = self.ended_grace if self.ended_grace is not None else self.pod.deletion_grace
        return Situation(
            self.pod,
            self.runs,
            self.progress,
            started_at=self.started_at,
            ending=Ending.DELETED if deleted or self.gone else None,
            grace=float(grace if grace is not None else self.pod.grace_seconds),
            final_phase="Failed" if self.rejected else self.final_phase,
            curve=self.shared.runtime.settings.curve,
        )

    def _busy(self) -> bool:
        return bool(self.progress) and all(progress.busy for progress in self.progress.values())

    def _wait(self, decision: Decision) -> Optional[float]:
        due = [at for at in (decision.wake_at, self.shared.volumes.renew_at.get(self.pod.uid)) if at is not None]
        return max(0.0, min(due) - self.shared.clock()) + 0.001 if due else None

    async def _observe(self, now: float) -> None:
        """Ask the provider about every container that has (or had) a machine."""
        self.stale = False
        for container in self.pod.every_container:
            key = self.pod.key_of(container.name)
            found, self.machines = self.machines.get(key), {k: s for k, s in self.machines.items() if k != key}
            state = found or await self.shared.runtime.call(self.shared.runtime.machines.state, key)
            before = self.runs.get(container.name)
            run = from_machine(state) if state is not None else before and before.lost(now)
            if run is None:
                self.runs.pop(container.name, None)
                continue
            await self._follow_log(container, run)
            self.runs[container.name] = self._with_message(container, before, run)
            if run.phase is Phase.STOPPED:
                self._set(container.name, asked_at=None, deaf=False)
            if run.address:
                self.shared.network.reserve(key, run.address)

    async def _follow_log(self, container: Container, run: Run) -> None:
        """Translate what the run writes; of one that has stopped (or was lost, as after a power cut), once to its end."""
        runtime = self.shared.runtime
        written = run.phase is not Phase.STOPPED or runtime.logs.raw(self.pod, container.name, run.number).is_dir()
        if not written or self._read_to_the_end.get(container.name) == run.number:
            return
        await runtime.call(runtime.attach_log, self.pod, container.name, run.number)
        if run.phase is Phase.STOPPED:
            await runtime.call(runtime.detach_log, self.pod.key_of(container.name))
            self._read_to_the_end[container.name] = run.number

    def _with_message(self, container: Container, before: Optional[Run], run: Run) -> Run:
        """terminationMessagePolicy FallbackToLogsOnError: the end of the log says why."""
        if run.exit is None or run.exit.code == 0 or run.exit.message or not container.message_from_logs:
            return run
        if before is not None and before.number == run.number and before.exit is not None:
            return replace(run, exit=replace(run.exit, message=before.exit.message))
        text = termination_message(self.shared.runtime.logs.log(self.pod, container.name, run.number))
        return replace(run, exit=replace(run.exit, message=text))

    def _set(self, name: str, **changes: Any) -> None:
        self.progress[name] = replace(self.progress.get(name) or Progress(), **changes)

    # -- acting ----------------------------------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        name = action.container
        if action.do is Do.INTERRUPT:
            launch = self.launches.get(name)
            if launch and launch.interruptible:
                launch.task.cancel()
            return
        container = next(c for c in self.pod.every_container if c.name == name)
        key = self.pod.key_of(name)
        if action.do in (Do.LAUNCH, Do.START):
            self._set(name, busy=True)
            work = self._launch(container, action) if action.do is Do.LAUNCH else self._start(container, key)
            task = asyncio.create_task(self._guard(container, work))
            self.launches[name] = Launch(task, interruptible=action.do is Do.LAUNCH)
            task.add_done_callback(lambda _: self._launched(name))
            return
        if action.do is Do.ASK:
            self._set(name, asked_at=self.shared.clock(), busy=True)
            self.report.event("Normal", "Killing", f"Stopping container {name}: {action.why}", name)
        else:
            self._set(name, busy=True)
        task = asyncio.create_task(self._stop(action, name, key))
        self.jobs.add(task)
        task.add_done_callback(lambda _: self._stopped(task, name))

    async def _stop(self, action: Action, name: str, key: str) -> None:
        runtime = self.shared.runtime
        try:
            if action.do is Do.ASK:
                if not await runtime.call(runtime.machines.request_stop, key):
                    self._set(name, deaf=True)
            elif action.do is Do.KILL:
                if self.progress[name].asked_at is None:
                    self.report.event("Normal", "Killing", f"Stopping container {name}: {action.why}", name)
                await runtime.call(runtime.machines.kill, key)
                state = await runtime.call(runtime.machines.state, key)
                if state is not None and state.phase is Phase.RUNNING:
                    await asyncio.sleep(0.5)  # it takes its time to die; the next round looks again
            else:
                await runtime.call(runtime.machines.remove, key)
        except (UnifleetError, OSError) as error:
            LOG.warning("pod %s: cannot %s container %s: %s", self.pod.title, action.do.value, name, error)
            self.report.event("Warning", "FailedKillPod", f"error killing container {name}: {error}", name)
            if action.do is Do.ASK:
                self._set(name, asked_at=self.shared.clock())
            await asyncio.sleep(1.0)

    def _stopped(self, task: asyncio.Task[Any], name: str) -> None:
        self.jobs.discard(task)
        self._set(name, busy=False)
        self.poke()

    async def _guard(self, container: Container, work: Any) -> None:
        """Turn the way a launch ends into progress."""
        name = container.name
        try:
            await work
        except asyncio.CancelledError:
            pass
        except StepError as error:
            self._failed(container, error.reason, str(error))
        except VolumeError as error:
            self.report.event("Warning", "FailedMount", f"MountVolume.SetUp failed for {error}")
            self._failed(container, "ContainerCreating", str(error))
        except (UnifleetError, OSError) as error:
            self._failed(container, "CreateContainerError", str(error))
        except Exception as error:
            LOG.exception("pod %s: launching container %s", self.pod.title, name)
            self._failed(container, "CreateContainerError", f"{type(error).__name__}: {error}")
        else:
            self._set(name, trouble=None)

    def _launched(self, name: str) -> None:
        self.launches.pop(name, None)
        self._set(name, busy=False)
        self.poke()

    def _failed(self, container: Container, reason: str, message: str) -> None:
        old = self.progress[container.name].trouble
        delay = self.shared.runtime.settings.retry.after(old.delay if old else 0.0)
        tries = old.tries + 1 if old and old.reason == reason else 1
        self._set(container.name, trouble=Trouble(reason, message, self.shared.clock() + delay, delay, tries))
        for type_, told, text in pull_events(reason, container.image, message):
            self.report.event(type_, told, text, container.name)
        if reason not in {"ContainerCreating", *IMAGE_REASONS}:
            self.report.event("Warning", "Failed", f"Error: {message}", container.name)

    async def _launch(self, container: Container, action: Action) -> None:
        pod, runtime, name = self.pod, self.shared.runtime, container.name
        key = pod.key_of(name)
        bootable = await self._image(container)
        mounts = await self._mounts(container)
        interface = await self.shared.network.interface(key) if runtime.vm and bootable.network else None
        run = Run(
            action.attempt,
            Phase.CREATED,
            wanted_image=container.image,
            image=bootable.image.reference,
            digest=bootable.image.digest,
            family=bootable.family,
            address=interface.address if interface else "",
            backoff=action.backoff,
            last=action.last,
        )
        servers = await self._name_servers() if interface else ()
        spec = runtime.machine_spec(pod, container, bootable, run, mounts=mounts, interface=interface, nameservers=servers)
        self.launches[name].interruptible = False
        await runtime.call(runtime.logs.forget_before, pod, name, action.attempt)
        await runtime.call(runtime.machines.prepare, spec)
        self.report.event("Normal", "Created", f"Created container {name}", name)
        await self._start(container, key)

    async def _image(self, container: Container) -> Bootable:
        """The container's image, pulled where its policy asks for that; told as kubelet tells it (pkg/kubelet/images/image_manager.go)."""
        runtime, image, name = self.shared.runtime, container.image, container.name
        bootable = await runtime.find(image) if container.pull_policy != "Always" else None
        text = f'Container image "{image}" already present on machine'
        if bootable is None and container.pull_policy == "Never":
            raise StepError("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
        if bootable is None:
            self.report.event("Normal", "Pulling", f'Pulling image "{image}"', name)
            begun = self.shared.clock()
            bootable = await runtime.pull(image, container.pull_policy, await self._credentials())
            took = f"{max(0.0, self.shared.clock() - begun):.3f}s"
            text = f'Successfully pulled image "{image}" in {took}. Image size: {bootable.image.size} bytes.'
        self.launches[name].digest = bootable.image.digest
        self.report.event("Normal", "Pulled", f"{text} (running {bootable.why or bootable.family})", name)
        return bootable

    async def _start(self, container: Container, key: str) -> None:
        runtime = self.shared.runtime
        try:
            await runtime.call(runtime.machines.start, key)
        except (UnifleetError, OSError) as error:
            raise StepError("RunContainerError", str(error)) from error
        self.report.event("Normal", "Started", f"Started container {container.name}", container.name)

    async def _mounts(self, container: Container) -> Any:
        if not container.token_volumes:
            return ()
        if self.shared.runtime.vm:
            self.report.once("Warning", "TokenNotMounted", "the service account token is not given to virtual machines yet")
            return ()
        await self.shared.volumes.ensure(self.pod)
        return self.shared.volumes.mounts(self.pod, container)

    async def _name_servers(self) -> tuple[str, ...]:
        host = await self.shared.runtime.call(pod_dns.host_servers)
        chosen = pod_dns.choose(self.pod.dns_policy, self.pod.name_servers, self.shared.runtime.settings.cluster_dns, host)
        if chosen.trouble:
            self.report.once("Warning", "MissingClusterDNS" if "cluster DNS" in chosen.trouble else "DNSConfigForming", chosen.trouble)
        return chosen.addresses

    def _address(self) -> str:
        """The pod's address: the one of its first container that has one."""
        runs = [self.runs[container.name] for container in (*self.pod.containers, *self.pod.init_containers) if container.name in self.runs]
        return next((run.address.partition("/")[0] for run in runs if run.address), "")

    async def _credentials(self) -> tuple[RegistryCredentials, ...]:
        """The logins of all imagePullSecrets, in order; the image store takes those that fit and tries them in turn, as kubelet does."""
        known: list[RegistryCredentials] = []
        for name in self.pod.pull_secrets:
            try:
                known += pull_secrets.logins(await self.shared.api.get(f"/api/v1/namespaces/{self.pod.namespace}/secrets/{name}"))
            except UnifleetError as error:
                self.report.once(
                    "Warning", "FailedToRetrieveImagePullSecret", f"imagePullSecret {name}: {error}; the pull goes on without it"
                )
        return tuple(known)

    async def _renew_tokens(self, now: float) -> None:
        if self.shared.runtime.vm or self.gone or not self.pod.token_volumes:
            return
        running = any(run.phase is Phase.RUNNING for run in self.runs.values())
        unknown = 0.0 if self.report.first_time("tokens") and running else float("inf")
        due = self.shared.volumes.renew_at.get(self.pod.uid, unknown)
        if due <= now:
            try:
                await self.shared.volumes.ensure(self.pod)
            except VolumeError as error:
                self.shared.volumes.renew_at[self.pod.uid] = now + 30
                self.report.event("Warning", "FailedMount", f"renewing {error}")

    # -- telling ---------------------------------------------------------------------------------------------------------------

    def _publish(self, decision: Decision, now: float) -> None:
        if self.report.frozen:
            return
        if self.rejected:
            wanted = pod_status.rejection(self.rejected.reason, self.rejected.message, self.started_at, self.shared.node_ip)
        else:
            wanted = pod_status.build(
                self.pod,
                decision,
                self.report.conditions_before(self.status.get("conditions") or []),
                now,
                started_at=self.started_at,
                host_ip=self.shared.node_ip,
                pod_ip=self._address() if self.shared.runtime.vm else self.shared.node_ip,
            )
        self.report.propose(wanted)

    # -- ending ----------------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Everything has stopped: the last status, then what is left here, then the API object. Logs go later, they may be being read."""
        if not self.gone:
            await self.report.write()
        runtime = self.shared.runtime
        for container in self.pod.every_container:
            key = self.pod.key_of(container.name)
            await runtime.call(runtime.detach_log, key)
            await runtime.call(runtime.machines.remove, key)
            self.shared.network.release(key)
        self.shared.volumes.remove(self.pod.uid)
        if not self.gone:
            await self.shared.api.delete(self.pod.path, uid=self.pod.uid, grace_seconds=0)
