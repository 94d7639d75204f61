# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runu makes around a machine, with real ones: hooks, limits, privileges, terminal, network, volumes, the vm object.

And that what is no unikernel is runc's. After each test nothing may be left.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from runu_host import Maker, Runu, build, bundle, group_directories, make_bundle, pod_namespace, runu, vmm_of, wait_for

__all__ = ["bundle", "runu"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

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


def test_for_want_of_memory_the_kernel_takes_the_machine_and_not_the_monitor_that_tells_of_it(runu: Runu, bundle: Maker) -> None:
    made = bundle("victim")
    made.config["process"]["oomScoreAdj"] = 500
    made.write()
    runu.create("victim", made)
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (runu.pid("victim"), vmm_of(runu, "victim"))]
    assert scores == [-998 if may_lower_oom_score() else 500, 500]
    runu("delete", "--force", "victim")


def may_lower_oom_score() -> bool:
    return subprocess.run(["sh", "-c", "echo -998 >/proc/self/oom_score_adj"], check=False, capture_output=True).returncode == 0


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


def on_localhost(name: str, port: int) -> str:
    """What a server says to a program in a pod's namespace that asks 127.0.0.1, or why it says nothing."""
    script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/', timeout=5).read().decode())"
    done = subprocess.run(["ip", "netns", "exec", name, "python3", "-c", script], check=False, capture_output=True, text=True)
    return done.stdout or done.stderr


def test_the_pods_localhost_reaches_the_guest_for_as_long_as_it_lives(runu: Runu, bundle: Maker) -> None:
    with pod_namespace(f"rn{os.getpid()}", 6) as namespace:
        name = namespace.rpartition("/")[2]
        for life, end in (("first", "TERM"), ("second", "KILL"), ("third", "")):
            made = bundle(life, profile={"network": True})
            made.config["linux"]["namespaces"] = [{"type": "network", "path": namespace}]
            made.write()
            runu.create(life, made)
            runu("start", life)
            wait_for("an answer by HTTP", lambda: b'"sensor"' in fetch("10.77.41.26", 80))
            for _again in range(3):
                assert '"sensor"' in on_localhost(name, 80)
            assert "Connection refused" in on_localhost(name, 81)
            if end:
                runu("kill", life, end)
            else:
                os.kill(runu.pid(life), signal.SIGKILL)
            runu.wait(life)
            runu("delete", life)
            assert "Connection refused" in on_localhost(name, 80)
            rules = subprocess.run(["ip", "netns", "exec", name, "nft", "list", "ruleset"], check=True, capture_output=True, text=True)
            assert not rules.stdout.strip()


def test_the_guest_reaches_what_a_container_of_its_pod_serves_on_localhost(runu: Runu, bundle: Maker, tmp_path: Path) -> None:
    with pod_namespace(f"rn{os.getpid()}", 6) as namespace:
        made = bundle("caller", "--url", "http://192.0.0.8:8081/", "--period", "0.5", "--tries", "0", profile={"network": True})
        shutil.copy(build() / "caller-kvm-amd64", made.path / "rootfs/boot/sensor")
        made.config["linux"]["namespaces"] = [{"type": "network", "path": namespace}]
        made.write()
        command = ["ip", "netns", "exec", namespace.rpartition("/")[2], "python3", "-m", "http.server", "--bind", "127.0.0.1", "8081"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as server:
            runu.create("caller", made)
            runu("start", "caller")
            wait_for("the sidecar's answer in the guest's log", lambda: "status=200" in made.said)
            server.kill()
        runu("kill", "caller", "KILL")
        runu.wait("caller")
        runu("delete", "caller")


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
