# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every sentence of the machines contract, on every kind of machine that this host has."""

from __future__ import annotations

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from bench import Bench, has_stopped, is_running, wait_for

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Exit, Machines, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.contract


def end_of(machines: Machines, key: str) -> Exit:
    wait_for("the machine to stop", lambda: has_stopped(machines, key))
    state = machines.state(key)
    assert state is not None
    assert state.exit is not None
    return state.exit


def run(bench: Bench, machines: Machines, workload: object) -> str:
    spec = bench.spec(workload)  # type: ignore[arg-type]
    machines.prepare(spec)
    machines.start(spec.key)
    ready = workload.ready  # type: ignore[attr-defined]
    if ready:
        wait_for("the workload to say that it is ready", lambda: ready in bench.console(machines, spec.key))
    return spec.key


def test_the_host_says_what_it_has(machines: Machines) -> None:
    capacity = machines.capacity()
    assert capacity.cpus >= 1
    assert capacity.memory_bytes > 1 << 28
    assert capacity.pods > 0
    assert all(isinstance(sentence, str) and sentence for sentence in machines.limitations())


def test_a_machine_that_was_never_made_is_not_there_and_that_is_no_error(bench: Bench, machines: Machines) -> None:
    key = str(uuid.uuid4())
    assert machines.state(key) is None
    machines.kill(key)
    machines.remove(key)
    machines.request_stop(key)
    with pytest.raises(UnifleetError):
        machines.start(key)


def test_a_prepared_machine_is_created_and_does_not_run(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.runs())
    machines.prepare(spec)
    state = machines.state(spec.key)
    assert state is not None
    assert (state.phase, state.exit, state.started_at) == (Phase.CREATED, None, None)
    assert bench.console(machines, spec.key) == b""


def test_metadata_comes_back_whatever_is_in_it(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.runs())
    machines.prepare(spec)
    for phase in (Phase.CREATED, Phase.RUNNING, Phase.STOPPED):
        if phase is Phase.RUNNING:
            machines.start(spec.key)
        if phase is Phase.STOPPED:
            machines.kill(spec.key)
            end_of(machines, spec.key)
        state = bench.open().state(spec.key)
        assert state is not None
        assert (state.phase, dict(state.metadata)) == (phase, dict(spec.metadata))


def test_a_workload_that_ends_well_is_completed(bench: Bench, machines: Machines) -> None:
    before = time.time()
    end = end_of(machines, run(bench, machines, bench.exits_well()))
    assert (end.code, end.reason) == (0, "Completed")
    assert before - 2 <= end.finished_at <= time.time() + 2


def test_a_workload_that_fails_says_its_code(bench: Bench, machines: Machines) -> None:
    workload = bench.fails()
    end = end_of(machines, run(bench, machines, workload))
    assert (end.code, end.reason) == (workload.code, "Error")


def test_a_workload_that_cannot_start_is_a_start_error(bench: Bench, machines: Machines) -> None:
    end = end_of(machines, run(bench, machines, bench.is_broken()))
    assert (end.code, end.reason) == (128, "StartError")
    assert end.message


def test_a_running_machine_knows_since_when(bench: Bench, machines: Machines) -> None:
    before = time.time()
    state = machines.state(run(bench, machines, bench.runs()))
    assert state is not None
    assert state.phase is Phase.RUNNING
    assert state.started_at is not None
    assert before - 2 <= state.started_at <= time.time() + 2


def test_a_workload_that_is_asked_to_stop_does_so_in_its_own_way(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.runs())
    assert machines.request_stop(key) is True
    end = end_of(machines, key)
    assert (end.code, end.reason) == (0, "Completed")


def test_a_deaf_workload_goes_on_until_it_is_killed(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.is_deaf())
    assert machines.request_stop(key) is (bench.kind == "process")
    time.sleep(0.5)
    assert is_running(machines, key)
    machines.kill(key)
    assert end_of(machines, key).code == 137


def test_killing_twice_and_after_the_end_is_no_error(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.runs())
    machines.kill(key)
    machines.kill(key)
    assert end_of(machines, key).code == 137
    machines.kill(key)
    machines.request_stop(key)
    assert end_of(machines, key).code == 137


def test_preparing_twice_replaces_and_preparing_over_a_running_machine_is_refused(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.runs())
    machines.prepare(spec)
    machines.prepare(spec)
    machines.start(spec.key)
    with pytest.raises(UnifleetError, match="running"):
        machines.prepare(spec)
    assert is_running(machines, spec.key)


def test_a_running_or_stopped_machine_cannot_be_started_again(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.runs())
    with pytest.raises(UnifleetError):
        machines.start(key)
    machines.kill(key)
    end_of(machines, key)
    with pytest.raises(UnifleetError):
        machines.start(key)


