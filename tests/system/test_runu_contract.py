# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runtime-spec and the stock shim ask of an OCI runtime, asked of runu with real machines.

These are the tests of opencontainers/runtime-tools' validation/ that mean something for a machine, said anew for a guest that speaks
through its console, and those that it lacks: races, crashes, errors, limits. After each, nothing may be left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from runu_host import Bundle, Maker, Runu, bundle, runu, vmm_of, wait_for

__all__ = ["bundle", "runu"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

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
