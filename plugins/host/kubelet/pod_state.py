# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a pod as one pure function: what is known goes in, what to publish, to do and when to look again comes out.

Nothing here does anything. The worker observes, calls decide(), carries the actions out and calls again; so every moment at which an
agent can be killed is a moment between two calls, and a test can be at each of them. The rules are kubelet's (pkg/kubelet/kubelet_pods.go
getPhase, kuberuntime computePodActions); where an attempt stands is read off its machine, so no attempt is ever started twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import KUBELET, Curve
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Ended, Run
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Container, Pod
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, Phase

FINAL_PHASES = ("Succeeded", "Failed")


class Do(str, Enum):
    """What can be done to a container."""

    LAUNCH = "launch"
    """Pull, define and start a new attempt."""
    START = "start"
    """Start the machine that is defined already."""
    ASK = "ask"
    """Request that it stops."""
    KILL = "kill"
    DISCARD = "discard"
    """Remove a machine that was defined and never ran."""
    INTERRUPT = "interrupt"
    """Give a launch up, where it has not come to the machine yet."""


@dataclass(frozen=True)
class Action:
    """One thing to do. For LAUNCH: the attempt's number, the wait that will follow it, and the attempt before; for ASK and KILL: why."""

    do: Do
    container: str
    attempt: int = 0
    backoff: float = 0.0
    last: Optional[Ended] = None
    why: str = ""


@dataclass(frozen=True)
class Trouble:
    """The last launch failed. reason: a container waiting reason. delay: seconds from the failure to retry_at."""

    reason: str
    message: str
    retry_at: float
    delay: float
    tries: int = 1


@dataclass(frozen=True)
class Progress:
    """What only the running agent knows of a container; all of it may be forgotten without harm."""

    busy: bool = False
    trouble: Optional[Trouble] = None
    asked_at: Optional[float] = None
    deaf: bool = False


class Ending(str, Enum):
    """Why a whole pod has to end."""

    DELETED = "deleted"
    """Deletion was asked for, or the pod has gone from the API server."""
    DEADLINE = "deadline"
    """activeDeadlineSeconds are over."""


@dataclass(frozen=True)
class View:
    """One container as its status will show it. state: exactly one of waiting (reason, message), running, terminated."""

    name: str
    run: Optional[Run] = None
    waiting: str = ""
    message: str = ""
    terminated: Optional[Ended] = None
    last: Optional[Ended] = None

    @property
    def running(self) -> bool:
        """Whether the hypervisor or systemd says that it runs."""
        return not self.waiting and self.terminated is None

    @property
    def restarts(self) -> int:
        """The restart count."""
        return self.run.restarts if self.run else 0


@dataclass(frozen=True)
class Decision:
    """What follows. stopped: no machine runs and none is being made. wake_at: when to decide again at the latest, if ever."""

    phase: str
    reason: str = ""
    message: str = ""
    init_views: tuple[View, ...] = ()
    views: tuple[View, ...] = ()
    initialized: bool = True
    actions: tuple[Action, ...] = ()
    wake_at: Optional[float] = None
    stopped: bool = False


@dataclass(frozen=True)
class Situation:
    """All that decide() looks at. runs: by container name. grace: seconds between asking and killing, when the pod has to end."""

    pod: Pod
    runs: Mapping[str, Run] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    started_at: float = 0.0
    ending: Optional[Ending] = None
    grace: float = 30.0
    final_phase: str = ""
    curve: Curve = KUBELET

    def of(self, name: str) -> Progress:
        """A container's progress."""
        return self.progress.get(name) or Progress()


def decide(now: Situation, clock: float) -> Decision:
    """The one transition function; clock: seconds since the epoch."""
    pod = now.pod
    deadline = now.started_at + pod.active_deadline if pod.active_deadline is not None else None
    final = now.final_phase in FINAL_PHASES
    overdue = deadline is not None and clock >= deadline and not final and not _complete(now, deadline)
    if now.ending or overdue or final:
        return _wind_down(now, clock, Ending.DEADLINE if overdue and not now.ending else now.ending)
    if pod.refusals:
        views = tuple(_view(now, c, "UnsupportedField", "; ".join(map(str, pod.refusals))) for c in pod.containers)
        return Decision("Pending", views=views, initialized=not pod.init_containers, stopped=True)
    return _live(now, clock, deadline)


