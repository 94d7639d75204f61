# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pod state machine against a model world in which agents crash and hosts reboot at every moment there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.unifleet.hybrid.plugins.host.kubelet import pod_status
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import KUBELET
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Ended, Run, from_machine, from_status, to_metadata
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
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, MachineState, Phase
from tests.unit.kubelet_pods.pods import container, pod

START = 1_800_000_000.0


def life(status: dict[str, Any]) -> tuple[str, str]:
    """What a user sees first."""
    said = status["containerStatuses"][0]["state"]
    state = next(iter(said))
    return status["phase"], said[state].get("reason", state)


def sit(runs: dict[str, Run], progress: Optional[dict[str, Progress]] = None, **more: Any) -> Situation:
    now = {"started_at": START, **{key: more.pop(key) for key in ("ending", "grace", "final_phase", "started_at") if key in more}}
    return Situation(pod(**more), runs, progress or {}, **now)


def ended(number: int, code: int, at: float, ran: float = 1.0, backoff: float = 0.0) -> Run:
    exit_ = Exit(code, "Completed" if code == 0 else "Error", at)
    return Run(number, Phase.STOPPED, "registry.example/sensor:1", started_at=at - ran, exit=exit_, backoff=backoff)


RUNNING = Run(0, Phase.RUNNING, "registry.example/sensor:1", started_at=START)


def only(decision: Decision) -> Action:
    assert len(decision.actions) == 1
    return decision.actions[0]


def test_a_new_pod_is_launched_and_shows_as_being_created() -> None:
    decision = decide(sit({}), START)
    assert only(decision) == Action(Do.LAUNCH, "main", 0, 0.0)
    assert (decision.phase, decision.views[0].waiting) == ("Pending", "ContainerCreating")


def test_a_machine_that_was_defined_but_not_started_when_the_agent_died_is_started_not_made_again() -> None:
    assert only(decide(sit({"main": replace(RUNNING, phase=Phase.CREATED)}), START)).do is Do.START


def test_the_first_crash_is_restarted_at_once_and_the_second_after_ten_seconds() -> None:
    first = only(decide(sit({"main": ended(0, 1, START)}), START))
    assert (first.do, first.attempt, first.backoff) == (Do.LAUNCH, 1, 10.0)
    waiting = decide(sit({"main": ended(1, 1, START, backoff=first.backoff)}), START + 9.9)
    assert (waiting.actions, waiting.views[0].waiting, waiting.wake_at) == ((), "CrashLoopBackOff", START + 10)
    second = only(decide(sit({"main": ended(1, 1, START, backoff=first.backoff)}), START + 10))
    assert (second.attempt, second.backoff) == (2, 20.0)


def test_the_wait_never_exceeds_five_minutes_and_starts_over_after_a_good_run() -> None:
    capped = only(decide(sit({"main": ended(9, 1, START, backoff=300.0)}), START + 300))
    assert capped.backoff == 300.0
    recovered = only(decide(sit({"main": ended(9, 1, START, ran=601, backoff=300.0)}), START))
    assert recovered.backoff == 10.0


def test_on_failure_leaves_a_success_alone_and_never_leaves_everything_alone() -> None:
    for policy, code, phase in (("OnFailure", 0, "Succeeded"), ("Never", 0, "Succeeded"), ("Never", 7, "Failed")):
        decision = decide(sit({"main": ended(0, code, START)}, restartPolicy=policy), START)
        assert (decision.actions, decision.phase) == ((), phase)


def test_an_unsupported_field_keeps_the_pod_pending_and_starts_nothing() -> None:
    decision = decide(sit({}, hostPID=True), START)
    assert (decision.phase, decision.actions, decision.views[0].waiting) == ("Pending", (), "UnsupportedField")
    assert "spec.hostPID" in decision.views[0].message


