# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runu under Debian 13's own kernel and containerd 1.7, on cgroup version 2, with both cgroup drivers: scopes of systemd's, and by hand.

The host is emulated, so that all of it takes minutes: `make cgroup2` runs it, `make test` does not.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from debian_node import BUSYBOX, PROGRAM, UNIKERNEL, import_images, install_runu, node

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.debian_host.host import DebianHost

pytestmark = [pytest.mark.system, pytest.mark.cgroup2, pytest.mark.timeout(600)]

SLICE = "kubepods-burstable-podabc.slice"
MIB = 1 << 20
INFINITY = (1 << 64) - 1
SECONDS = 90.0


@dataclass(frozen=True)
class Driver:
    """A way of making control groups: what ctr is told, and what comes of it."""

    name: str

    @property
    def systemd(self) -> bool:
        return self.name == "systemd"

    def options(self, name: str) -> str:
        return f"--runc-systemd-cgroup --cgroup {SLICE}:cri-containerd:{name}" if self.systemd else f"--cgroup /kubepods/podabc/{name}"

    def group(self, name: str) -> str:
        if not self.systemd:
            return f"/sys/fs/cgroup/kubepods/podabc/{name}"
        return f"/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{name}.scope"


SYSTEMD, BY_HAND = Driver("systemd"), Driver("cgroupfs")


