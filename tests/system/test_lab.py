# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second lab beside whatever runs here: brought up, run through power cuts and crashes, and taken away without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
NAME = "trial"
GROUP = "/sys/fs/cgroup"
DISK = "/var/lib/containerd"
"""In a lab host, a directory that is not an overlay, so that another lab can stand on it."""

LEFT = (
    "ls /sys/class/net /run/netns; nft list tables; ls /sys/fs/cgroup/system.slice | grep inner; "
    "awk '{print $5}' /proc/self/mountinfo; cat /proc/sys/net/ipv4/ip_forward; true"
)
"""Shell: what a lab could leave behind."""


class Trial:
    """A lab of one small host, in a directory of its own."""

    def __init__(self, directory: Path, name: str = NAME, network: str = "10.78.7", **more: str) -> None:
        self.directory = directory / ".lab"
        self.inventory = directory / "hosts.yml"
        settings = {
            **_settings(),
            "lab_host_name": name,
            "lab_host_directory": str(self.directory),
            "lab_host_network": f"{network}.0/24",
            **more,
        }
        self.inventory.write_text(
            json.dumps({"all": {"vars": settings, "hosts": {"one": {"ansible_host": f"{network}.11"}}}}), encoding="utf-8"
        )

    def command(self, program: str, *words: str) -> list[str]:
        return [str(PROGRAMS / program), "-i", str(self.inventory), *words]

    def play(self, playbook: str, *words: str) -> str:
        """Run a playbook; its output, having checked that it succeeded."""
        done = run(self.command("ansible-playbook", f"playbooks/{playbook}.yml", *words))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *words: str) -> str:
        return self.play("lab_up", *words)

    def down(self) -> str:
        return self.play("lab_down")

    def inside(self, script: str) -> str:
        """Run a shell script in the host over ssh, as any playbook would; its output."""
        done = run(self.command("ansible", "one", "-m", "ansible.builtin.shell", "-a", script))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split(">>", 1)[1].strip()

    def supervisor(self) -> int:
        return int((self.directory / "hosts/one/pid").read_text(encoding="ascii").split()[0])


def _settings() -> dict[str, object]:
    done = run([str(PROGRAMS / "ansible-inventory"), "-i", "inventories/lab", "--host", "cp1"])
    wanted = {"ansible_user", "ansible_python_interpreter", "ansible_ssh_private_key_file", "ansible_ssh_common_args"}
    return {key: value for key, value in json.loads(done.stdout).items() if key in wanted}


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "ANSIBLE_FORCE_COLOR": "0",
    }


def machine() -> dict[str, object]:
    """Everything on the machine that a lab could leave behind, or take away though it is not its own."""
    binfmt = Path("/proc/sys/fs/binfmt_misc")
    return {
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "tables": run(["nft", "list", "tables"]).stdout,
        "binfmt": sorted(path.name for path in binfmt.iterdir()) if binfmt.is_dir() else [],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "groups": sorted(str(path) for path in Path(GROUP).rglob(f"{NAME}-*")),
        "processes": sorted(
            line for line in run(["ps", "-eo", "args"]).stdout.splitlines() if f"{NAME}-one" in line or "/.lab/hosts/one" in line
        ),
    }


@pytest.fixture(scope="module")
def before() -> dict[str, object]:
    return machine()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, before: dict[str, object]) -> Iterator[Trial]:
    lab = Trial(tmp_path_factory.mktemp("trial"))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


def test_a_dry_run_on_nothing_makes_nothing(tmp_path: Path) -> None:
    was = machine()
    lab = Trial(tmp_path)
    lab.up("--check", "--diff")
    assert machine() == was
    assert not lab.directory.exists()


def test_a_host_is_a_whole_machine(trial: Trial) -> None:
    assert trial.inside("hostname; systemctl is-system-running").split() == ["one", "running"]


def test_a_host_installs_packages_from_where_the_machine_does(trial: Trial) -> None:
    trial.inside("apt-get update -qq && apt-get install -y -qq --no-install-recommends hello")
    assert trial.inside("hello -g moin") == "moin"


def test_starting_a_running_lab_changes_nothing(trial: Trial) -> None:
    assert "changed=0" in trial.up()


def test_the_disk_and_the_host_key_survive_a_power_cut(trial: Trial) -> None:
    trial.inside("echo kept > /root/kept; sync")
    boot = trial.inside("systemctl show --property=UserspaceTimestampMonotonic --value")
    trial.up("-e", "lab_host_state=killed")
    assert run(trial.command("ansible", "one", "-m", "ansible.builtin.raw", "-a", "true")).returncode != 0
    assert "changed=0" in trial.up("-e", "lab_host_state=killed")
    trial.up()
    assert trial.inside("cat /root/kept") == "kept"
    assert trial.inside("systemctl show --property=UserspaceTimestampMonotonic --value") != boot


def test_a_host_that_is_shut_down_says_goodbye_to_its_services(trial: Trial) -> None:
    unit = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=true\\nExecStop=touch /root/goodbye\\n"
    trial.inside(f"printf '{unit}' > /etc/systemd/system/goodbye.service; systemctl daemon-reload; systemctl start goodbye")
    trial.up("-e", "lab_host_state=stopped")
    trial.up()
    assert trial.inside("ls /root/goodbye") == "/root/goodbye"