def _complete(now: Situation, deadline: float) -> bool:
    """Whether the pod had come to its end by itself before the deadline."""
    runs = [now.runs.get(c.name) for c in now.pod.containers]
    return all(run and run.exit and run.exit.finished_at < deadline and not _restarts(now.pod, run.exit.code) for run in runs)


def _restarts(pod: Pod, code: int, init: bool = False) -> bool:
    if pod.restart_policy == "Always":
        return not init or code != 0
    return pod.restart_policy == "OnFailure" and code != 0


def _live(now: Situation, clock: float, deadline: Optional[float]) -> Decision:
    pod = now.pod
    plan = _Plan(now, clock)
    plan.wake(deadline)
    begun = any(now.runs.get(c.name) for c in pod.containers)
    ready = True
    init_failed = False
    for container in pod.init_containers:
        run = now.runs.get(container.name)
        if begun or (run and run.exit and run.exit.code == 0):
            continue
        ready = False
        if run and run.exit and not _restarts(pod, run.exit.code, init=True):
            init_failed = True
        else:
            plan.advance(container)
        break
    if ready:
        for container in pod.containers:
            run = now.runs.get(container.name)
            if not (run and run.exit and not _restarts(pod, run.exit.code)):
                plan.advance(container)
    waiting = "ContainerCreating" if ready else "PodInitializing"
    views = tuple(_view(now, c, waiting, clock=clock) for c in pod.containers)
    init_views = tuple(_view(now, c, "PodInitializing", clock=clock, init=True) for c in pod.init_containers)
    phase = _phase(pod, views, ready, init_failed)
    return Decision(
        phase,
        init_views=init_views,
        views=views,
        initialized=ready,
        actions=tuple(plan.actions),
        wake_at=plan.wake_at,
        stopped=phase in FINAL_PHASES and not _alive(now),
    )


def _alive(now: Situation) -> bool:
    return any(p.busy for p in now.progress.values()) or any(r.phase is not Phase.STOPPED for r in now.runs.values())


def _phase(pod: Pod, views: tuple[View, ...], ready: bool, init_failed: bool) -> str:
    """getPhase of kubelet: a container that waits to be restarted counts as stopped, not as waiting."""
    if not ready:
        return "Failed" if init_failed else "Pending"
    if any(view.waiting and not view.last for view in views):
        return "Pending"
    if any(view.running for view in views):
        return "Running"
    ends = [view.terminated or view.last for view in views]
    codes = [end.exit.code for end in ends if end]
    if pod.restart_policy == "Always":
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if pod.restart_policy == "Never" else "Running"


@dataclass
class _Plan:
    """Collects actions and the earliest time at which something is due."""

    now: Situation
    clock: float
    actions: list[Action] = field(default_factory=list)
    wake_at: Optional[float] = None

    def wake(self, at: Optional[float]) -> None:
        if at is not None and at > self.clock:
            self.wake_at = at if self.wake_at is None else min(at, self.wake_at)

    def due(self, at: float) -> bool:
        self.wake(at)
        return at <= self.clock

    def advance(self, container: Container) -> None:
        """Bring a container that should run one step nearer to it."""
        now, name = self.now, container.name
        run, progress = now.runs.get(name), now.of(name)
        if progress.busy:
            return
        if progress.trouble and (run is None or run.phase is not Phase.RUNNING) and not self.due(progress.trouble.retry_at):
            return
        if run is None:
            self.actions.append(Action(Do.LAUNCH, name, 0, 0.0))
        elif run.phase is Phase.CREATED:
            self.actions.append(Action(Do.START, name, run.number))
        elif run.phase is Phase.RUNNING:
            if self.changed(run, container):
                self.stop(container, now.pod.grace_seconds, "the image in its definition has changed")
        elif self.due(restart_at(now.curve, run)):
            following = 0.0 if self.changed(run, container) else now.curve.after(_waited(now.curve, run))
            self.actions.append(Action(Do.LAUNCH, name, run.number + 1, following, run.ended))

    def changed(self, run: Run, container: Container) -> bool:
        """Whether the pod names another image by now (the one thing in a running container that the API lets people change)."""
        return self.now.pod.restart_policy == "Always" and bool(run.wanted_image) and run.wanted_image != container.image

    def stop(self, container: Container, grace: float, why: str) -> None:
        """Bring a container that should not run one step nearer to its end."""
        name = container.name
        run, progress = self.now.runs.get(name), self.now.of(name)
        if progress.busy:
            self.actions.append(Action(Do.INTERRUPT, name))
        elif run is None or run.phase is Phase.STOPPED:
            return
        elif run.phase is Phase.CREATED:
            self.actions.append(Action(Do.DISCARD, name))
        elif grace <= 0 or progress.deaf:
            self.actions.append(Action(Do.KILL, name, run.number, why=why))
        elif progress.asked_at is None:
            self.actions.append(Action(Do.ASK, name, run.number, why=why))
        elif self.due(progress.asked_at + grace):
            self.actions.append(Action(Do.KILL, name, run.number, why=why))


