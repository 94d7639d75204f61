# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runtime-spec and the stock shim ask of an OCI runtime, asked of runu with real machines.

These are the tests of opencontainers/runtime-tools' validation/ that mean something for a machine, said anew for a guest that speaks
through its console, and those that it lacks: races, crashes, errors, limits. After each, nothing may be left.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runu_host import Bundle, Runu, group_directories, make_bundle, pod_namespace, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


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


# -- life ----------------------------------------------------------------------------------------------------------------------------


def test_a_container_is_created_started_and_ends_with_the_guests_exit_code(runu: Runu, bundle: Maker) -> None:
    made = bundle("life", "--count", "3", "--period", "0.05", "GREEN")
    runu.create("life", made)
    state = runu.state("life")
    assert state["status"] == "created"
    assert state["bundle"] == str(made.path)
    assert state["pid"] == runu.pid("life")
    assert state["annotations"] == {"org.example.kept": "yes"}
    assert made.said == "", "nothing runs before start"
    runu("start", "life")
    assert runu.wait("life") == 0
    assert "sensor=humidity" in made.said
    assert made.said.count("tag=GREEN") == 3
    assert runu.state("life")["status"] == "stopped"
    assert runu.state("life")["pid"] == 0
    runu("delete", "life")
    assert "does not exist" in runu("state", "life", check=False).stderr


def test_the_guests_own_exit_code_is_the_containers(runu: Runu, bundle: Maker) -> None:
    made = bundle("two", "--nonsense")
    runu.create("two", made)
    runu("start", "two")
    assert runu.wait("two") == 2, made.said
    runu("delete", "two")


def test_the_pid_file_holds_the_number_alone(runu: Runu, bundle: Maker) -> None:
    runu.create("pid", bundle("pid"))
    assert (runu.directory / "pid.pid").read_text().isdigit()
    runu("delete", "--force", "pid")


def test_the_seeds_syntax_is_taken(runu: Runu, bundle: Maker) -> None:
    made = bundle("seed")
    runu("create", "seed", str(made.path), output=made.output)
    runu.children.append(runu.state("seed")["pid"])
    runu("start", "seed")
    wait_for("a reading", made.readings)
    runu("kill", "seed", "SIGKILL")
    wait_for("its end", lambda: runu.status("seed") == "stopped")
    runu("delete", "seed")


def test_an_id_is_free_again_after_delete(runu: Runu, bundle: Maker) -> None:
    made = bundle("again", "--count", "1")
    for _number in range(2):
        runu.create("again", made)
        runu("start", "again")
        assert runu.wait("again") == 0
        runu("delete", "again")


def test_a_second_container_of_the_same_id_is_refused_and_the_first_lives_on(runu: Runu, bundle: Maker) -> None:
    made = bundle("twice")
    runu.create("twice", made)
    assert "exists" in runu.create("twice", bundle("other"), check=False).stderr
    assert runu.status("twice") == "created"
    runu("delete", "--force", "twice")


def test_later_edits_of_the_bundle_have_no_effect(runu: Runu, bundle: Maker) -> None:
    made = bundle("edit", "--count", "1", "BEFORE")
    runu.create("edit", made)
    made.config["process"]["args"] = ["/boot/sensor", "--count", "1", "AFTER"]
    made.write()
    runu("start", "edit")
    runu.wait("edit")
    assert "tag=BEFORE" in made.said
    runu("delete", "edit")


@pytest.mark.parametrize("name", ["TERM", "15", "SIGINT", "QUIT"])
def test_a_running_guest_is_asked_to_end(runu: Runu, bundle: Maker, name: str) -> None:
    made = bundle("ask")
    runu.create("ask", made)
    runu("start", "ask")
    wait_for("a reading", made.readings)
    runu("kill", "ask", name)
    assert runu.wait("ask") == 0
    assert made.said.rstrip().endswith("unikernel: exit 0")
    runu("delete", "ask")