def test_init_containers_run_one_after_the_other_before_the_rest() -> None:
    spec: dict[str, Any] = {"initContainers": [container("one"), container("two")], "restartPolicy": "Never"}
    assert only(decide(sit({}, **spec), START)).container == "one"
    assert decide(sit({"one": RUNNING}, **spec), START).actions == ()
    assert only(decide(sit({"one": ended(0, 0, START)}, **spec), START)).container == "two"
    both = {"one": ended(0, 0, START), "two": ended(0, 0, START)}
    assert only(decide(sit(both, **spec), START)).container == "main"
    failed = decide(sit({"one": ended(0, 1, START)}, **spec), START)
    assert (failed.phase, failed.actions) == ("Failed", ())


def test_deletion_asks_then_kills_when_the_grace_is_over() -> None:
    asked = decide(sit({"main": RUNNING}, ending=Ending.DELETED, grace=5.0), START)
    assert only(asked).do is Do.ASK
    waiting = decide(sit({"main": RUNNING}, {"main": Progress(asked_at=START)}, ending=Ending.DELETED, grace=5.0), START + 4)
    assert (waiting.actions, waiting.wake_at, waiting.stopped) == ((), START + 5, False)
    late = decide(sit({"main": RUNNING}, {"main": Progress(asked_at=START)}, ending=Ending.DELETED, grace=5.0), START + 5)
    assert only(late).do is Do.KILL


def test_a_deaf_guest_and_a_forced_deletion_are_killed_at_once() -> None:
    deaf = decide(sit({"main": RUNNING}, {"main": Progress(asked_at=START, deaf=True)}, ending=Ending.DELETED, grace=500.0), START)
    forced = decide(sit({"main": RUNNING}, ending=Ending.DELETED, grace=0.0), START)
    assert only(deaf).do is only(forced).do is Do.KILL


def test_a_deadline_stops_the_pod_and_makes_it_failed_once_it_has_stopped() -> None:
    spec: dict[str, Any] = {"activeDeadlineSeconds": 60, "restartPolicy": "Never"}
    assert decide(sit({"main": RUNNING}, **spec), START + 59).wake_at == START + 60
    overdue = decide(sit({"main": RUNNING}, **spec), START + 60)
    assert (only(overdue).do, overdue.phase) == (Do.ASK, "Running")
    over = decide(sit({"main": ended(0, 0, START + 61)}, **spec), START + 62)
    assert (over.phase, over.reason) == ("Failed", "DeadlineExceeded")
    in_time = decide(sit({"main": ended(0, 0, START + 30)}, **spec), START + 62)
    assert (in_time.phase, in_time.reason) == ("Succeeded", "")


def test_a_pull_that_failed_is_shown_and_tried_again_when_it_is_time() -> None:
    trouble = {"main": Progress(trouble=Trouble("ErrImagePull", "no route", START + 10, 10.0))}
    shown = decide(sit({}, trouble), START + 1)
    assert (shown.actions, shown.views[0].waiting, shown.wake_at) == ((), "ErrImagePull", START + 10)
    assert only(decide(sit({}, trouble), START + 10)).do is Do.LAUNCH
    again = {"main": Progress(trouble=Trouble("ErrImagePull", "no route", START + 30, 20.0, 2))}
    assert decide(sit({}, again), START + 11).views[0].waiting == "ImagePullBackOff"


def test_a_machine_that_a_reboot_wiped_out_counts_as_lost_and_is_restarted_with_the_next_count() -> None:
    said = pod_status.build(
        pod(), decide(sit({"main": replace(RUNNING, number=3)}), START), {}, START, started_at=START, host_ip="", pod_ip=""
    )
    runs = from_status(said, START + 100)
    assert runs["main"].exit
    assert runs["main"].exit.reason == "ContainerStatusUnknown"
    assert only(decide(sit(runs), START + 100)).attempt == 4