def _waited(curve: Curve, run: Run) -> float:
    return curve.wait(run.backoff, _duration(run))


def _duration(run: Run) -> float:
    if run.exit is None or run.started_at is None:
        return 0.0
    return max(0.0, run.exit.finished_at - run.started_at)


def restart_at(curve: Curve, run: Run) -> float:
    """When a stopped run's successor may start: seconds since the epoch."""
    finished = run.exit.finished_at if run.exit else 0.0
    return finished + _waited(curve, run)


def _view(now: Situation, container: Container, waiting: str, message: str = "", clock: float = 0.0, *, init: bool = False) -> View:
    """How a container shows. clock 0: the pod is ending, nothing will be restarted."""
    pod, name = now.pod, container.name
    run, progress = now.runs.get(name), now.of(name)
    trouble = progress.trouble
    if run is None or run.phase is Phase.CREATED:
        if trouble:
            waiting, message = _waiting_reason(trouble), _waiting_message(container, trouble)
        return View(name, run, waiting=waiting, message=message, last=run.last if run else None)
    if run.phase is Phase.RUNNING:
        return View(name, run, last=run.last)
    ended = run.ended or Ended(Exit(137, "ContainerStatusUnknown", clock), run.started_at, run.number)
    if clock and _restarts(pod, ended.exit.code, init):
        if trouble:
            return View(name, run, waiting=_waiting_reason(trouble), message=_waiting_message(container, trouble), last=ended)
        if restart_at(now.curve, run) > clock:
            seconds = int(_waited(now.curve, run))
            text = f"back-off {seconds}s restarting failed container={name} pod={pod.name}_{pod.namespace}({pod.uid})"
            return View(name, run, waiting="CrashLoopBackOff", message=text, last=ended)
    return View(name, run, terminated=ended, last=run.last)


def _waiting_reason(trouble: Trouble) -> str:
    return "ImagePullBackOff" if trouble.reason == "ErrImagePull" and trouble.tries > 1 else trouble.reason


def _waiting_message(container: Container, trouble: Trouble) -> str:
    if _waiting_reason(trouble) == "ImagePullBackOff":
        return f'Back-off pulling image "{container.image}": {trouble.reason}: {trouble.message}'
    return trouble.message


def _wind_down(now: Situation, clock: float, ending: Optional[Ending]) -> Decision:
    """Stop whatever runs. A final phase never changes; a deadline makes the phase Failed once all has stopped."""
    pod = now.pod
    plan = _Plan(now, clock)
    why = "the pod's activeDeadlineSeconds are over" if ending is Ending.DEADLINE else "the pod is being stopped"
    grace = now.grace if ending is Ending.DELETED else pod.grace_seconds
    for container in pod.every_container:
        plan.stop(container, grace, why)
    views = tuple(_view(now, c, "ContainerCreating") for c in pod.containers)
    init_views = tuple(_view(now, c, "PodInitializing") for c in pod.init_containers)
    begun = any(now.runs.get(c.name) for c in pod.containers)
    initialized = begun or all((run := now.runs.get(c.name)) and run.exit and run.exit.code == 0 for c in pod.init_containers)
    stopped = not _alive(now)
    reason = message = ""
    if now.final_phase in FINAL_PHASES:
        phase = now.final_phase
    elif ending is Ending.DEADLINE:
        phase = "Failed" if stopped else _phase(pod, views, initialized, False)
        reason, message = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline") if stopped else ("", "")
    elif stopped and begun and all(view.terminated for view in views):
        phase = "Succeeded" if all(view.terminated and view.terminated.exit.code == 0 for view in views) else "Failed"
    else:
        phase = _phase(pod, views, initialized, False)
    return Decision(phase, reason, message, init_views, views, initialized, tuple(plan.actions), plan.wake_at, stopped)