def test_a_guest_that_was_asked_while_it_booted_ends_too(runu: Runu, bundle: Maker) -> None:
    runu.create("boot", bundle("boot"))
    runu("start", "boot")
    runu("kill", "boot", "TERM")
    assert runu.wait("boot") in (0, 143)
    runu("delete", "boot")


def test_kill_ends_the_machine_at_once(runu: Runu, bundle: Maker) -> None:
    made = bundle("kill")
    runu.create("kill", made)
    runu("start", "kill")
    wait_for("a reading", made.readings)
    vmm = vmm_of(runu, "kill")
    runu("kill", "--all", "kill", "9")
    assert runu.wait("kill") == 137
    wait_for("QEMU's end", lambda: not Path(f"/proc/{vmm}").exists() or reaped(vmm))
    runu("delete", "kill")


def reaped(pid: int) -> bool:
    """QEMU of a monitor that was killed is this process's child: take its status."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def test_a_guest_that_cannot_be_asked_is_ended_with_143(runu: Runu, bundle: Maker) -> None:
    made = bundle("deaf", profile={"stop": "kill"})
    runu.create("deaf", made)
    runu("start", "deaf")
    wait_for("a reading", made.readings)
    runu("kill", "deaf", "TERM")
    assert runu.wait("deaf") == 143
    runu("delete", "deaf")


@pytest.mark.parametrize("number", ["HUP", "USR1", "USR2", "WINCH", "URG"])
def test_signals_that_mean_nothing_to_a_machine_do_nothing(runu: Runu, bundle: Maker, number: str) -> None:
    made = bundle("nothing")
    runu.create("nothing", made)
    runu("start", "nothing")
    runu("kill", "nothing", number)
    os.kill(runu.pid("nothing"), signal.SIGHUP)
    seen = made.readings()
    wait_for("more readings", lambda: made.readings() > seen + 1)
    assert runu.status("nothing") == "running"
    runu("delete", "--force", "nothing")


def test_pause_halts_the_guest_and_resume_lets_it_go_on(runu: Runu, bundle: Maker) -> None:
    made = bundle("pause")
    runu.create("pause", made)
    assert "not running" in runu("pause", "pause", check=False).stderr
    runu("start", "pause")
    wait_for("a reading", made.readings)
    runu("pause", "pause")
    assert runu.status("pause") == "paused"
    time.sleep(0.1)
    seen = made.readings()
    time.sleep(0.4)
    assert made.readings() == seen
    runu("resume", "pause")
    assert runu.status("pause") == "running"
    wait_for("more readings", lambda: made.readings() > seen)
    runu("kill", "pause", "STOP")
    assert runu.status("pause") == "paused"
    runu("kill", "pause", "KILL")
    assert runu.wait("pause") == 137
    runu("delete", "pause")


# -- the order of things -------------------------------------------------------------------------------------------------------------


def test_what_may_not_be_done_is_refused_and_changes_nothing(runu: Runu, bundle: Maker) -> None:
    made = bundle("order")
    runu.create("order", made)
    assert "not stopped" in runu("delete", "order", check=False).stderr
    assert runu.status("order") == "created"
    runu("start", "order")
    assert "not created" in runu("start", "order", check=False).stderr
    assert "not stopped" in runu("delete", "order", check=False).stderr
    assert runu.status("order") == "running"
    runu("kill", "order", "KILL")
    runu.wait("order")
    assert "not created" in runu("start", "order", check=False).stderr
    assert "container not running" in runu("kill", "order", "TERM", check=False).stderr
    assert "container not running" in runu("pause", "order", check=False).stderr
    runu("delete", "order")
    for command in (["start"], ["kill"], ["delete"], ["state"], ["pause"], ["ps"]):
        done = runu(*command, "order", check=False)
        assert done.returncode != 0, command
        assert "does not exist" in done.stderr, done.stderr
    assert runu("delete", "--force", "order", check=False).returncode == 0


def test_kill_before_start_ends_a_created_container(runu: Runu, bundle: Maker) -> None:
    for number, code in (("TERM", 143), ("KILL", 137)):
        runu.create("early", bundle(f"early{number}"))
        runu("kill", "early", number)
        assert runu.wait("early") == code
        assert "not created" in runu("start", "early", check=False).stderr
        runu("delete", "early")


def test_two_starts_at_once_start_once(runu: Runu, bundle: Maker) -> None:
    made = bundle("race", "--count", "1")
    runu.create("race", made)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(runu("start", "race", check=False).returncode)) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 1, 1]
    assert runu.wait("race") == 0
    assert made.readings() == 1
    runu("delete", "race")


def test_two_creates_at_once_create_once(runu: Runu, bundle: Maker) -> None:
    bundles = [bundle(f"b{number}") for number in range(4)]
    results: list[int] = []

    def create(made: Bundle) -> None:
        results.append(runu.create("same", made, check=False).returncode)

    threads = [threading.Thread(target=create, args=(made,)) for made in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 1, 1]
    assert runu.status("same") == "created"
    runu("delete", "--force", "same")


def test_delete_force_while_it_is_created_leaves_nothing(runu: Runu, bundle: Maker) -> None:
    for delay in (0.0, 0.03, 0.08, 0.15):
        made = bundle(f"mid{delay}")
        thread = threading.Thread(target=lambda made=made: runu.create("mid", made, check=False))
        thread.start()
        time.sleep(delay)
        while thread.is_alive():
            if (runu.root / "mid").exists():
                runu("delete", "--force", "mid", check=False)
            time.sleep(0.01)
        thread.join()
        runu("delete", "--force", "mid", check=False)
        assert not (runu.root / "mid").exists()


def test_a_create_that_is_killed_half_way_can_be_deleted(runu: Runu, bundle: Maker) -> None:
    for delay in (0.02, 0.06, 0.1, 0.2):
        made = bundle(f"half{delay}")
        argv = [str(runu.program), "--root", str(runu.root), "create", "--bundle", str(made.path), "half"]
        process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "UNIFLEET_RUNU_CONFIG": str(runu.config)}
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        runu("delete", "--force", "half", check=False)
        wait_for("nothing left", lambda: not runu.leaks(), 10)


# -- crashes -------------------------------------------------------------------------------------------------------------------------


def test_qemus_death_is_the_containers_end(runu: Runu, bundle: Maker) -> None:
    made = bundle("crash")
    runu.create("crash", made)
    runu("start", "crash")
    wait_for("a reading", made.readings)
    os.kill(vmm_of(runu, "crash"), signal.SIGSEGV)
    assert runu.wait("crash") == 139
    assert runu.status("crash") == "stopped"
    runu("delete", "crash")


def test_the_monitors_death_is_qemus_death(runu: Runu, bundle: Maker) -> None:
    made = bundle("orphan")
    runu.create("orphan", made)
    runu("start", "orphan")
    wait_for("a reading", made.readings)
    vmm = vmm_of(runu, "orphan")
    os.kill(runu.pid("orphan"), signal.SIGKILL)
    assert runu.wait("orphan") == 137
    wait_for("QEMU's end", lambda: reaped(vmm))
    assert runu.status("orphan") == "stopped"
    runu("delete", "orphan")


def test_a_zombie_is_stopped(runu: Runu, bundle: Maker) -> None:
    made = bundle("zombie", "--count", "1")
    runu.create("zombie", made)
    runu("start", "zombie")
    wait_for("a zombie", lambda: Path(f"/proc/{runu.pid('zombie')}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert runu.status("zombie") == "stopped"
    assert "container not running" in runu("kill", "zombie", "TERM", check=False).stderr
    runu("delete", "zombie")
    assert runu.wait("zombie") == 0


def test_a_monitor_that_hangs_is_ended_by_kill(runu: Runu, bundle: Maker) -> None:
    runu.create("hang", bundle("hang"))
    runu("start", "hang")
    os.kill(runu.pid("hang"), signal.SIGSTOP)
    runu("kill", "hang", "KILL")
    assert runu.wait("hang") == 137
    runu("delete", "hang")


# -- errors at create ----------------------------------------------------------------------------------------------------------------


def test_a_kernel_that_qemu_does_not_take_is_an_error_of_create(runu: Runu, bundle: Maker) -> None:
    made = bundle("bad")
    (made.path / "rootfs/boot/sensor").write_bytes(b"\x7fELF" + b"\0" * 5000)
    done = runu.create("bad", made, check=False)
    assert done.returncode == 1
    assert "QEMU does not build the machine" in runu.errors()[-1]
    assert len(runu.errors()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"process": {"args": ["/boot/sensor", "x" * 5000]}}, "kernel command line"),
        ({"process": {"args": "words"}}, "process.args"),
        ({"process": {"terminal": True, "args": ["a"]}}, "--console-socket"),
        ({"root": {"path": "nowhere"}}, "no directory"),
        ({"ociVersion": "2.0"}, "ociVersion"),
        ({"hooks": {"prestart": [{"path": "relative"}]}}, "hooks.prestart"),
        ({"linux": {"resources": {"memory": {"limit": 4 << 20}}}}, "bytes of memory"),
        ({"linux": {"cgroupsPath": "/x/../.."}}, "no group of a container"),
        ({"vm": {"kernel": {"path": "boot/sensor"}}}, "absolute path"),
        ({"vm": {"kernel": {"path": "/nowhere/kernel"}}}, "/nowhere/kernel"),
        ({"vm": {"kernel": {"path": "/dev/null"}}}, "not a regular file"),
        ({"vm": {"hypervisor": {"path": "/bin/sh"}, "kernel": {"path": "/etc/passwd"}}}, "not among those"),
        ({"vm": {"hypervisor": {"parameters": ["-monitor", "stdio"]}, "kernel": {"path": "/etc/passwd"}}}, "options of QEMU"),
        ({"mounts": [{"destination": "/data", "source": "/var/tmp", "type": "bind", "options": ["rbind", "rw"]}]}, "/data"),
        ({"mounts": [{"destination": "/data", "source": "/nowhere", "type": "bind", "options": ["rbind", "ro"]}]}, "/data"),
        ({"annotations": {"io.unifleet.memory": "much"}}, "io.unifleet.memory"),
        ({"annotations": {"io.unifleet.container-ports": "0"}}, "io.unifleet.container-ports"),
    ],
)
def test_what_cannot_be_run_is_refused_by_create_and_leaves_nothing(runu: Runu, bundle: Maker, change: dict[str, Any], reason: str) -> None:
    made = bundle("wrong")
    linux = {**made.config["linux"], **change.get("linux", {})}
    made.config.update({**change, "linux": linux})
    made.write()
    assert runu.create("wrong", made, check=False).returncode == 1
    assert reason in runu.errors()[-1]
    assert not (runu.directory / "wrong.pid").exists()


def test_a_kernel_path_that_leads_out_of_the_image_is_refused(runu: Runu, bundle: Maker) -> None:
    made = bundle("link")
    (made.path / "rootfs/boot/sensor").unlink()
    (made.path / "rootfs/boot/sensor").symlink_to("../../../../../../../../etc/passwd")
    assert runu.create("link", made, check=False).returncode == 1
    assert "sensor" in runu.errors()[-1]


def test_a_full_disk_is_an_error_that_leaves_nothing(runu: Runu, bundle: Maker) -> None:
    runu.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=3", "tmpfs", str(runu.root)], check=True)
    try:
        assert runu.create("full", bundle("full"), check=False).returncode == 1
        assert list(runu.root.iterdir()) == []
    finally:
        subprocess.run(["umount", str(runu.root)], check=True)


def test_exec_says_at_once_that_a_unikernel_has_no_second_program(runu: Runu, bundle: Maker) -> None:
    runu.create("exec", bundle("exec"))
    runu("start", "exec")
    done = runu("exec", "--process", "/nowhere", "--detach", "--pid-file", str(runu.directory / "e.pid"), "exec", check=False)
    assert done.returncode == 255
    assert "is a unikernel" in done.stderr
    assert "is a unikernel" in runu.errors()[-1]
    assert not (runu.directory / "e.pid").exists()
    runu("delete", "--force", "exec")


# -- hooks ---------------------------------------------------------------------------------------------------------------------------


def hook(tmp_path: Path, name: str, code: int = 0) -> dict[str, Any]:
    """A hook that notes its name and what it is told."""
    script = tmp_path / f"hook-{name}"
    script.write_text(f"#!/bin/sh\nprintf '{name} ' >> {tmp_path}/hooks\ncat >> {tmp_path}/hooks\necho >> {tmp_path}/hooks\nexit {code}\n")
    script.chmod(0o755)
    return {"path": str(script), "args": [name]}


def test_hooks_run_in_their_order_with_the_state_on_their_stdin(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    made = bundle("hooked", "--count", "1", hooks={kind: [hook(tmp_path, kind), hook(tmp_path, f"{kind}2")] for kind in kinds})
    runu.create("hooked", made)
    runu("start", "hooked")
    runu.wait("hooked")
    runu("delete", "hooked")
    lines = (tmp_path / "hooks").read_text().splitlines()
    assert [line.partition(" ")[0] for line in lines] == [name for kind in kinds for name in (kind, f"{kind}2")]
    states = {line.partition(" ")[0]: json.loads(line.partition(" ")[2]) for line in lines}
    assert {state["id"] for state in states.values()} == {"hooked"}
    assert {state["bundle"] for state in states.values()} == {str(made.path)}
    statuses = [states[kind]["status"] for kind in kinds]
    assert statuses == ["creating", "creating", "creating", "created", "running", "stopped"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_create_hook_that_fails_undoes_create(runu: Runu, bundle: Maker, tmp_path: Path, kind: str) -> None:
    made = bundle("failing", hooks={kind: [hook(tmp_path, kind, 3)]})
    assert runu.create("failing", made, check=False).returncode == 1
    assert f"hook {kind}[0]" in runu.errors()[-1]


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_start_hook_that_fails_stops_the_container(runu: Runu, bundle: Maker, tmp_path: Path, kind: str) -> None:
    runu.create("failing", bundle("failing", hooks={kind: [hook(tmp_path, kind, 3)]}))
    assert runu("start", "failing", check=False).returncode == 1
    assert runu.wait("failing") == 137
    runu("delete", "failing")


def test_a_poststop_hook_that_fails_is_only_noted(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    runu.create("late", bundle("late", hooks={"poststop": [hook(tmp_path, "one", 3), hook(tmp_path, "two")]}))
    runu("kill", "late", "KILL")
    runu.wait("late")
    runu("delete", "late")
    assert (tmp_path / "hooks").read_text().count("\n") == 2


def test_a_hook_that_takes_too_long_is_ended(runu: Runu, bundle: Maker) -> None:
    made = bundle("slow", hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]})
    begun = time.monotonic()
    assert runu.create("slow", made, check=False).returncode == 1
    assert time.monotonic() - begun < 15
    assert "timeout of 1 s" in runu.errors()[-1]


# -- limits --------------------------------------------------------------------------------------------------------------------------


def test_monitor_and_qemu_are_in_the_containers_group_with_its_limits(runu: Runu, bundle: Maker) -> None:
    limits = {"memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}, "pids": {"limit": 10}}
    made = bundle("group")
    made.config["linux"]["resources"] = limits
    made.write()
    runu.create("group", made)
    runu("start", "group")
    wait_for("a reading", made.readings)
    pids = sorted(json.loads(runu("ps", "--format", "json", "group").stdout))
    assert pids == sorted([runu.pid("group"), vmm_of(runu, "group")])
    for pid in pids:
        assert f"{runu.group}/group" in Path(f"/proc/{pid}/cgroup").read_text()
    values = {
        path.name: path.read_text().strip()
        for top in group_directories(f"{runu.group}/group")
        for path in top.iterdir()
        if path.is_file() and path.name in ("memory.limit_in_bytes", "memory.max", "cpu.shares", "cpu.weight", "pids.max")
    }
    assert {values.get("memory.limit_in_bytes"), values.get("memory.max")} & {str((64 + 32) << 20)}, values
    assert {values.get("cpu.shares"), values.get("cpu.weight")} & {"512", "20"}, values
    assert b"size=64M" in Path(f"/proc/{vmm_of(runu, 'group')}/cmdline").read_bytes()
    runu("update", "--resources", "-", "group", stdin=json.dumps({"memory": {"limit": 80 << 20}, "cpu": {"shares": 256}}))
    assert runu("update", "--memory", str(32 << 20), "group", check=False).returncode == 1
    assert "booted with" in runu.errors()[-1]
    runu("delete", "--force", "group")


def test_a_guest_that_outgrows_its_group_is_killed_for_it(runu: Runu, bundle: Maker) -> None:
    """The group above, a pod's without the overhead of a RuntimeClass, is too small for QEMU itself, which the kernel then ends."""
    runu.config.write_text(json.dumps({"accelerator": "tcg", "memory_overhead": 0, "memory_default": 16 << 20}))
    made = bundle("oom")
    made.config["linux"]["resources"] = {"memory": {"limit": 12 << 20, "swap": 12 << 20}}
    made.write()
    done = runu.create("oom", made, check=False)
    if done.returncode == 0:
        runu("start", "oom", check=False)
        assert runu.wait("oom") == 137
        runu("delete", "oom")
    else:
        assert "ended" in runu.errors()[-1] or "QEMU" in runu.errors()[-1]


