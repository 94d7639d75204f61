# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unikernels as containers of an unmodified containerd and its own shim: life, races, crashes of every process involved, many at once.

Debian 12's containerd for all of it, those of Debian 13 and sid for the life of a container. Ordinary containers that go through runu are
held against the same ones that go to runc directly.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runu_host import build, configure, install, leaks_below, remove_groups, wait_for
from stock_containerd import EACH, Containerd, programs_of

from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, pack, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

UNIKERNEL, PROGRAM = "unifleet.test/sensor:1", "unifleet.test/program:1"
MANY = int(os.environ.get("UNIFLEET_RUNU_PODS", "20"))
"""How many containers test_many starts at once; 50 on a machine that has nothing else to do."""


@dataclass
class Node:
    """A containerd with runu as a runtime beside runc, and images to run."""

    containerd: Containerd
    runu: Path

    @property
    def group(self) -> str:
        return f"/{self.containerd.namespace}"

    @property
    def state(self) -> Path:
        """Where the shim tells runtimes to keep their state."""
        return Path("/run/containerd/runc") / self.containerd.namespace

    def log(self, name: str) -> Path:
        return self.containerd.directory / f"{name}.log"

    def run(self, name: str, *args: str, image: str = UNIKERNEL, runtime: str = "runu", options: tuple[str, ...] = ()) -> None:
        """Start a container that runs on its own; its output goes to a file by way of the shim."""
        binary = ("--runc-binary", str(self.runu)) if runtime == "runu" else ()
        self.containerd.ctr("run", "-d", "--log-uri", f"file://{self.log(name)}", *binary, *options, image, name, *args)

    def foreground(self, name: str, *args: str, image: str = UNIKERNEL, runtime: str = "runu") -> subprocess.CompletedProcess[str]:
        binary = ("--runc-binary", str(self.runu)) if runtime == "runu" else ()
        return self.containerd.ctr("run", "--rm", *binary, image, name, *args, check=False)

    def said(self, name: str) -> str:
        return self.log(name).read_text(errors="replace") if self.log(name).exists() else ""

    def readings(self, name: str) -> int:
        return self.said(name).count("value=")

    def tasks(self) -> dict[str, tuple[int, str]]:
        """Container -> (pid, status)."""
        lines = [line.split() for line in self.containerd.ctr("task", "ls").stdout.splitlines()[1:]]
        return {line[0]: (int(line[1]), line[2]) for line in lines}

    def kill(self, name: str, number: str = "SIGTERM") -> None:
        self.containerd.ctr("task", "kill", "-s", number, name)

    def stopped(self, name: str) -> bool:
        return self.tasks().get(name, (0, "STOPPED"))[1] == "STOPPED"

    def remove(self, name: str) -> int:
        """Delete task and container; the exit code of the task."""
        done = self.containerd.ctr("task", "delete", name, check=False)
        self.containerd.ctr("container", "delete", name)
        said = re.search(r"exit code (\d+)", done.stderr)
        return int(said[1]) if said else done.returncode

    def end(self, name: str) -> int:
        """Ask a container to end and delete it."""
        self.kill(name)
        wait_for(f"the end of {name}", lambda: self.stopped(name))
        return self.remove(name)

    def children(self, name: str) -> dict[str, int]:
        """Command -> pid of the processes in a container's group."""
        path = next(path for path in Path("/sys/fs/cgroup").glob(f"*{self.group}/{name}/cgroup.procs"))
        return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in path.read_text().split()}

    def shims(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0].endswith("containerd-shim-runc-v2") and self.containerd.namespace in words:
                found.append(int(process.name))
        return found

    def leaks(self) -> list[str]:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        found = [f"mount {path}" for path in mounts if path.startswith(str(self.containerd.directory))]
        found += [f"state {path}" for path in (self.state.iterdir() if self.state.is_dir() else ())]
        return found + leaks_below(self.group, str(self.state)) + [f"shim {pid}" for pid in self.shims()]

    def clean(self) -> None:
        """After a test that failed half-way."""
        for name in self.tasks():
            self.containerd.ctr("task", "kill", "-a", "-s", "SIGKILL", name, check=False)
            self.containerd.ctr("task", "delete", "-f", name, check=False)
        for name in self.containerd.ctr("container", "ls", "-q").stdout.split():
            self.containerd.ctr("container", "delete", name, check=False)
        for pid in self.shims():
            os.kill(pid, signal.SIGKILL)


