# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machines contract means on a real host: agents killed at any moment, service managers restarted, strangers left alone."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench, KvmBench, ProcessBench, Workload, has_stopped, is_running, wait_for

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines, Mount, Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.contract
STUB = Path(__file__).with_name("agent_stub.py")


def shell(bench: Bench, machines: Machines, script: str, mounts: tuple[Mount, ...] = (), memory_bytes: int = 32 << 20) -> str:
    assert isinstance(bench, ProcessBench)
    spec = bench.spec(bench.shell(script), mounts=mounts, memory_bytes=memory_bytes)
    machines.prepare(spec)
    machines.start(spec.key)
    return spec.key


def exit_code(machines: Machines, key: str) -> int:
    wait_for("the process to end", lambda: has_stopped(machines, key))
    state = machines.state(key)
    assert state is not None
    assert state.exit is not None
    return state.exit.code


@pytest.mark.only("process", "kvm")
def test_an_agent_killed_at_any_moment_leaves_nothing_lost_and_nothing_started_twice(bench: Bench, machines: Machines) -> None:
    machines.limitations()
    ready = bench.runs().ready
    for _number in range(4):
        specs = [bench.spec(bench.runs()) for _number in range(4)]
        file = bench.directory / "specs"
        file.write_bytes(pickle.dumps(specs))
        agent = subprocess.Popen([sys.executable, str(STUB), bench.kind, str(file)], stdout=subprocess.PIPE)
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"begin\n"
        time.sleep(random.uniform(0, 1.5))
        agent.kill()
        agent.wait()
        successor = bench.open()
        for spec in specs:
            state = successor.state(spec.key)
            assert state is None or state.phase in (Phase.CREATED, Phase.RUNNING), state
            if state is None:
                successor.prepare(spec)
            if state is None or state.phase is Phase.CREATED:
                successor.start(spec.key)
        for spec in specs:
            wait_for("every machine to speak", lambda m=successor, key=spec.key: ready in bench.console(m, key))  # type: ignore[misc]
            assert bench.console(successor, spec.key).count(ready) == 1
            seen = successor.state(spec.key)
            assert seen is not None
            assert (seen.phase, dict(seen.metadata)) == (Phase.RUNNING, dict(spec.metadata))
            successor.remove(spec.key)


@pytest.mark.only("process", "kvm")
def test_the_service_manager_may_be_restarted_beneath_running_machines(bench: Bench, machines: Machines) -> None:
    told: list[str] = []
    key = bench.spec(bench.runs()).key
    restart = ["systemctl", "daemon-reexec"] if bench.kind == "process" else ["systemctl", "restart", "libvirtd"]
    with machines.watch(told.append):
        spec = bench.spec(bench.runs(), key=key)
        machines.prepare(spec)
        machines.start(key)
        wait_for("the workload", lambda: bench.runs().ready in bench.console(machines, key))
        before = machines.state(key)
        subprocess.run(restart, check=True)
        wait_for("the manager to answer", lambda: answers(machines))
        assert machines.state(key) == before
        time.sleep(2.0)
        told.clear()
        machines.request_stop(key)
        wait_for("word of the end from the restarted manager", lambda: key in told and has_stopped(machines, key))
        assert exit_code(machines, key) == 0
    subprocess.run(restart, check=True)
    wait_for("the manager to answer", lambda: answers(bench.open()))
    assert exit_code(bench.open(), key) == 0


def answers(machines: Machines) -> bool:
    try:
        machines.health()
    except UnifleetError:
        return False
    return True


@pytest.mark.only("process")
def test_units_of_others_are_neither_listed_nor_touched(bench: Bench, machines: Machines) -> None:
    unit = f"unifleet-other-{uuid.uuid4()}.service"
    subprocess.run(["systemd-run", "-q", f"--unit={unit}", "sleep", "300"], check=True)
    try:
        assert not [state.key for state in machines.list() if "other" in state.key]
        machines.kill(unit[len("unifleet-") : -len(".service")])
        assert subprocess.run(["systemctl", "is-active", "-q", unit], check=False).returncode == 0
    finally:
        subprocess.run(["systemctl", "stop", unit], check=True)