def test_qemu_has_no_privileges(runu: Runu, bundle: Maker) -> None:
    runu.create("user", bundle("user"))
    lines = Path(f"/proc/{vmm_of(runu, 'user')}/status").read_text().splitlines()
    status = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    assert all(int(number) >= 1_900_000_000 for number in status["Uid"] + status["Gid"])
    assert status["Groups"] == []
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[kind][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    kept = {str(path.readlink()) for path in Path(f"/proc/{vmm_of(runu, 'user')}/fd").iterdir()}
    assert not any(str(runu.root) in path for path in kept), kept
    runu("delete", "--force", "user")


def test_two_containers_run_as_two_users(runu: Runu, bundle: Maker) -> None:
    users = set()
    for name in ("one", "two"):
        runu.create(name, bundle(name))
        users.add(Path(f"/proc/{vmm_of(runu, name)}").stat().st_uid)
    assert len(users) == 2
    for name in ("one", "two"):
        runu("delete", "--force", name)


# -- terminal ------------------------------------------------------------------------------------------------------------------------


def test_a_terminal_is_handed_over_and_is_the_guests_console(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    made = bundle("tty", "--count", "2", "--period", "0.05")
    made.config["process"]["terminal"] = True
    made.write()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "console.sock"))
    listener.listen(1)
    received: list[int] = []

    def receive() -> None:
        connection, _address = listener.accept()
        _name, descriptors, _flags, _from = socket.recv_fds(connection, 4096, 4)
        received.extend(descriptors)

    thread = threading.Thread(target=receive)
    thread.start()
    runu.create("tty", made, "--console-socket", str(tmp_path / "console.sock"))
    thread.join(10)
    assert len(received) == 1
    runu("start", "tty")
    said = b""
    while b"unikernel: exit" not in said:
        said += os.read(received[0], 1024)
    assert said.count(b"value=") == 2
    assert runu.wait("tty") == 0
    os.close(received[0])
    listener.close()
    runu("delete", "tty")
    assert pty  # the master is a pty's