def image(directory: Path, reference: str, target: str, kernel: Path, *, network: bool = False) -> Path:
    """An image as a tar that ctr imports."""
    files = {"boot/kernel": (kernel.read_bytes(), True)}
    layout = directory / reference.partition("/")[2].replace(":", "-")
    profile = Profile("plain", {target: "/boot/kernel"}, memory_bytes=8 << 20, network=network)
    write(pack(ImageContent(profile, files, args=("--period", "0.05"))), layout, "1")
    tar = layout.with_suffix(".tar")
    with tarfile.open(tar, "w") as archive:
        archive.add(layout, ".")
    return tar


def opened(suite: str, directory: Path) -> Node:
    programs = programs_of(suite)
    configuration = configure(directory)
    made = Containerd(programs, directory, f"runu-{suite}-{os.getpid()}", {"UNIFLEET_RUNU_CONFIG": str(configuration)})
    made.start()
    guests = build()
    for reference, target, kernel in ((UNIKERNEL, "kvm/amd64", "sensor-kvm-amd64"), (PROGRAM, "process/amd64", "sensor-process-amd64")):
        made.ctr("images", "import", "--index-name", reference, str(image(directory, reference, target, guests / kernel)))
    return Node(made, install(directory))


def closed(node: Node) -> None:
    node.clean()
    node.containerd.stop()
    remove_groups(node.group)
    shutil.rmtree(node.state, ignore_errors=True)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = opened("bookworm", tmp_path_factory.mktemp("c"))
    yield node
    closed(node)


@pytest.fixture
def node(stock: Node) -> Iterator[Node]:
    """Debian 12's containerd; after each test nothing may be left of its containers."""
    yield stock
    until = time.monotonic() + 15
    while stock.leaks() and time.monotonic() < until:
        time.sleep(0.1)
    left = stock.leaks()
    stock.clean()
    assert not left, left


@pytest.mark.parametrize("suite", EACH)
def test_each_containerd_runs_asks_and_deletes_a_unikernel(suite: str, tmp_path: Path) -> None:
    node = opened(suite, tmp_path)
    try:
        print(node.containerd.version())
        done = node.foreground("once", "/boot/kernel", "--count", "2", "--period", "0.05", "GREEN")
        assert (done.returncode, done.stdout.count("tag=GREEN")) == (0, 2), done.stdout + done.stderr
        node.run("long")
        wait_for("readings", lambda: node.readings("long"))
        assert node.tasks()["long"][1] == "RUNNING"
        assert node.end("long") == 0
        assert node.foreground("wrong", "/boot/kernel", "--nonsense").returncode == 2
        wait_for("nothing left", lambda: not node.leaks(), 20)
    finally:
        closed(node)


def test_metrics_pause_and_exec_are_answered(node: Node) -> None:
    node.run("asked")
    wait_for("readings", lambda: node.readings("asked"))
    assert re.search(r"memory\S*\s+[1-9]", node.containerd.ctr("task", "metrics", "asked").stdout)
    assert len(node.containerd.ctr("task", "ps", "asked").stdout.splitlines()) == 3
    node.containerd.ctr("task", "pause", "asked")
    assert node.tasks()["asked"][1] == "PAUSED"
    node.containerd.ctr("task", "resume", "asked")
    done = node.containerd.ctr("task", "exec", "--exec-id", "e", "asked", "sh", check=False)
    assert done.returncode != 0
    assert "is a unikernel: one program is all there is in it" in done.stderr
    assert node.end("asked") == 0


def test_a_terminal_is_the_guests_console(node: Node) -> None:
    """Under script(1), for ctr wants a terminal of its own."""
    containerd = node.containerd
    words = [containerd.programs / "ctr", "-a", containerd.directory / "s.sock", "-n", containerd.namespace, "run", "--rm", "-t"]
    words += ["--runc-binary", node.runu, UNIKERNEL, "tty", "/boot/kernel", "--count", "2", "--period", "0.05"]
    command = ["script", "-qec", " ".join(map(str, words)), "/dev/null"]
    environment = containerd.environment()
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, env=environment)
    assert (done.returncode, done.stdout.count("value=")) == (0, 2), done.stdout


def test_an_image_that_cannot_run_says_why(node: Node) -> None:
    done = node.foreground("long", "/boot/kernel", "x" * 5000)
    assert done.returncode == 1
    assert "kernel command line of" in done.stderr
    done = node.containerd.ctr(
        "run", "--rm", "--runc-binary", str(node.runu), "--memory-limit", str(2 << 20), UNIKERNEL, "small", check=False
    )
    assert "bytes of memory and needs" in done.stderr


def test_kill_ends_it_with_137(node: Node) -> None:
    node.run("killed")
    wait_for("readings", lambda: node.readings("killed"))
    node.kill("killed", "SIGKILL")
    wait_for("its end", lambda: node.stopped("killed"))
    assert node.remove("killed") == 137


