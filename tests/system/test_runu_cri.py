# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unikernels as the CRI has them, asked for in the kubelet's place: pods with a real network, states, logs, limits, stats, refusals.

Through each of Debian's containerds, its own shim, and the CNI plugins; after every test nothing of its pods may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import hungry_guest
import pytest
from cri_node import Container, CriContainerd, CriNode, Pod, RefusedError, logged
from runu_host import build, configure, install, wait_for
from stock_containerd import EACH, programs_of
from test_runu_containerd import image
from worker_pods import busybox

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SENSOR, XEN, HUNGRY, BOX = (f"unifleet.test/{name}:1" for name in ("sensor", "xen", "hungry", "busybox"))
FAST = ("--period", "0.05")
MIB = 1 << 20
MEMORY, QUOTA = ("memory.max", "memory.limit_in_bytes"), ("cpu.max", "cpu.cfs_quota_us")


@pytest.fixture(scope="module", params=EACH)
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriNode]:
    suite = request.param
    programs = programs_of(suite)
    directory = tmp_path_factory.mktemp("c")
    config = configure(directory)
    name = f"cri-{suite}-{os.getpid()}"
    variables = {"UNIFLEET_RUNU_CONFIG": str(config)}
    made = CriNode(CriContainerd(programs, directory, variables=variables, runu=install(directory), network=name), f"/{name}", config)
    try:
        made.open()
        guests = build()
        for reference, target, kernel in (
            (SENSOR, "kvm/amd64", guests / "sensor-kvm-amd64"),
            (XEN, "xen/amd64", guests / "sensor-xen-amd64"),
            (HUNGRY, "kvm/amd64", hungry_guest.build(directory)),
        ):
            made.add_image(reference, image(directory, reference, target, kernel, network=True))
        tar = directory / "busybox.tar"
        tar.write_bytes(busybox(BOX))
        made.add_image(BOX, tar)
        yield made
    finally:
        made.close()


@pytest.fixture
def node(stock: CriNode) -> Iterator[CriNode]:
    configure(stock.config.parent)
    yield stock
    left = stock.clean()
    assert not left, left


def running(pod: Pod, *args: str, **resources: int) -> Container:
    """A sensor that has read."""
    made = pod.start("sensor", SENSOR, *FAST, *args, **resources)
    wait_for("readings", lambda: made.readings() > 1)
    return made


def sequence(lines: list[str]) -> list[int]:
    """The numbers that the readings carry."""
    return [int(found[1]) for line in lines if (found := re.search(r"\bseq=(\d+)", line))]


def test_a_pods_life(node: CriNode) -> None:
    pod = node.pod()
    sensor = pod.create("sensor", SENSOR, *FAST)
    assert (sensor.state(), sensor.status().started_at, sensor.status().finished_at) == ("CREATED", 0, 0)
    sensor.start()
    wait_for("readings", lambda: sensor.readings() > 2)
    assert '"value":' in node.fetch(pod.address())
    status = sensor.status()
    assert sensor.state() == "RUNNING"
    assert 0 < status.created_at <= status.started_at <= time.time_ns()
    for line in logged(sensor.log):
        when, stream, tag, _said = line.split(" ", 3)
        assert (stream, tag) == ("stdout", "F")
        assert datetime.fromisoformat(when[:19])
    sensor.stop(10)
    status = sensor.status()
    assert (sensor.state(), status.exit_code, status.reason) == ("EXITED", 0, "Completed")
    assert status.started_at < status.finished_at <= time.time_ns()
    assert "unikernel: exit 0" in sensor.said()
    sensor.stop(10)
    sensor.remove()
    sensor.remove()
    for call in (pod.stop, pod.stop, pod.remove, pod.remove):
        call()
    assert not node.cri("ListPodSandbox").items


def test_a_guests_exit_code_is_the_containers(node: CriNode) -> None:
    sensor = node.pod().start("sensor", SENSOR, "--nonsense")
    status = sensor.ended()
    assert (status.exit_code, status.reason) == (2, "Error")


def test_a_guest_that_does_not_end_when_asked_is_killed_after_the_timeout(node: CriNode) -> None:
    deaf = node.pod().start("deaf", HUNGRY)
    wait_for("its word", lambda: hungry_guest.SAYS in deaf.said())
    begun = time.monotonic()
    deaf.stop(2)
    assert 2 <= time.monotonic() - begun < 10
    status = deaf.status()
    assert (deaf.state(), status.exit_code, status.reason) == ("EXITED", 137, "Error")


def test_a_pod_is_removed_with_all_that_runs_in_it(node: CriNode) -> None:
    pod = node.pod()
    sensor = running(pod)
    pids = list(sensor.processes().values())
    pod.stop()
    pod.remove()
    assert [path for path in (Path(f"/proc/{pid}") for pid in pids) if path.exists()] == []
    with pytest.raises(RefusedError):
        sensor.status()