def test_a_reboot_inside_the_host_gives_a_fresh_network_under_the_same_supervisor(trial: Trial) -> None:
    supervisor = trial.supervisor()
    trial.inside("ip link add left type bridge; test -e /sys/class/net/left")
    done = run(trial.command("ansible", "one", "-m", "ansible.builtin.reboot", "-a", "reboot_timeout=60"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left" not in trial.inside("ls /sys/class/net").split()
    assert trial.supervisor() == supervisor


def test_a_killed_supervisor_is_a_power_cut_and_the_next_start_mends_it(trial: Trial) -> None:
    os.kill(trial.supervisor(), signal.SIGKILL)
    assert "changed=1" in trial.up()
    assert trial.inside("hostname") == "one"


BINFMT = "/proc/sys/fs/binfmt_misc"


class Apart:
    """What labs share, without other people's labs: a network, mounts and a /run of its own. Only the kernel's binfmt entries are one.

    The foreign architecture is armhf, since the labs of other people have arm64.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = arm_program(directory / "program", 42)
        unmount = f"while mountpoint -q {BINFMT}; do umount {BINFMT}; done"
        script = f"mount -t tmpfs tmpfs /run && {unmount} && echo 0 > /proc/sys/net/ipv4/ip_forward && echo ready && exec sleep infinity"
        self.keeper = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout
        assert self.keeper.stdout.readline() == "ready\n"
        self.emulated = self.emulates
        """Whether the machine ran armhf before any lab."""

    def shell(self, *words: str) -> str:
        done = run(["nsenter", f"--target={self.keeper.pid}", "--net", "--mount", *words])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def network(self, number: int, state: str, architecture: str = "armhf") -> str:
        """Ask for the network of a lab of that number; what the module says."""
        words = {
            "name": f"{NAME}-s{number}",
            "directory": str(self.lab(number)),
            "network": f"10.77.{50 + number}.0/24",
            "architectures": [architecture],
            "state": state,
        }
        here = ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", "localhost"]
        return self.shell(str(PROGRAMS / "ansible"), *here, "-m", "unifleet.hybrid.lab_network", "-a", json.dumps(words))

    def lab(self, number: int) -> Path:
        return self.directory / f"lab{number}"

    @property
    def forwards(self) -> bool:
        return self.shell("cat", "/proc/sys/net/ipv4/ip_forward") == "1"

    @property
    def emulates(self) -> bool:
        return self.shell("sh", "-c", f"{self.program} 2>&1; echo $?").endswith("42")

    def left(self) -> list[str]:
        """Files and mounts of labs; a binfmt_misc in which somebody else has an entry is not one."""
        mounted = self.shell("sh", "-c", f"! mountpoint -q {BINFMT} || ls {BINFMT}").split()
        return [*self.shell("find", "/run", "-name", "*labs*").splitlines(), *([BINFMT] if mounted == ["register", "status"] else [])]

    def end(self) -> None:
        self.keeper.kill()
        self.keeper.communicate()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    place = Apart(tmp_path)
    try:
        yield place
    finally:
        with contextlib.ExitStack() as stack:
            stack.callback(place.end)
            for number in (1, 2):
                stack.callback(place.network, number, "absent")


def arm_program(path: Path, status: int) -> Path:
    """The smallest Linux program for armhf: it ends with the status (elf(5); mov r0, status; mov r7, 1; svc 0)."""
    code = struct.pack("<III", 0xE3A00000 | status, 0xE3A07001, 0xEF000000)
    base, head = 0x10000, 52 + 32
    entry = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 40, 1, base + head, 52, 0, 0x05000400, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, base, base, head + len(code), head + len(code), 5, 0x1000)
    path.write_bytes(entry + segment + code)
    path.chmod(0o755)
    return path


def test_a_lab_that_came_first_may_go_first(apart: Apart) -> None:
    apart.network(1, "present")
    apart.network(2, "present")
    apart.network(1, "absent")
    assert apart.forwards
    assert apart.emulates
    apart.network(2, "absent")
    assert (apart.forwards, apart.emulates, apart.left()) == (False, apart.emulated, [])


def test_what_a_deleted_lab_held_goes_with_the_last_lab(apart: Apart) -> None:
    apart.network(1, "present")
    shutil.rmtree(apart.lab(1))
    apart.network(2, "present", "amd64")
    assert apart.forwards
    assert apart.emulates
    apart.network(2, "absent")
    assert (apart.forwards, apart.emulates, apart.left()) == (False, apart.emulated, [])


def test_the_list_of_foreign_programs_stays_mounted_where_somebody_else_put_one(apart: Apart) -> None:
    apart.network(1, "present")
    apart.shell("sh", "-c", f"echo ':{NAME}:E::{NAME}::/bin/true:' > {BINFMT}/register")
    try:
        apart.network(1, "absent")
        assert apart.emulates == apart.emulated
        assert apart.shell("ls", f"{BINFMT}/{NAME}")
    finally:
        apart.shell("sh", "-c", f"mountpoint -q {BINFMT} || mount -t binfmt_misc binfmt_misc {BINFMT}; echo -1 > {BINFMT}/{NAME}")


@contextlib.contextmanager
def start_that_is_killed(lab: Trial) -> Iterator[subprocess.Popen[bytes]]:
    """Ansible, starting the lab, until the block ends."""
    command = lab.command("ansible-playbook", "playbooks/lab_up.yml")
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True) as play:
        try:
            yield play
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(play.pid, signal.SIGKILL)


def test_ansible_may_be_killed_at_any_point_of_a_start(trial: Trial) -> None:
    trial.up("-e", "lab_host_state=killed")
    for pause in (1.5, 2.5, 3.5):
        with start_that_is_killed(trial):
            time.sleep(pause)
    trial.up()
    assert trial.inside("systemctl is-system-running --wait") == "running"


@pytest.mark.parametrize("kind", ["link", "mount", "cgroup", "namespace"])
def test_a_start_that_was_killed_half_way_is_taken_away_whole(tmp_path: Path, kind: str) -> None:
    was = machine()
    lab = Trial(tmp_path, f"{NAME}2", "10.78.8")
    ledger = lab.directory / "state.json"
    with start_that_is_killed(lab) as play:
        while not (ledger.exists() and f'"{kind}"' in ledger.read_text(encoding="utf-8")):
            assert play.poll() is None
            time.sleep(0.002)
    lab.down()
    assert machine() == was
    assert not lab.directory.exists()


def test_on_a_machine_with_systemd_a_host_is_a_service_with_controllers_of_its_own(tmp_path: Path) -> None:
    """The machine is itself a lab host: Debian 13 with systemd as process 1, control groups of version 2 and Debian's own Ansible."""
    outer = Trial(tmp_path, f"{NAME}3", "10.78.9", lab_host_suite="trixie", lab_host_cgroups="v2")
    collection = f"{DISK}/ansible_collections/unifleet/hybrid"
    settings = {
        "lab_host_name": "inner",
        "lab_host_directory": f"{DISK}/lab",
        "lab_host_cache": f"{DISK}/bases",
        "lab_host_suite": "trixie",
    }
    inventory = {"all": {"vars": settings, "hosts": {"two": {"ansible_host": "10.77.0.11"}}}}
    play = f"cd {collection} && ANSIBLE_COLLECTIONS_PATH={DISK} ansible-playbook -i {DISK}/hosts.json"
    inner = f"ssh -n -i {DISK}/lab/ssh/id_ed25519 -o UserKnownHostsFile={DISK}/lab/ssh/known_hosts root@10.77.0.11"
    was = machine()
    try:
        outer.up()
        disk = outer.directory / "hosts/one/data/containerd"
        shutil.copytree(REPOSITORY / "plugins", disk / "ansible_collections/unifleet/hybrid/plugins")
        shutil.copytree(REPOSITORY / "roles/lab_host", disk / "ansible_collections/unifleet/hybrid/roles/lab_host")
        shutil.copytree(REPOSITORY / "playbooks", disk / "ansible_collections/unifleet/hybrid/playbooks")
        (disk / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")
        base = Path((outer.directory / "hosts/one/base").read_text(encoding="utf-8").strip()).parent
        (disk / "bases").mkdir()
        assert run(["cp", "-a", str(base), str(disk / "bases")]).returncode == 0
        packages = "ansible-core systemd-container mmdebstrap nftables openssh-client"
        outer.inside(f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}")
        before = outer.inside(LEFT)
        assert "changed=4" in outer.inside(f"{play} playbooks/lab_up.yml")
        assert outer.inside(f"systemctl is-active inner-two; {inner} systemctl is-system-running").split() == ["active", "running"]
        assert "changed=0" in outer.inside(f"{play} playbooks/lab_up.yml")
        assert "changed=1" in outer.inside(f"{play} playbooks/lab_up.yml -e lab_host_state=killed")
        assert "changed=1" in outer.inside(f"{play} playbooks/lab_up.yml")
        outer.inside(f"{play} playbooks/lab_down.yml")
        assert outer.inside(LEFT) == before
    finally:
        outer.down()
    assert machine() == was


def test_an_inventory_that_cannot_be_read_takes_no_lab_down(trial: Trial, tmp_path: Path) -> None:
    done = run([str(PROGRAMS / "ansible-playbook"), "-i", str(tmp_path / "missing.yml"), "--check", "playbooks/lab_down.yml"])
    assert "changed=0" in done.stdout
    assert "skipped=1" in done.stdout


def test_without_root_one_sentence_says_so() -> None:
    module = "ansible_collections.unifleet.hybrid.plugins.module_utils.lab_machine"
    script = f"from {module} import preflight\ntry:\n    preflight(str, [])\nexcept Exception as error:\n    print(error)"
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("the lab needs root"), done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_lab_that_is_taken_down_leaves_the_machine_as_it_was(trial: Trial, before: dict[str, object]) -> None:
    trial.down()
    assert machine() == before
    assert not trial.directory.exists()
    assert "changed=0" in trial.down()