def restarting() -> Run:
    """A second attempt as its machine shows it between its definition and its start."""
    return Run(1, Phase.CREATED, "registry.example/sensor:1", backoff=10.0, last=Ended(Exit(1, "Error", START), START - 5, 0))


def publish(decision: Decision) -> dict[str, Any]:
    return pod_status.build(pod(), decision, {}, START, started_at=START, host_ip="", pod_ip="")


def test_a_restart_counts_when_it_runs_and_not_when_its_machine_is_only_defined() -> None:
    for run, count in ((restarting(), 0), (replace(restarting(), phase=Phase.RUNNING, started_at=START), 1)):
        said = publish(decide(sit({"main": run}), START))["containerStatuses"][0]
        assert said["restartCount"] == count
        assert said["lastState"]["terminated"]["exitCode"] == 1


def test_a_reboot_between_definition_and_start_repeats_that_attempt_and_forgets_no_count() -> None:
    runs = from_status(publish(decide(sit({"main": restarting()}), START)), START + 60)
    assert runs["main"].ended == restarting().last
    again = only(decide(sit(runs), START + 60))
    assert (again.do, again.attempt, again.last) == (Do.LAUNCH, 1, restarting().last)


def test_a_pod_deleted_between_definition_and_start_of_a_restart_shows_how_it_ended_before() -> None:
    left = restarting().lost(START + 1)
    assert left
    said = publish(decide(sit({"main": left}, ending=Ending.DELETED), START + 1))
    assert said["phase"] == "Failed"
    assert said["containerStatuses"][0]["restartCount"] == 0
    assert said["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


def test_a_first_attempt_that_never_ran_leaves_nothing() -> None:
    assert replace(RUNNING, phase=Phase.CREATED).lost(START) is None


def test_a_new_image_in_the_definition_replaces_the_running_container() -> None:
    old = replace(RUNNING, wanted_image="registry.example/sensor:0")
    assert only(decide(sit({"main": old}), START)).do is Do.ASK
    stopped = replace(ended(0, 0, START), wanted_image="registry.example/sensor:0")
    assert only(decide(sit({"main": stopped}), START)).attempt == 1


def restart_counts(status: dict[str, Any]) -> dict[str, int]:
    return {c["name"]: c["restartCount"] for kind in ("initContainerStatuses", "containerStatuses") for c in status.get(kind, [])}


class World(RuleBasedStateMachine):
    """A host, an API server and an agent; the agent forgets everything whenever a rule says so.

    machines: what the host keeps. published: what the API server has. wanted, runs, progress, begun, final_phase: what the agent remembers.
    counts: the restart counts that may not be gone back on: the agent's own word while it lives, and after it what host or API server keep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = START
        self.machines: dict[str, MachineState] = {}
        self.starts: dict[tuple[str, int], int] = {}
        self.counts: dict[str, int] = {}
        self.published: dict[str, Any] = {}
        self.wanted: dict[str, Any] = {}
        self.final_phase = ""
        self.begun: dict[str, Action] = {}
        self.progress: dict[str, Progress] = {}
        self.runs: dict[str, Run] = {}
        self.deleted = False
        self.rounds = 0
        self.last: Optional[Decision] = None

    @initialize(
        policy=st.sampled_from(["Always", "OnFailure", "Never"]),
        names=st.sampled_from([("main",), ("main", "side")]),
        init=st.booleans(),
        deadline=st.sampled_from([None, 50, 5000]),
    )
    def create(self, policy: str, names: tuple[str, ...], init: bool, deadline: Optional[int]) -> None:
        spec: dict[str, Any] = {"restartPolicy": policy, "containers": [container(name) for name in names]}
        if init:
            spec["initContainers"] = [container("first")]
        if deadline:
            spec["activeDeadlineSeconds"] = deadline
        self.pod = pod(**spec)
        self.names = [c.name for c in self.pod.every_container]

    def observe(self) -> None:
        for name in self.names:
            state, before = self.machines.get(name), self.runs.pop(name, None)
            run = from_machine(state) if state else before and before.lost(self.clock)
            if run:
                self.runs[name] = run

    def situation(self) -> Situation:
        return Situation(
            self.pod,
            dict(self.runs),
            dict(self.progress),
            started_at=START,
            ending=Ending.DELETED if self.deleted else None,
            grace=5.0,
            final_phase=self.final_phase,
        )

    @rule(reachable=st.sampled_from([True, True, False]))
    def step(self, reachable: bool = True) -> None:
        """One round of the worker: observe, decide, begin the actions, publish (if the API server can be reached)."""
        self.rounds += 1
        self.observe()
        decision = decide(self.situation(), self.clock)
        for action in decision.actions:
            if action.do is Do.INTERRUPT:
                continue
            assert action.container not in self.begun, "an action on a container that is busy"
            changes: dict[str, Any] = {"busy": True, **({"asked_at": self.clock} if action.do is Do.ASK else {})}
            self.progress[action.container] = replace(self.progress.get(action.container) or Progress(), **changes)
            self.begun[action.container] = action
        before = self.wanted
        self.wanted = pod_status.build(self.pod, decision, before, self.clock, started_at=START, host_ip="1.2.3.4", pod_ip="1.2.3.4")
        self.check_transitions(before, self.wanted)
        if decision.phase in FINAL_PHASES and not self.deleted:
            self.final_phase = decision.phase
        if reachable:
            self.published = self.wanted
        self.last = decision

    def forget(self) -> None:
        """The agent is gone: the next one knows what the API server and the machines tell."""
        self.begun, self.progress = {}, {}
        self.wanted = self.published
        self.runs = from_status(self.published, self.clock)
        phase = self.published.get("phase", "")
        self.final_phase = phase if phase in FINAL_PHASES else ""
        kept = {name: count for name, count in self.counts.items() if name in self.machines}
        self.counts = {**restart_counts(self.published), **kept}

    def check_transitions(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        old = {c["type"]: c for c in before.get("conditions", [])}
        for condition in after["conditions"]:
            known = old.get(condition["type"])
            if known and known["status"] == condition["status"]:
                assert known["lastTransitionTime"] == condition["lastTransitionTime"]
        if before.get("phase") in FINAL_PHASES:
            assert after["phase"] == before["phase"]
        for name, count in restart_counts(after).items():
            assert count >= self.counts.get(name, 0), f"the restart count of {name} went down"
            self.counts[name] = count

    def machine(self, name: str, run: Run, phase: Phase) -> None:
        started = self.clock if phase is Phase.RUNNING else None
        self.machines[name] = MachineState(self.pod.key_of(name), phase, to_metadata(self.pod, name, run), started)

    def carry_out(self, action: Action, stages: int) -> None:
        """The first stages of an action really happen."""
        name = action.container
        if action.do is Do.LAUNCH and stages >= 1:
            present = self.machines.get(name)
            assert present is None or present.phase is not Phase.RUNNING, "prepare() over a running machine"
            run = Run(action.attempt, Phase.CREATED, wanted_image="registry.example/sensor:1", backoff=action.backoff, last=action.last)
            self.machine(name, run, Phase.CREATED)
        if action.do in (Do.LAUNCH, Do.START) and stages >= 2:
            run = from_machine(self.machines[name])
            assert run.phase is Phase.CREATED, "start() of a machine that was started before"
            self.starts[name, run.number] = self.starts.get((name, run.number), 0) + 1
            self.machine(name, run, Phase.RUNNING)
        if action.do is Do.KILL and stages >= 1:
            self.exit(name, 137)
        if action.do is Do.DISCARD and stages >= 1:
            self.machines.pop(name, None)

    def exit(self, name: str, code: int) -> None:
        state = self.machines.get(name)
        if state and state.phase is Phase.RUNNING:
            said = Exit(code, "Completed" if code == 0 else "Error", self.clock)
            self.machines[name] = replace(state, phase=Phase.STOPPED, exit=said)

    @precondition(lambda self: self.begun)
    @rule(pick=st.randoms(use_true_random=False), works=st.sampled_from([True, True, True, False]))
    def finish(self, pick: Any, works: bool) -> None:
        name = pick.choice(sorted(self.begun))
        action = self.begun.pop(name)
        present = self.machines.get(name)
        if action.do is Do.START and (present is None or present.phase is not Phase.CREATED):
            works = False
        changes: dict[str, Any] = {"busy": False}
        if works:
            self.carry_out(action, 2)
            changes["trouble"] = None
        elif action.do is Do.LAUNCH:
            changes["trouble"] = Trouble("ErrImagePull", "no", self.clock + 10, 10.0)
        self.progress[name] = replace(self.progress[name], **changes)

    @rule(pick=st.randoms(use_true_random=False), code=st.sampled_from([0, 1, 137]))
    def a_machine_ends(self, pick: Any, code: int) -> None:
        self.exit(pick.choice(self.names), code)

    @rule(seconds=st.sampled_from([0.5, 9.0, 11.0, 100.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds

    @rule(stages=st.integers(0, 2))
    def the_agent_is_killed(self, stages: int) -> None:
        """What was under way got so far and no further; nothing is remembered but machines and the published status."""
        for action in self.begun.values():
            present = self.machines.get(action.container)
            if action.do is not Do.START or (present and present.phase is Phase.CREATED):
                self.carry_out(action, stages)
        self.forget()

    @precondition(lambda self: self.rounds % 5 == 0)
    @rule(kept=st.booleans())
    def the_host_reboots(self, kept: bool) -> None:
        """A hypervisor's disk keeps what machines were, systemd's transient units are in memory."""
        if kept:
            for name in self.machines:
                self.exit(name, 137)
        else:
            self.machines, self.starts = {}, {}
        self.forget()

    @rule(code=st.sampled_from([None, 0, 1]), wait=st.sampled_from([0.0, 11.0, 700.0]))
    def all_goes_well_for_a_while(self, code: Optional[int], wait: float) -> None:
        """A round whose actions succeed, then time and perhaps an end: the common case, so that long lives are lived too."""
        self.step()
        for name, action in sorted(self.begun.items()):
            present = self.machines.get(name)
            if action.do is not Do.START or (present and present.phase is Phase.CREATED):
                self.carry_out(action, 2)
            self.progress[name] = replace(self.progress[name], busy=False, trouble=None)
        self.begun = {}
        self.clock += wait
        for name in self.names if code is not None else ():
            self.exit(name, code or 0)

    @precondition(lambda self: self.rounds > 25)
    @rule()
    def the_pod_is_deleted(self) -> None:
        self.deleted = True

    @invariant()
    def no_attempt_was_started_twice(self) -> None:
        assert all(times == 1 for times in self.starts.values())

    @invariant()
    def stopped_means_that_nothing_runs(self) -> None:
        """As long as nothing has happened since."""
        if self.last and self.last.stopped and self.deleted and not self.begun:
            fresh = decide(self.situation(), self.clock)
            if fresh.stopped:
                assert all(run.phase is Phase.STOPPED for run in self.runs.values())

    def teardown(self) -> None:
        """Whatever happened, a deletion comes to its end."""
        if not hasattr(self, "pod"):
            return
        self.deleted = True
        for _number in range(20):
            self.step()
            if self.last and self.last.stopped and not self.begun:
                break
            for name, action in list(self.begun.items()):
                present = self.machines.get(name)
                if action.do is not Do.START or (present and present.phase is Phase.CREATED):
                    self.carry_out(action, 2)
                self.progress[name] = replace(self.progress[name], busy=False)
                self.begun.pop(name)
            self.clock += 6
        assert self.last
        assert self.last.stopped


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
assert KUBELET.cap == 300