def test_stats_are_those_of_the_machine(node: CriNode) -> None:
    sensor = running(node.pod())
    stats = node.cri("ContainerStats", container_id=sensor.id).stats
    processes = sensor.processes()
    assert sorted(processes) == ["runu-monitor", "runu-qemu"]
    assert sensor.pid() == processes["runu-monitor"]
    lines = Path(f"/proc/{processes['runu-qemu']}/smaps_rollup").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) << 10
    assert anonymous * 0.7 < stats.memory.working_set_bytes.value < 64 * MIB
    ticks = sum(map(int, Path(f"/proc/{processes['runu-qemu']}/stat").read_text().rpartition(")")[2].split()[11:13]))
    used = stats.cpu.usage_core_nano_seconds.value
    assert 0 < used <= (ticks + 200) * 10**9 // os.sysconf("SC_CLK_TCK")
    wait_for("more use", lambda: node.cri("ContainerStats", container_id=sensor.id).stats.cpu.usage_core_nano_seconds.value > used)


def test_limits_can_be_raised_and_not_lowered_below_what_the_guest_booted_with(node: CriNode) -> None:
    sensor = running(node.pod(), memory_limit_in_bytes=32 * MIB, cpu_shares=512)

    def update(**resources: int) -> None:
        node.cri("UpdateContainerResources", container_id=sensor.id, linux=resources)

    update(cpu_period=100000, cpu_quota=50000, cpu_shares=256, memory_limit_in_bytes=48 * MIB)
    assert (sensor.limit(*MEMORY), sensor.limit(*QUOTA)) == (str((48 + 32) * MIB), "50000")
    with pytest.raises(RefusedError, match="the guest booted with 33554432 bytes of memory"):
        update(memory_limit_in_bytes=16 * MIB)
    assert sensor.limit(*MEMORY) == str((48 + 32) * MIB)
    seen = sensor.readings()
    wait_for("more readings", lambda: sensor.readings() > seen)


def test_a_second_program_is_refused_at_once(node: CriNode) -> None:
    sensor = running(node.pod())
    begun = time.monotonic()
    with pytest.raises(RefusedError, match="is a unikernel: one program is all there is in it"):
        sensor.exec("/bin/sh", "-c", "true")
    assert time.monotonic() - begun < 5
    assert sensor.state() == "RUNNING"


def test_a_checkpoint_is_refused_and_the_guest_lives_on(node: CriNode, tmp_path: Path) -> None:
    """containerd 1.6 and 1.7 do not know the call and 2.x wants CRIU before it asks the runtime: what runu says comes by ctr."""
    sensor = running(node.pod())
    with pytest.raises(RefusedError) as refused:
        node.cri("CheckpointContainer", container_id=sensor.id, location=str(tmp_path / "checkpoint.tar"))
    print(refused.value.code, refused.value)
    done = node.containerd.ctr("task", "checkpoint", sensor.id, check=False)
    assert done.returncode == 1
    assert "runu cannot checkpoint" in done.stderr, done.stderr
    seen = sensor.readings()
    wait_for("more readings", lambda: sensor.readings() > seen)


def test_a_log_that_is_rotated_loses_nothing(node: CriNode) -> None:
    sensor = running(node.pod())
    logs = [sensor.log.with_suffix(".1"), sensor.log.with_suffix(".2"), sensor.log]
    for moved in logs[:2]:
        sensor.log.rename(moved)
        node.cri("ReopenContainerLog", container_id=sensor.id)
        wait_for("readings in the new file", lambda: len(logged(sensor.log)) > 2)
    sensor.stop(10)
    numbers = [sequence(logged(log)) for log in logs]
    assert all(numbers)
    joined = [number for of_log in numbers for number in of_log]
    assert joined == list(range(1, len(joined) + 1))


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
def test_containerds_absence_loses_nothing(node: CriNode, crash: bool) -> None:
    pod = node.pod()
    sensor = running(pod)
    before = (sensor.pid(), sensor.status().started_at, pod.address())
    node.restart(crash=crash)
    containers = node.cri("ListContainers").containers
    assert [(found.id, found.pod_sandbox_id, found.metadata.name) for found in containers] == [(sensor.id, pod.id, "sensor")]
    assert sensor.state() == "RUNNING"
    assert (sensor.pid(), sensor.status().started_at, pod.address()) == before
    seen = sensor.readings()
    wait_for("more readings", lambda: sensor.readings() > seen)
    assert '"value":' in node.fetch(pod.address())
    sensor.stop(10)
    assert (sensor.status().exit_code, sensor.status().reason) == (0, "Completed")
    numbers = sequence(logged(sensor.log))
    assert numbers == sorted(set(numbers))
    # It is containerd that writes the log: killed at the wrong moment it takes the line in its hands along.
    assert numbers[-1] - len(numbers) <= (1 if crash else 0), numbers