@pytest.mark.parametrize(("victim", "code"), [("runu-qemu", 139), ("runu-monitor", 139)])
def test_a_crash_is_the_containers_end(node: Node, victim: str, code: int) -> None:
    node.run("crash")
    wait_for("readings", lambda: node.readings("crash"))
    os.kill(node.children("crash")[victim], signal.SIGSEGV)
    wait_for("its end", lambda: node.stopped("crash"))
    assert node.remove("crash") == code


def test_the_shims_crash_takes_the_machine_along_and_leaves_nothing(node: Node) -> None:
    node.run("shimless")
    wait_for("readings", lambda: node.readings("shimless"))
    pids = list(node.children("shimless").values())
    for pid in node.shims():
        os.kill(pid, signal.SIGKILL)
    wait_for(
        "the machine's end",
        lambda: not any(Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids),
    )
    wait_for("containerd to see it", lambda: "shimless" not in node.tasks() or node.stopped("shimless"))
    node.containerd.ctr("task", "delete", "-f", "shimless", check=False)
    node.containerd.ctr("container", "delete", "shimless")


def test_containerds_crash_loses_nothing(node: Node) -> None:
    node.run("survivor")
    wait_for("readings", lambda: node.readings("survivor"))
    before = node.tasks()["survivor"]
    node.containerd.stop(crash=True)
    node.containerd.start()
    assert node.tasks()["survivor"] == before
    seen = node.readings("survivor")
    wait_for("more readings", lambda: node.readings("survivor") > seen)
    assert node.end("survivor") == 0


def test_a_container_that_ends_while_containerd_is_away_is_seen_afterwards(node: Node) -> None:
    node.run("away")
    wait_for("readings", lambda: node.readings("away"))
    pid = node.tasks()["away"][0]
    node.containerd.stop(crash=True)
    os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: "exit 0" in node.said("away"))
    node.containerd.start()
    wait_for("containerd to see it", lambda: node.stopped("away"))
    assert node.remove("away") == 0


def test_many_at_once(node: Node) -> None:
    names = [f"many{number}" for number in range(MANY)]
    begun = time.monotonic()

    def each(work: str) -> None:
        threads = [threading.Thread(target=getattr(node, work), args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    each("run")
    wait_for("readings of all", lambda: all(node.readings(name) for name in names))
    up = time.monotonic() - begun
    sizes = [memory_of(node.children(name)) for name in names]
    assert len(node.tasks()) == len(names)
    begun = time.monotonic()
    each("end")
    print(f"{len(names)} containers: {up:.1f} s to the first reading of all, {time.monotonic() - begun:.1f} s until all were gone")
    monitors, machines = (sum(size[key] for size in sizes) / len(sizes) for key in ("runu-monitor", "runu-qemu"))
    print(f"PSS each: monitor {monitors / 1024:.1f} MiB, QEMU {machines / 1024:.1f} MiB")
    assert monitors < 10 * 1024


def memory_of(processes: dict[str, int]) -> dict[str, int]:
    """Command -> PSS in KiB."""
    found = {}
    for name, pid in processes.items():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found[name] = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found


@pytest.mark.parametrize("runtime", ["runc", "runu"])
def test_ordinary_containers_are_the_same_through_runu(node: Node, runtime: str) -> None:
    done = node.foreground("p1", "/boot/kernel", "--count", "2", "--period", "0.05", "GREEN", image=PROGRAM, runtime=runtime)
    assert (done.returncode, done.stdout.count("tag=GREEN")) == (0, 2), done.stderr
    assert node.foreground("p2", "/boot/kernel", "--nonsense", image=PROGRAM, runtime=runtime).returncode == 2
    done = node.foreground("p3", "/nothing", image=PROGRAM, runtime=runtime)
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    node.run("p4", image=PROGRAM, runtime=runtime)
    wait_for("readings", lambda: node.readings("p4"))
    done = node.containerd.ctr("task", "exec", "--exec-id", "e", "p4", "/boot/kernel", "--count", "1")
    assert done.stdout.count("value=") == 1
    node.containerd.ctr("task", "pause", "p4")
    assert node.tasks()["p4"][1] == "PAUSED"
    node.containerd.ctr("task", "resume", "p4")
    assert node.end("p4") == 0
    node.run("p5", image=PROGRAM, runtime=runtime)
    node.kill("p5", "SIGKILL")
    wait_for("its end", lambda: node.stopped("p5"))
    assert node.remove("p5") == 137