def test_a_stopped_machine_is_replaced_and_runs_anew_with_an_empty_console(bench: Bench, machines: Machines) -> None:
    first = bench.spec(bench.fails())
    machines.prepare(first)
    machines.start(first.key)
    end_of(machines, first.key)
    again = bench.spec(bench.exits_well(), key=first.key)
    machines.prepare(again)
    assert bench.console(machines, first.key) == b""
    state = machines.state(first.key)
    assert state is not None
    assert (state.phase, state.exit) == (Phase.CREATED, None)
    machines.start(first.key)
    assert end_of(machines, first.key).code == 0


def test_removing_is_final_and_may_be_done_twice_in_every_phase(bench: Bench, machines: Machines) -> None:
    created = bench.spec(bench.runs())
    machines.prepare(created)
    running = run(bench, machines, bench.runs())
    stopped = run(bench, machines, bench.exits_well())
    end_of(machines, stopped)
    for key in (created.key, running, stopped):
        machines.remove(key)
        machines.remove(key)
        assert machines.state(key) is None
    assert not {created.key, running, stopped} & {state.key for state in machines.list()}


def test_logs_stay_when_the_machine_is_removed(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.runs())
    machines.remove(key)
    assert bench.runs().ready in bench.console(machines, key)


def test_the_console_is_complete(bench: Bench, machines: Machines) -> None:
    key = run(bench, machines, bench.talks(300))
    end_of(machines, key)
    lines = [line for line in bench.console(machines, key).decode().splitlines() if "line" in line or "seq=" in line]
    assert len(lines) == 300
    assert ("299" if bench.kind != "kvm" else "seq=300 ") in lines[-1]


def test_another_agent_finds_every_machine_as_it_is(bench: Bench, machines: Machines) -> None:
    created = bench.spec(bench.runs())
    machines.prepare(created)
    running = run(bench, machines, bench.runs())
    stopped = run(bench, machines, bench.fails())
    end = end_of(machines, stopped)
    seen = {state.key: state for state in bench.open().list()}
    assert [seen[key].phase for key in (created.key, running, stopped)] == [Phase.CREATED, Phase.RUNNING, Phase.STOPPED]
    assert seen[stopped].exit == end
    other = bench.open()
    other.kill(running)
    assert end_of(machines, running).code == 137
    other.start(created.key)
    assert is_running(machines, created.key)


def test_an_end_that_no_agent_saw_is_told_truthfully(bench: Bench, machines: Machines) -> None:
    workload = bench.fails()
    key = run(bench, machines, workload)
    time.sleep(2.0)
    end = end_of(bench.open(), key)
    assert (end.code, end.reason) == (workload.code, "Error")


def test_whoever_watches_is_told_of_start_and_end(bench: Bench, machines: Machines) -> None:
    told: list[tuple[str, object]] = []
    lock = threading.Lock()

    def changed(key: str) -> None:
        state = machines.state(key)
        with lock:
            told.append((key, state.phase if state else None))

    with machines.watch(changed):
        key = run(bench, machines, bench.runs())
        wait_for("word of the start", lambda: (key, Phase.RUNNING) in told)
        bench.open().kill(key)
        wait_for("word of the end", lambda: (key, Phase.STOPPED) in told)
    count = len(told)
    machines.remove(key)
    time.sleep(0.5)
    assert len(told) == count


def test_many_machines_run_side_by_side(bench: Bench, machines: Machines) -> None:
    many = int(os.environ.get("UNIFLEET_CONTRACT_MANY", "20"))
    specs = [bench.spec(bench.runs()) for _number in range(many)]

    def bring_up(spec: object) -> None:
        machines.prepare(spec)  # type: ignore[arg-type]
        machines.start(spec.key)  # type: ignore[attr-defined]

    begun = time.monotonic()
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(bring_up, specs))
        up = time.monotonic()
        ready = bench.runs().ready
        wait_for("all to be ready", lambda: all(ready in bench.console(machines, spec.key) for spec in specs))
        said = time.monotonic()
        assert {spec.key for spec in specs} <= {state.key for state in machines.list() if state.phase is Phase.RUNNING}
        list(pool.map(lambda spec: machines.remove(spec.key), specs))
    gone = time.monotonic()
    assert not {spec.key for spec in specs} & {state.key for state in machines.list()}
    print(f"\n{bench.kind}: {many} started in {up - begun:.2f} s, all spoke after {said - begun:.2f} s, removed in {gone - said:.2f} s")


def test_a_key_that_is_no_uuid_is_refused(bench: Bench, machines: Machines) -> None:
    if bench.kind == "simulated":
        return
    for key in ("", "../../etc", "x.service", str(uuid.uuid4()).upper()):
        spec = bench.spec(bench.runs(), key=key or " ")
        with pytest.raises(UnifleetError, match="UUID"):
            machines.prepare(spec)
        bench.keys.remove(key or " ")