@dataclass
class Node:
    """The host with runu and images on it."""

    host: DebianHost

    def __call__(self, command: str) -> str:
        return self.host.run(command, seconds=SECONDS)

    def status(self, command: str) -> tuple[int, str]:
        """Exit status and all output of a command that may fail."""
        said = self(f"{{ {command}; }} 2>&1; code=$?; echo; echo $code")
        output, _newline, status = said.rstrip("\n").rpartition("\n")
        return int(status), output

    def run(
        self, name: str, driver: Driver, options: str = "", words: str = "--period 1", *, image: str = UNIKERNEL, runtime: str = "runu"
    ) -> None:
        self(
            f"ctr run -d --log-uri file:///root/{name}.log --runc-binary {runtime} {driver.options(name)} {options}"
            f" {image} {name} /boot/kernel {words}"
        )

    def wait(self, what: str, command: str) -> None:
        """Wait, on the host, until a command succeeds."""
        tries = f"for n in $(seq {int(SECONDS * 3)}); do if {command}; then exit 0; fi; sleep 0.3; done >/dev/null 2>&1; exit 1"
        try:
            self.host.run(tries, seconds=SECONDS + 30)
        except UnifleetError as error:
            raise AssertionError(f"waited for {what}: {self.status('ctr task ls; tail -n 3 /root/*.log; journalctl -n 20')[1]}") from error

    def wait_for_readings(self, name: str) -> None:
        self.wait(f"readings of {name}", f"grep -q value= /root/{name}.log")

    def end(self, name: str, signal: str = "SIGTERM") -> int:
        """Ask it to end; its exit code. Nothing is left of it."""
        self(f"ctr task kill -s {signal} {name}")
        return self.remove(name)

    def remove(self, name: str) -> int:
        self.wait(f"the end of {name}", f"ctr task ls | grep -q '^{name} .*STOPPED'")
        status, said = self.status(f"ctr task delete {name}; ctr container delete {name}")
        assert status == 0, said
        found = re.search(r"exit code (\d+)", said)
        return int(found[1]) if found else 0

    def values(self, group: str, *files: str) -> dict[str, str]:
        """The content of a group's files."""
        lines = self("cd " + group + "; " + "; ".join(f"echo {file} $(cat {file})" for file in files)).splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of a scope, as systemd knows them."""
        return dict(
            line.split("=", 1) for line in self(f"systemctl show cri-containerd-{name}.scope -p {','.join(properties)}").splitlines()
        )

    def commands(self, group: str) -> set[str]:
        return set(self(f"for pid in $(cat {group}/cgroup.procs); do cat /proc/$pid/comm; done").split())

    def leaks(self) -> str:
        """Scopes, groups, state and processes of containers."""
        look = (
            "systemctl list-units --all --no-legend --plain 'cri-containerd-*' 'runu-*.scope'",
            "find /sys/fs/cgroup -path '*podabc*' -name '*cri-containerd-*'",
            "find /sys/fs/cgroup/kubepods/podabc -mindepth 1 -type d 2>/dev/null",
            "ls /run/containerd/runc/default 2>/dev/null",
            "pgrep -l 'runu-|containerd-shim' || true",
        )
        return self("; ".join(look)).strip()

    def clean(self) -> None:
        names = self("ctr container ls -q").split()
        for name in names:
            self.status(f"ctr task kill -a -s SIGKILL {name}; sleep 1; ctr task delete -f {name}; ctr container delete {name}")


@pytest.fixture(scope="module")
def stock() -> Iterator[Node]:
    with node() as host:
        install_runu(host)
        import_images(host)
        yield Node(host)


@pytest.fixture
def debian(stock: Node) -> Iterator[Node]:
    """After each test nothing may be left of its containers."""
    yield stock
    until = time.monotonic() + 20
    while (left := stock.leaks()) and time.monotonic() < until:
        time.sleep(0.5)
    stock.clean()
    assert not left, left


@pytest.mark.parametrize("driver", [SYSTEMD, BY_HAND], ids=lambda driver: driver.name)
def test_the_group_holds_monitor_and_machine_and_has_the_limits(debian: Node, driver: Driver) -> None:
    debian.run("limited", driver, f"--memory-limit {64 * MIB} --cpus 0.9 --cpu-shares 512")
    debian.wait_for_readings("limited")
    group = driver.group("limited")
    assert debian.commands(group) == {"runu-monitor", "runu-qemu"}
    found = debian.values(group, "memory.max", "cpu.max", "cpu.weight", "memory.current")
    current = int(found.pop("memory.current"))
    assert found == {"memory.max": str(96 * MIB), "cpu.max": "90000 100000", "cpu.weight": "20"}
    assert 8 * MIB < current < 96 * MIB
    if driver.systemd:
        told = debian.unit("limited", "MemoryMax", "CPUQuotaPerSecUSec", "CPUWeight", "Slice", "Delegate", "ActiveState")
        assert told == {
            "MemoryMax": str(96 * MIB), "CPUQuotaPerSecUSec": "900ms", "CPUWeight": "20", "Slice": SLICE, "Delegate": "yes",
            "ActiveState": "active",
        }  # fmt: skip
    metrics = dict(line.split() for line in debian("ctr task metrics limited").splitlines() if len(line.split()) == 2)
    assert int(metrics["memory.usage_limit"]) == 96 * MIB
    assert int(metrics["memory.usage"]) > 8 * MIB
    assert int(metrics["cpu.usage_usec"]) > 0
    assert debian.end("limited") == 0


@pytest.mark.parametrize("driver", [SYSTEMD, BY_HAND], ids=lambda driver: driver.name)
def test_update_changes_limits_and_systemd_does_not_undo_them(debian: Node, driver: Driver) -> None:
    debian.run("updated", driver, f"--memory-limit {64 * MIB}")
    debian.wait_for_readings("updated")
    group = driver.group("updated")
    runu = f"runu --root /run/containerd/runc/default {'--systemd-cgroup' if driver.systemd else ''}"
    limits = f"--memory {128 * MIB} --memory-swap {128 * MIB} --cpu-quota 100000 --cpu-period 50000 --pids-limit 50 --cpuset-cpus 0"
    debian(f"{runu} update {limits} updated")
    wanted = {
        "memory.max": str(160 * MIB), "memory.swap.max": "0", "cpu.max": "100000 50000", "pids.max": "82", "cpuset.cpus": "0",
    }  # fmt: skip
    assert debian.values(group, *wanted) == wanted
    # A sibling comes and goes, and each kind of property is touched: systemd writes all files of it anew.
    debian.run("sibling", driver)
    if driver.systemd:
        debian("systemctl daemon-reload && systemctl set-property --runtime cri-containerd-updated.scope MemoryHigh=150M CPUWeight=77")
    assert debian.values(group, *wanted) == wanted
    assert debian.end("sibling", "SIGKILL") == 137
    assert debian.values(group, *wanted) == wanted
    debian(f"{runu} update --memory -1 --cpu-quota -1 --pids-limit -1 updated")
    if driver.systemd:
        debian("systemctl daemon-reload && systemctl set-property --runtime cri-containerd-updated.scope MemoryHigh=140M CPUWeight=78")
        told = debian.unit("updated", "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax")
        assert set(told.values()) == {"infinity"}, told
    lifted = debian.values(group, "memory.max", "cpu.max", "pids.max")
    assert (lifted["memory.max"], lifted["cpu.max"].split()[0], lifted["pids.max"]) == ("max", "max", "max")
    status, said = debian.status(f"{runu} update --memory {32 * MIB} updated")
    assert status == 1
    assert "booted with" in said
    assert debian.end("updated") == 0


@pytest.mark.parametrize("driver", [SYSTEMD, BY_HAND], ids=lambda driver: driver.name)
def test_a_machine_that_the_kernel_kills_for_memory_is_oom_killed(debian: Node, driver: Driver) -> None:
    debian.run("hungry", driver, f"--memory-limit {64 * MIB}")
    debian.wait_for_readings("hungry")
    debian("nohup ctr events > /root/events 2>&1 & echo $! > /root/events.pid; sleep 1")
    debian(f"echo {4 * MIB} > {driver.group('hungry')}/memory.max || true")
    assert debian.remove("hungry") == 137
    said = debian("sleep 0.5; kill $(cat /root/events.pid); cat /root/events")
    assert re.search(r"/tasks/oom .*hungry", said), said
    assert re.search(r"/tasks/exit .*hungry.*\"exit_status\":137", said), said


def test_pause_and_resume_and_what_is_asked_of_a_running_machine(debian: Node) -> None:
    debian.run("asked", SYSTEMD)
    debian.wait_for_readings("asked")
    debian("ctr task pause asked")
    assert "PAUSED" in debian("ctr task ls")
    before = debian("sleep 1; grep -c value= /root/asked.log")
    assert debian("sleep 3; grep -c value= /root/asked.log") == before
    debian("ctr task resume asked")
    debian.wait("more readings", f"test $(grep -c value= /root/asked.log) -gt {int(before)}")
    runu = "runu --root /run/containerd/runc/default --systemd-cgroup"
    found = json.loads(debian(f"{runu} events --stats asked"))["data"]
    assert found["memory"]["usage"]["usage"] > 8 * MIB
    assert found["cpu"]["usage"]["total"] > 0
    assert len(json.loads(debian(f"{runu} ps --format json asked"))) == 2
    assert debian.end("asked") == 0


def test_systemd_and_containerd_start_anew_and_lose_nothing(debian: Node) -> None:
    debian.run("kept", SYSTEMD, f"--memory-limit {64 * MIB}")
    debian.wait_for_readings("kept")
    pid = debian("ctr task ls | awk '$1 == \"kept\" {print $2}'")
    debian("systemctl daemon-reexec && systemctl restart containerd")
    debian.wait("containerd", "ctr version")
    assert debian("ctr task ls | awk '$1 == \"kept\" {print $2}'") == pid
    assert debian.values(SYSTEMD.group("kept"), "memory.max") == {"memory.max": str(96 * MIB)}
    before = int(debian("grep -c value= /root/kept.log"))
    debian.wait("more readings", f"test $(grep -c value= /root/kept.log) -gt {before}")
    assert debian.end("kept") == 0


def test_an_end_that_nobody_ordered_leaves_no_unit_behind(debian: Node) -> None:
    """A crash, and a create that fails."""
    debian.run("crash", SYSTEMD)
    debian.wait_for_readings("crash")
    debian(f"for pid in $(cat {SYSTEMD.group('crash')}/cgroup.procs); do grep -q runu-qemu /proc/$pid/comm && kill -SEGV $pid; done; true")
    assert debian.remove("crash") == 139
    status, said = debian.status(
        f"ctr run --rm --runc-binary runu {SYSTEMD.options('small')} --memory-limit {2 * MIB} {UNIKERNEL} small /boot/kernel"
    )
    assert status == 1
    assert "bytes of memory and needs" in said
    debian.run("crash", SYSTEMD)
    assert debian.end("crash", "SIGKILL") == 137


@pytest.mark.parametrize("runtime", ["runc", "runu"])
@pytest.mark.parametrize("driver", [SYSTEMD, BY_HAND], ids=lambda driver: driver.name)
def test_ordinary_containers_are_the_same_through_runu(debian: Node, driver: Driver, runtime: str) -> None:
    debian.run("plain", driver, f"--memory-limit {64 * MIB} --cpus 0.5", "--period 0.5", image=PROGRAM, runtime=runtime)
    debian.wait_for_readings("plain")
    assert debian.values(driver.group("plain"), "memory.max", "cpu.max") == {"memory.max": str(64 * MIB), "cpu.max": "50000 100000"}
    assert debian("ctr task exec --exec-id e plain /boot/kernel --count 1").count("value=") == 1
    debian("ctr task pause plain")
    assert debian.values(driver.group("plain"), "cgroup.freeze") == {"cgroup.freeze": "1"}
    debian("ctr task resume plain")
    assert debian.end("plain") == 0
    assert debian.status(f"ctr run --rm --runc-binary {runtime} {driver.options('wrong')} {PROGRAM} wrong /boot/kernel --nonsense")[0] == 2
    eat = "a=1; while :; do a=$a$a; done"
    limits = f"--memory-limit {16 * MIB}"
    assert (
        debian.status(f"ctr run --rm --runc-binary {runtime} {driver.options('eat')} {limits} {BUSYBOX} eat /bin/sh -c '{eat}'")[0] == 137
    )


def test_many_at_once(debian: Node) -> None:
    names = [f"many{number}" for number in range(6)]
    words = f"{{ ctr run -d --log-uri file:///root/$name.log --runc-binary runu --runc-systemd-cgroup --cgroup {SLICE}:cri-containerd:$name"
    debian(f"for name in {' '.join(names)}; do {words} {UNIKERNEL} $name /boot/kernel --period 2; }} & done; wait")
    for name in names:
        debian.wait_for_readings(name)
    debian(f"for name in {' '.join(names)}; do ctr task kill -s SIGTERM $name & done; wait")
    assert [debian.remove(name) for name in names] == [0] * len(names)
