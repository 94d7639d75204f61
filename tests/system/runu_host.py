# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runu from this checkout, as a node has it: a program whose first line is its interpreter, a configuration, and bundles to run.

The test process is a child sub-reaper, as the shim is, so that it learns of a container's end by wait(2) and from nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUEST = ROOT / "guest"
CGROUPS = Path("/sys/fs/cgroup")
PR_SET_CHILD_SUBREAPER = 36
SECONDS = 60.0


def build() -> Path:
    """The project's guests, built."""
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)
    return GUEST / "build"


def wait_for(what: str, condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Return when the condition holds; fail, saying what was waited for, when it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


def install(directory: Path) -> Path:
    """The program runu, as its role installs it."""
    program = directory / "runu"
    program.write_text(
        "#!/usr/bin/python3 -ISE\nimport sys\n\n"
        f"sys.path.insert(0, {str(ROOT / 'collections')!r})\n"
        "from ansible_collections.unifleet.hybrid.plugins.host.runu.main import main\n\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return program


def configure(directory: Path, **values: object) -> Path:
    """A runu.json. Machines are emulated, which runs everywhere."""
    path = directory / "runu.json"
    path.write_text(json.dumps({"accelerator": "tcg", **values}))
    return path


@dataclass
class Runu:
    """runu with a root directory of its own. group: the control group that its containers are below."""

    directory: Path
    group: str
    program: Path = field(init=False)
    root: Path = field(init=False)
    config: Path = field(init=False)
    children: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = install(self.directory)
        self.root = self.directory / "state"
        self.config = configure(self.directory)
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def __call__(
        self, *arguments: str, check: bool = True, stdin: str = "", output: Optional[Path] = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the shim does, --log included. output: what a created container's streams are."""
        argv = [str(self.program), "--root", str(self.root), "--log", str(self.directory / "log.json"), "--log-format", "json", *arguments]
        environment = {**os.environ, "UNIFLEET_RUNU_CONFIG": str(self.config)}
        if output is not None:
            with output.open("wb") as file:
                done = subprocess.run(
                    argv, check=False, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, timeout=SECONDS
                )
            result = subprocess.CompletedProcess(argv, done.returncode, "", output.read_text(errors="replace"))
        else:
            result = subprocess.run(argv, check=False, capture_output=True, text=True, input=stdin, env=environment, timeout=SECONDS)
        assert not check or result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
        return result

    def create(self, name: str, bundle: Bundle, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        pid_file = self.directory / f"{name}.pid"
        done = self("create", "--bundle", str(bundle.path), "--pid-file", str(pid_file), *options, name, check=check, output=bundle.output)
        if done.returncode == 0:
            self.children.append(int(pid_file.read_text()))
        return done

    def pid(self, name: str) -> int:
        return int((self.directory / f"{name}.pid").read_text())

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", name).stdout)
        return found

    def status(self, name: str) -> str:
        return str(self.state(name)["status"])

    def wait(self, name: str, seconds: float = SECONDS) -> int:
        """The exit code of a container, as the shim learns it."""
        pid, until = self.pid(name), time.monotonic() + seconds
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            assert time.monotonic() < until, f"container {name} did not end within {seconds} s"
            time.sleep(0.01)

    def errors(self) -> list[str]:
        """The messages of level error in the log."""
        lines = (self.directory / "log.json").read_text().splitlines() if (self.directory / "log.json").exists() else []
        return [str(line["msg"]) for line in map(json.loads, lines) if line["level"] == "error"]

    def leaks(self) -> list[str]:
        """What is left of containers though all were deleted."""
        found = [f"state {path}" for path in (self.root.iterdir() if self.root.is_dir() else ())]
        return found + leaks_below(self.group, str(self.root))

    def clean(self) -> None:
        """End everything, after a test that failed half-way."""
        for path in list(self.root.iterdir()) if self.root.is_dir() else []:
            self("delete", "--force", path.name, check=False)
        for pid in self.children:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.waitpid(pid, os.WNOHANG)
        remove_groups(self.group)


def leaks_below(group: str, mark: str) -> list[str]:
    """Control groups below a group, and processes that name the mark or are in the group."""
    found = [f"control group {path}" for path in group_directories(group) if path.name != group.strip("/").rpartition("/")[2]]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cgroup").read_text()
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if f"/{group.strip('/')}/" in where or (mark in words and "runu-monitor" in words):
            found.append(f"process {process.name} {words[:3]}")
    return found


def group_directories(group: str) -> list[Path]:
    """The directories of a control group in each hierarchy, its own and those below."""
    tops = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else [path for path in CGROUPS.iterdir() if path.is_dir()]
    found = []
    for top in tops:
        base = top / group.strip("/")
        if base.is_dir():
            found += [base, *(path for path in base.rglob("*") if path.is_dir())]
    return found


def remove_groups(group: str) -> None:
    for path in sorted(group_directories(group), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()


@dataclass
class Bundle:
    """An OCI bundle. output: where the streams of its container go."""

    path: Path
    config: dict[str, Any]

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def write(self) -> Bundle:
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self

    def readings(self) -> int:
        return self.said.count("value=")


def make_bundle(directory: Path, group: str, *args: str, profile: Mapping[str, Any] | None = None, **config: Any) -> Bundle:
    """A bundle with the sensor in it."""
    rootfs = directory / "rootfs"
    (rootfs / "boot").mkdir(parents=True)
    shutil.copy(build() / "sensor-kvm-amd64", rootfs / "boot/sensor")
    said = {"version": 1, "family": "plain", "kernels": {"kvm/amd64": "/boot/sensor"}, "memory": "8Mi", **(profile or {})}
    (rootfs / "unikernel.json").write_text(json.dumps(said))
    document = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/boot/sensor", *(args or ("--period", "0.05"))], "env": ["PATH=/bin", "SENSOR_NAME=humidity"]},
        "annotations": {"org.example.kept": "yes"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "cgroupsPath": f"{group}/{directory.name}"},
        **config,
    }
    return Bundle(directory, document).write()


@contextlib.contextmanager
def pod_namespace(name: str, network: int) -> Iterator[str]:
    """A network namespace with a veth as a CNI plugin makes it: 10.77.41.(network*4+2) inside, the gateway outside. Yields its path."""
    base, link = network * 4, f"rt{network}{os.getpid() % 10000}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {link} type veth peer name eth0 netns {name}",
        f"ip addr add 10.77.41.{base + 1}/30 dev {link}",
        f"ip link set {link} up",
        f"ip -n {name} addr add 10.77.41.{base + 2}/30 dev eth0",
        f"ip -n {name} link set lo up",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} route add default via 10.77.41.{base + 1}",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "link", "del", link], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def runu(tmp_path: Path) -> Iterator[Runu]:
    made = Runu(tmp_path, f"/runu-contract-{os.getpid()}")
    try:
        yield made
        left = made.leaks()
    finally:
        made.clean()
    assert not left, left


Maker = Callable[..., Bundle]


@pytest.fixture
def bundle(runu: Runu, tmp_path: Path) -> Maker:
    def make(name: str, *args: str, **more: Any) -> Bundle:
        return make_bundle(tmp_path / name, runu.group, *args, **more)

    return make


def vmm_of(runu: Runu, name: str) -> int:
    return int(json.loads((runu.root / name / "runu.json").read_text())["vmm"])