@pytest.mark.only("kvm")
def test_domains_of_others_are_neither_listed_nor_touched(bench: Bench, machines: Machines) -> None:
    import libvirt

    key = str(uuid.uuid4())
    connection = libvirt.open("qemu:///system")
    domain = connection.createXML(
        f"<domain type='qemu'><name>other-{key}</name><uuid>{key}</uuid><memory>16384</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    )
    try:
        assert key not in {state.key for state in machines.list()}
        assert machines.state(key) is None
        machines.kill(key)
        machines.remove(key)
        assert machines.request_stop(key) is False
        with pytest.raises(UnifleetError, match="not Unifleet's"):
            machines.prepare(bench.spec(bench.runs(), key=key))
        assert domain.isActive()
    finally:
        bench.keys[:] = [kept for kept in bench.keys if kept != key]
        domain.destroy()


@pytest.mark.only("kvm")
def test_a_guest_that_dies_with_its_hypervisor_process_is_no_success(bench: Bench, machines: Machines) -> None:
    spec = bench.spec(bench.runs())
    machines.prepare(spec)
    machines.start(spec.key)
    wait_for("the guest", lambda: bench.runs().ready in bench.console(machines, spec.key))
    pid = Path(f"/run/libvirt/qemu/unifleet-{spec.key}.pid").read_text()
    os.kill(int(pid), 9)
    assert exit_code(machines, spec.key) != 0


@pytest.mark.only("kvm")
def test_a_domain_has_no_device_that_was_not_asked_for(bench: Bench, machines: Machines) -> None:
    import xml.etree.ElementTree as ET

    import libvirt

    assert isinstance(bench, KvmBench)
    spec = bench.spec(bench.runs())
    machines.prepare(spec)
    machines.start(spec.key)
    devices = ET.fromstring(libvirt.open("qemu:///system").lookupByUUIDString(spec.key).XMLDesc()).find("devices")
    assert devices is not None
    kinds = {device.tag for device in devices}
    assert not kinds & {"graphics", "video", "sound", "disk", "interface", "hostdev", "channel", "rng", "tpm"}
    assert devices.find("memballoon").get("model") == "none"  # type: ignore[union-attr]


@pytest.mark.only("process")
def test_children_die_with_the_process_however_it_ends(bench: Bench, machines: Machines) -> None:
    for script, end in (("sleep 987 & sleep 987 & wait", "kill"), ("sleep 987 & exit 0", ""), ("sleep 987 & kill -SEGV $$", "")):
        key = shell(bench, machines, script)
        if end:
            wait_for("the children", lambda: sleepers() == 2)
            machines.kill(key)
        wait_for("the end", lambda key=key: has_stopped(machines, key))  # type: ignore[misc]
        wait_for("the children's end", lambda: sleepers() == 0)


def sleepers() -> int:
    """Processes of this host that sleep for 987 s."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += b"sleep\x00987\x00" in entry.read_bytes()
        except OSError:
            continue
    return count


@pytest.mark.only("process")
def test_a_signal_is_128_and_its_number(bench: Bench, machines: Machines) -> None:
    assert exit_code(machines, shell(bench, machines, "kill -SEGV $$")) == 139
    key = shell(bench, machines, "echo ready; exec sleep 300")
    wait_for("the program", lambda: b"ready" in bench.console(machines, key))
    machines.request_stop(key)
    assert exit_code(machines, key) == 143


@pytest.mark.only("process")
def test_exit_codes_that_systemd_uses_itself_are_the_programs_own(bench: Bench, machines: Machines) -> None:
    key = shell(bench, machines, "sleep 0.3; exit 203")
    assert exit_code(machines, key) == 203
    state = bench.open().state(key)
    assert state is not None
    assert state.exit is not None
    assert state.exit.reason == "Error"


@pytest.mark.only("process")
def test_memory_limits_hold_or_are_said_not_to(bench: Bench, machines: Machines) -> None:
    limitations = " ".join(machines.limitations())
    if "memory limits are not enforced" in limitations:
        return
    key = shell(bench, machines, "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory_bytes=24 << 20)
    assert exit_code(machines, key) == 137
    state = machines.state(key)
    assert state is not None
    assert state.exit is not None
    assert state.exit.reason == ("Error" if "not OOMKilled" in limitations else "OOMKilled")


@pytest.mark.only("process")
def test_mounts_are_seen_and_are_read_only_unless_asked_otherwise(bench: Bench, machines: Machines) -> None:
    assert isinstance(bench, ProcessBench)
    (bench.directory / "sensor").write_text("21.5\n")
    (bench.directory / "data").mkdir()
    (bench.directory / "data").chmod(0o777)
    mounts = (
        Mount(bench.directory / "sensor", "/etc/sensor/value"),
        Mount(bench.directory / "data", "/data", read_only=False),
        Mount(bench.directory / "data", "/var/shown"),
    )
    script = "cat /etc/sensor/value; echo a >/data/made; echo b >/var/shown/not; echo c >/etc/sensor/value; ls /var/shown; echo d >/bin/x"
    key = shell(bench, machines, script, mounts)
    wait_for("the end", lambda: has_stopped(machines, key))
    assert bench.console(machines, key) == b"21.5\nmade\n"
    assert (bench.directory / "data" / "made").read_text() == "a\n"
    assert (bench.directory / "sensor").read_text() == "21.5\n"
    assert sorted(path.name for path in bench.image.iterdir()) == ["bin"], "the image on disk was changed"


@pytest.mark.only("process")
def test_a_mount_whose_source_is_missing_is_a_start_error_that_names_it(bench: Bench, machines: Machines) -> None:
    key = shell(bench, machines, "true", (Mount(bench.directory / "missing", "/data"),))
    assert exit_code(machines, key) == 128
    state = machines.state(key)
    assert state is not None
    assert state.exit is not None
    assert "missing" in state.exit.message


@pytest.mark.only("process")
def test_a_process_is_kept_from_the_host(bench: Bench, machines: Machines) -> None:
    script = (
        "id -u; ls / ; cat /etc/shadow; ls /var/log; touch /x; echo 1 > /proc/sys/kernel/panic; touch /tmp/mine && echo own tmp; "
        'env; echo "$NAME"; echo warn >&2'
    )
    key = shell(bench, machines, script)
    wait_for("the end", lambda: has_stopped(machines, key))
    said = bench.console(machines, key).decode()
    assert int(said.splitlines()[0]) > 1000
    assert "own tmp" in said
    assert "va%lue $X" in said
    assert "root:" not in said
    assert "INVOCATION_ID" not in said
    assert not Path("/tmp/mine").exists()
    errors = dict(machines.raw_console(key, bench.directory / "logs"))["stderr"].read_text()
    assert "warn" in errors
    assert "/x: Read-only file system" in errors or "/x: Permission denied" in errors


@pytest.mark.only("process")
def test_arguments_arrive_as_they_are_and_a_reload_finds_no_fault(bench: Bench, machines: Machines) -> None:
    assert isinstance(bench, ProcessBench)
    words = ("$HOME", "${NAME} $$ $", "%h 100%", "a b;c", "\\x41 \\", "\u00e9\"'", "", "line\nline")
    boot = replace(bench.shell("").boot, argv=("sh", "-c", 'for w; do echo "<$w>"; done; exec sleep 300', "sh", *words))
    spec = bench.spec(Workload(boot))
    machines.prepare(spec)
    machines.start(spec.key)
    wanted = "".join(f"<{word}>\n" for word in words).encode()
    wait_for("the words", lambda: bench.console(machines, spec.key) == wanted)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    shown = subprocess.run(["systemctl", "show", "-P", "LoadState", f"unifleet-{spec.key}.service"], check=True, capture_output=True)
    assert shown.stdout == b"loaded\n"


@pytest.mark.only("process")
def test_a_unit_stopped_by_somebody_else_is_told_as_such(bench: Bench, machines: Machines) -> None:
    key = shell(bench, machines, "exec sleep 300")
    assert is_running(machines, key)
    subprocess.run(["systemctl", "stop", f"unifleet-{key}.service"], check=True)
    wait_for("the end", lambda: has_stopped(machines, key))
    state = machines.state(key)
    assert state is not None
    assert state.exit is not None
    assert (state.exit.code, state.exit.reason) == (137, "ContainerStatusUnknown")