def test_a_guest_that_ends_while_containerd_is_away_is_told_of_as_an_ordinary_container_is(node: CriNode) -> None:
    """containerd 1.6 learns of the exit code afterwards; newer ones take a shim without processes for a leak and say 255, Unknown."""
    sensor = running(node.pod())
    box = node.pod(handler="runc").start("box", BOX, command=("/bin/sleep", "1000"))
    pids = [sensor.pid(), box.pid()]
    node.cri.close()
    node.containerd.stop(crash=True)
    for pid in pids:
        os.kill(pid, 9)
    wait_for("their ends", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    node.start()
    fates = [(status.exit_code, status.reason) for status in (sensor.ended(), box.ended())]
    assert fates[0] == fates[1]
    assert fates[0] in ((137, "Error"), (255, "Unknown"))


def test_a_guest_and_an_ordinary_container_share_a_pod(node: CriNode) -> None:
    pod = node.pod(annotations={"io.unifleet.container-ports": "8080"})
    script = "mkdir -p /www; echo served beside it >/www/index.html; echo ready; exec httpd -f -p 8080 -h /www"
    box = pod.start("box", BOX, command=("/bin/sh", "-c", script))
    sensor = running(pod)
    wait_for("the sidecar", lambda: "ready" in box.said())
    assert "runu-qemu" not in box.processes()
    assert box.exec("/bin/echo", "ordinary").stdout == b"ordinary\n"
    assert '"value":' in node.fetch(pod.address())
    assert node.fetch(pod.address(), 8080) == "served beside it\n"
    sensor.stop(10)
    assert sensor.status().exit_code == 0
    assert box.state() == "RUNNING"
    assert box.exec("/bin/hostname").stdout.decode().strip() == pod.name
    box.stop(0)
    assert box.status().exit_code == 137


def test_ports_of_guests_and_of_containers_beside_them_can_be_forwarded(node: CriNode) -> None:
    pod = node.pod()
    sensor = running(pod)
    box = pod.start("box", BOX, command=("/bin/sh", "-c", "mkdir /www; echo beside it >/www/index.html; exec httpd -f -p 8080 -h /www"))
    assert '"value":' in node.forwarded(pod, 80)
    wait_for("the sidecar", lambda: "beside it" in node.forwarded(pod, 8080))
    assert "connection refused" in node.forwarded(pod, 81)
    assert b'"value":' in box.exec("/bin/wget", "-q", "-O", "-", "http://127.0.0.1/").stdout
    sensor.stop(10)
    wait_for("the guest's port to close", lambda: "connection refused" in node.forwarded(pod, 80), 5)
    assert "beside it" in node.forwarded(pod, 8080)


@pytest.mark.parametrize(
    ("reference", "args", "resources", "group", "sentence"),
    [
        (XEN, FAST, {}, None, "kvm/amd64"),
        (SENSOR, ("x" * 5000), {}, None, "kernel command line of"),
        (SENSOR, FAST, {"memory_limit_in_bytes": 4 * MIB}, None, "the guest would have 4194304 bytes of memory and needs 8388608"),
        (SENSOR, FAST, {"memory_limit_in_bytes": 32 * MIB}, 36 * MIB, "which the RuntimeClass should declare as overhead"),
    ],
    ids=["hypervisor", "arguments", "limit", "pod"],
)
def test_what_cannot_run_says_why_and_leaves_nothing(
    node: CriNode, reference: str, args: tuple[str, ...], resources: dict[str, int], group: int | None, sentence: str
) -> None:
    made = node.pod(group_limit=group).create("refused", reference, *args, **resources)
    with pytest.raises(RefusedError) as refused:
        made.start()
    assert sentence in str(refused.value)
    status = made.status()
    assert (made.state(), status.exit_code, status.reason) == ("EXITED", 128, "StartError")
    assert sentence in status.message


def test_a_guest_may_use_all_of_its_memory(node: CriNode) -> None:
    hungry = node.pod().start("hungry", HUNGRY, memory_limit_in_bytes=96 * MIB)
    wait_for("its word", lambda: hungry_guest.SAYS in hungry.said() or hungry.state() != "RUNNING")
    assert hungry.state() == "RUNNING"
    assert node.cri("ContainerStats", container_id=hungry.id).stats.memory.working_set_bytes.value > 90 * MIB


def test_a_machine_that_outgrows_its_limit_is_oom_killed(node: CriNode) -> None:
    """QEMU needs more beside the guest's memory than this node's administrator allowed for."""
    node.config.write_text(json.dumps({"accelerator": "tcg", "memory_overhead": 8 * MIB}))
    reasons: list[str] = []
    # Where the kernel kills the monitor as well, for it needs a page while QEMU still dies, the group is gone before the shim has looked.
    while "OOMKilled" not in reasons and len(reasons) < 3:
        hungry = node.pod().start("hungry", HUNGRY, memory_limit_in_bytes=96 * MIB)
        assert hungry.ended().exit_code == 137, hungry.said()
        with contextlib.suppress(AssertionError):  # the end and the reason come on two ways
            wait_for("the reason", lambda made=hungry: made.status().reason == "OOMKilled", 5)  # type: ignore[misc]
        reasons.append(hungry.status().reason)
    assert reasons[-1] == "OOMKilled", reasons