# -- network -------------------------------------------------------------------------------------------------------------------------


def test_the_guest_has_the_pods_address_and_containers_beside_it_their_own_connections(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    with pod_namespace(f"rn{os.getpid()}", 1) as namespace:
        made = bundle("net", profile={"network": True})
        made.config["linux"]["namespaces"] = [{"type": "network", "path": namespace}]
        made.config["annotations"] = {"io.unifleet.container-ports": "8081"}
        (tmp_path / "resolv.conf").write_text("search x\nnameserver fe80::1\nnameserver 10.9.8.7\n")
        made.config["mounts"] = [
            {"destination": "/etc/resolv.conf", "source": str(tmp_path / "resolv.conf"), "type": "bind", "options": ["rbind"]}
        ]
        made.write()
        runu.create("net", made)
        runu("start", "net")
        wait_for("an answer by HTTP", lambda: b'"sensor"' in fetch("10.77.41.6", 80))
        assert subprocess.run(["ping", "-c", "1", "-W", "5", "10.77.41.6"], check=False, capture_output=True).returncode == 0
        assert b"UNIFLEET_NAMESERVERS=10.9.8.7" in Path(f"/proc/{vmm_of(runu, 'net')}/cmdline").read_bytes()
        name = namespace.rpartition("/")[2]
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, "python3", "-m", "http.server", "8081"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        outside = subprocess.Popen(
            ["python3", "-m", "http.server", "8082", "--bind", "10.77.41.5"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            wait_for("the sidecar's server", lambda: b"200 OK" in fetch("10.77.41.6", 8081))
            wait_for(
                "the sidecar's own connection",
                lambda: (
                    subprocess.run(
                        [
                            "ip",
                            "netns",
                            "exec",
                            name,
                            "python3",
                            "-c",
                            "import urllib.request as u;u.urlopen('http://10.77.41.5:8082/',timeout=5)",
                        ],
                        check=False,
                        capture_output=True,
                    ).returncode
                    == 0
                ),
            )
        finally:
            server.kill()
            outside.kill()
            server.wait()
            outside.wait()
        other = bundle("other", profile={"network": True})
        other.config["linux"]["namespaces"] = [{"type": "network", "path": namespace}]
        other.write()
        assert runu.create("other", other, check=False).returncode == 1
        assert "another unikernel of this pod" in runu.errors()[-1]
        runu("kill", "net", "TERM")
        assert runu.wait("net") == 0
        runu("delete", "net")
        links = subprocess.run(["ip", "-n", name, "-br", "link"], check=True, capture_output=True, text=True).stdout
        assert "runu" not in links
        rules = subprocess.run(["tc", "-n", name, "qdisc", "show", "dev", "eth0"], check=True, capture_output=True, text=True).stdout
        assert "ingress" not in rules


def fetch(address: str, port: int) -> bytes:
    try:
        with socket.create_connection((address, port), 2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
            said = b""
            while True:
                part = connection.recv(4096)
                if not part:
                    return said
                said += part
    except OSError:
        return b""


# -- volumes -------------------------------------------------------------------------------------------------------------------------


def test_a_config_map_reaches_the_guest_and_links_do_not_lead_out(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    volume = tmp_path / "pods/uid/volumes/kubernetes.io~configmap/settings"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..2026/value").write_text("36.6\n")
    (volume / "..data").symlink_to("..2026")
    (volume / "value").symlink_to("..data/value")
    made = bundle("files", "--source", "file:/etc/sensor/value", "--count", "1")
    made.config["mounts"] = [
        {"destination": "/etc/sensor", "source": str(volume), "type": "bind", "options": ["rbind", "rprivate", "ro"]},
        {"destination": "/proc", "source": "proc", "type": "proc"},
        {"destination": "/dev/termination-log", "source": "/var/lib/kubelet/pods/u/containers/c/1", "type": "bind", "options": ["rbind"]},
    ]
    made.write()
    runu.create("files", made)
    runu("start", "files")
    assert runu.wait("files") == 0
    assert "value=36.6" in made.said
    runu("delete", "files")
    (volume / "secret").symlink_to("/../../../../../../etc/shadow")
    assert runu.create("files", made, check=False).returncode == 1
    assert "/etc/sensor" in runu.errors()[-1]


# -- the vm object and spec ----------------------------------------------------------------------------------------------------------


def test_spec_makes_a_bundle_that_runs(runu: Runu, tmp_path: Path) -> None:
    directory = tmp_path / "spec"
    (directory / "rootfs").mkdir(parents=True)
    made = make_bundle(tmp_path / "kernel", runu.group)
    runu(
        "spec",
        "--bundle",
        str(directory),
        "--kernel",
        str(made.path / "rootfs/boot/sensor"),
        "--memory",
        "16Mi",
        "--arg",
        "--count",
        "--arg",
        "2",
        "--arg",
        "--period=0.05",
        check=False,
    )
    config = json.loads((directory / "config.json").read_text())
    assert config["vm"]["kernel"]["path"].endswith("/boot/sensor")
    assert config["vm"]["hwConfig"]["memory"] == 16 << 20
    assert runu("spec", "--bundle", str(directory), "--kernel", "/x", check=False).returncode == 1, "an existing file is not overwritten"
    config["process"]["args"][3:] = ["2", "--period", "0.05"]
    config["linux"]["cgroupsPath"] = f"{runu.group}/spec"
    (directory / "config.json").write_text(json.dumps(config))
    done = runu("run", "--bundle", str(directory), "spec")
    assert done.stdout.count("value=") == 2


def test_the_administrator_can_allow_parameters(runu: Runu, bundle: Maker) -> None:
    runu.config.write_text(json.dumps({"accelerator": "tcg", "allow_vm_parameters": True}))
    made = bundle("allowed", "--count", "1")
    kernel = str(made.path / "rootfs/boot/sensor")
    made.config["vm"] = {"hypervisor": {"path": "", "parameters": ["-rtc", "base=2020-01-01"]}, "kernel": {"path": kernel}}
    made.write()
    runu.create("allowed", made)
    assert b"base=2020-01-01" in Path(f"/proc/{vmm_of(runu, 'allowed')}/cmdline").read_bytes()
    runu("start", "allowed")
    assert runu.wait("allowed") == 0
    runu("delete", "allowed")


# -- ordinary containers ---------------------------------------------------------------------------------------------------------------


def test_what_is_no_unikernel_is_runcs(runu: Runu, tmp_path: Path) -> None:
    directory = tmp_path / "plain"
    (directory / "rootfs").mkdir(parents=True)
    done = runu("create", "--bundle", str(directory), "plain", check=False)
    assert "config.json" in done.stderr
    (directory / "config.json").write_text(
        json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/nothing"], "cwd": "/"}})
    )
    runu.config.write_text(json.dumps({"runc": "/bin/echo"}))
    done = runu("create", "--bundle", str(directory), "plain")
    assert done.stdout.split()[-4:] == ["create", "--bundle", str(directory), "plain"]


# -- many ----------------------------------------------------------------------------------------------------------------------------


def test_many_at_once(runu: Runu, bundle: Maker) -> None:
    names = [f"n{number}" for number in range(10)]
    bundles = {name: bundle(name, "--count", "2", "--period", "0.1") for name in names}

    def live(name: str) -> None:
        runu.create(name, bundles[name])
        runu("start", name)

    threads = [threading.Thread(target=live, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [runu.wait(name) for name in names] == [0] * len(names)
    assert all(bundles[name].readings() == 2 for name in names)
    listed = json.loads(runu("list", "--format", "json").stdout)
    assert {entry["id"] for entry in listed} == set(names)
    for name in names:
        runu("delete", name)
