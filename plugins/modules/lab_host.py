#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible face of one lab host: a Debian machine with systemd and sshd on this very machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_host
short_description: Start, stop or remove a host of a lab
version_added: 0.1.0
description:
  - A lab host is a real systemd machine in a container of systemd-nspawn, with its own network namespace, address, control
    groups and disk (an overlay over a shared base), reached over ssh as root with the lab's key.
  - A small supervisor keeps it running after Ansible has gone, and boots it again when it reboots.
author: [Unifleet developers (@unifleet)]
options:
  name:
    description: Name of the host.
    type: str
    required: true
  address:
    description: IPv4 address of the host. Needed to start it.
    type: str
  base:
    description: Root directory of the base image, as M(unifleet.hybrid.lab_base) returns it. Needed to start the host for the first time.
    type: path
  lab:
    description: Name of the lab.
    type: str
    required: true
  directory:
    description: State directory of the lab, an absolute path.
    type: path
    required: true
  network:
    description: IPv4 network of the lab.
    type: str
    required: true
  supervisor:
    description: Path of the supervisor program. Needed to start the host.
    type: path
  cgroups:
    description:
      - The control groups that the host sees. V(auto) is what the machine has with the most controllers.
      - V(v2) on a machine with version 1 gives the layout of version 2 with hardly any controllers.
    type: str
    choices: [auto, v1, v2]
    default: auto
  state:
    description:
      - V(started) boots the host unless it runs, and waits until sshd answers and systemd has finished booting.
      - V(stopped) shuts it down as C(systemctl poweroff) does and keeps its disk.
      - V(killed) cuts the power and keeps its disk.
      - V(absent) removes it with its disk.
    type: str
    choices: [started, stopped, killed, absent]
    default: started
  timeout:
    description: Seconds that a boot may take.
    type: int
    default: 90
attributes:
  check_mode:
    description: Says whether the host would be started, stopped or removed.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
  platform:
    description: Debian machines with root.
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Start a host
  unifleet.hybrid.lab_host:
    name: kvm1
    address: 10.77.0.12
    base: /root/.cache/unifleet/bases/trixie-amd64-5f0c2a61d7e4/root
    lab: unifleet
    directory: /srv/unifleet/.lab
    network: 10.77.0.0/24
    supervisor: /srv/unifleet/roles/lab_host/files/supervise.py

- name: Cut its power
  unifleet.hybrid.lab_host:
    name: kvm1
    lab: unifleet
    directory: /srv/unifleet/.lab
    network: 10.77.0.0/24
    state: killed
"""

RETURN = r"""
state:
  description: The host's state now.
  returned: always
  type: str
  sample: started
seconds:
  description: How long the boot took until sshd answered.
  returned: when the host was booted
  type: float
  sample: 1.4
systemd:
  description: What C(systemctl is-system-running) says in the host.
  returned: when the host was booted
  type: str
  sample: running
"""

import contextlib
import json
import os
import re
import shutil
import socket
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_boot, lab_cgroups, lab_machine, lab_names
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import Host
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_root import Root, hand_over, make_kvm_node

SATISFIES = {"started": {"started"}, "stopped": {"stopped", "absent"}, "killed": {"stopped", "absent"}, "absent": {"absent"}}
OWN_COMMANDS = ["ip", "mount", "umount", "setpriv", "systemd-nspawn", "nsenter", "ssh-keygen"]


class LabHost:
    """One host and what can be done to it."""

    def __init__(self, module: AnsibleModule, host: Host) -> None:
        self.module = module
        self.host = host
        self.machine = lab_machine.Machine(host.lab, module.run_command)

    # --- looking

    def state(self) -> str:
        if self._supervisor() is not None:
            return "started"
        return "stopped" if self.host.directory.is_dir() else "absent"

    def _supervisor(self) -> int | None:
        """The supervisor's process id, while it lives."""
        try:
            pid, start = self.host.pid_file.read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if lab_machine.start_time(int(pid)) == start else None

    def _leader(self) -> int | None:
        """The host's init: the process in its control groups that is process 1 in a namespace of its own."""
        for record in self.machine.ledger().undoing(self.host.name):
            groups = [Path(record.name)] if record.kind is Kind.CGROUP else []
            if record.kind is Kind.UNIT:
                path = self.machine.run(["systemctl", "show", "--value", "--property=ControlGroup", record.name]).strip()
                groups = [Path(h.mount + path) for h in lab_cgroups.hierarchies(read("/proc/self/mountinfo"))] if path else []
            for group in groups:
                for pid in lab_machine.processes(group):
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        if re.search(r"(?m)^NSpid:\s+\d+\s+1$", read(f"/proc/{pid}/status")):
                            return pid
        return None

    def _inside(self, *words: str) -> str:
        leader = self._leader()
        if leader is None:
            return ""
        return self.machine.run(["nsenter", f"--target={leader}", "--all", "--", *words], may_fail=True).strip()

    # --- doing

    def bring(self, wanted: str, changed: bool) -> dict[str, object]:
        """Bring the host to the wanted state; the figures for the module's result."""
        params = self.module.params
        if wanted == "started":
            if changed:
                return self.start(params["base"], params["supervisor"], params["timeout"])
            self._await_ssh(time.monotonic() + params["timeout"])
        elif changed:
            {"stopped": self.stop, "killed": self.kill, "absent": self.remove}[wanted]()
        return {}

    def start(self, base: str | None, supervisor: str, timeout: int) -> dict[str, object]:
        """Boot the host and wait for it; the figures for the module's result."""
        self._lay_out(base)
        self._power_off_remains()
        machine = self._offer()
        self._mount(self._chosen_base(base))
        keys = hand_over(Root(self.host.root), self.host, self.machine.run)
        self._remember(keys)
        if machine.kvm:
            make_kvm_node(Root(self.host.root), lab_boot.kvm_node(self.host))
        for path in self.host.leftovers:
            self.machine.note(Record(Kind.MOUNT, str(path), self.host.name))
        self._make_groups(machine.cgroups)
        self.machine.note(Record(Kind.NAMESPACE, self.host.unique, self.host.name))
        self.machine.note(Record(Kind.LINK, self.host.interface, self.host.name))
        self.host.run_file.write_text(json.dumps(lab_boot.run_file(self.host, machine), indent=1), encoding="utf-8")
        started = time.monotonic()
        self._launch(supervisor, bool(machine.cgroups.directories))
        self._await_ssh(started + timeout)
        seconds = round(time.monotonic() - started, 2)
        if machine.cgroups.layout is lab_cgroups.Layout.V1:
            # systemd looks which version 1 controllers it may use before the host's own unit has made them writable.
            self._inside("systemctl", "daemon-reexec")
        return {"seconds": seconds, "systemd": self._inside("systemctl", "is-system-running", "--wait")}

    def _lay_out(self, base: str | None) -> None:
        if base is None and not self.host.directory.is_dir():
            raise UnifleetError(f"host {self.host.name} does not exist yet, so it needs a base image", "give the option base")
        for name in ("upper", "work", "root", *(f"data/{path.rsplit('/', 1)[1]}" for path in lab_boot.DATA)):
            (self.host.directory / name).mkdir(parents=True, exist_ok=True)

    def _chosen_base(self, base: str | None) -> str:
        """The base the host was made with: an overlay's lower directory must not be exchanged under it."""
        memory = self.host.directory / "base"
        if memory.exists():
            made_with = memory.read_text(encoding="utf-8").strip()
            if not Path(made_with).is_dir():
                raise UnifleetError(
                    f"host {self.host.name} was made with the base {made_with}, which is gone", "take the lab down and up again"
                )
            return made_with
        if base is None or not Path(base).is_dir():
            raise UnifleetError(f"there is no base image at {base}", "make it with lab_base")
        memory.write_text(base + "\n", encoding="utf-8")
        return base

    def _power_off_remains(self) -> None:
        """What a host whose power was cut has left: processes, if any, the groups they were in, and what nspawn forgot."""
        leftovers = [str(path) for path in self.host.leftovers]
        for record in self.machine.ledger().undoing(self.host.name):
            if record.kind in (Kind.CGROUP, Kind.UNIT) or record.name in leftovers:
                self.machine.undo(record)

    def _make_groups(self, plan: lab_cgroups.Plan) -> None:
        for directory in map(Path, plan.directories):
            self.machine.make(Record(Kind.CGROUP, str(directory), self.host.name), partial(directory.mkdir, parents=True, exist_ok=True))
        for directory in map(Path, plan.cpusets):
            for name in ("cpuset.cpus", "cpuset.mems"):
                (directory / name).write_text(read(str(directory.parent / name)), encoding="ascii")
            (directory / "cgroup.clone_children").write_text("1", encoding="ascii")

    def _offer(self) -> lab_boot.Machine:
        devices = tuple(device for device in lab_boot.DEVICES if Path(device).exists())
        release = os.uname().release
        modules = Path("/lib/modules")
        if not (modules / release).is_dir():
            modules = self.host.lab.modules / "lib" / "modules"
            self._make_modules(modules / release)
        wanted = {"v1": lab_cgroups.Layout.V1, "v2": lab_cgroups.Layout.V2}.get(self.module.params["cgroups"])
        systemd = Path("/run/systemd/system").is_dir()
        plan = lab_cgroups.plan(read("/proc/self/mountinfo"), read("/proc/self/cgroup"), self.host.unique, systemd, wanted)
        return lab_boot.Machine(devices, str(modules), plan, kvm=Path(lab_boot.KVM).exists())

    def _make_modules(self, directory: Path) -> None:
        """Let modprobe in hosts succeed for drivers that this machine's kernel has built in."""
        if (directory / "modules.builtin.bin").exists():
            return
        lab_machine.preflight(self.module.get_bin_path, ["depmod"])
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "modules.builtin").write_text(lab_boot.builtin_modules(), encoding="ascii")
        for name in ("modules.order", "modules.builtin.modinfo"):
            (directory / name).touch()
        self.machine.run(["depmod", f"--basedir={self.host.lab.modules}", os.uname().release])

    def _mount(self, base: str) -> None:
        record = Record(Kind.MOUNT, str(self.host.root), self.host.name)
        self.machine.make(record, lambda: self.machine.run(lab_boot.overlay(self.host, base)))

    def _remember(self, host_key: str) -> None:
        """Tell ssh the host's key, so that it need not ask."""
        self.machine.edit_lines(
            self.host.lab.known_hosts, lambda line: line.split(" ", 1)[0] != str(self.host.address), f"{self.host.address} {host_key}"
        )

    def _launch(self, supervisor: str, direct: bool) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.host.pid_file.unlink()
        words = ["/usr/bin/python3", supervisor, str(self.host.run_file)]
        if direct:
            self.machine.run(["setsid", "--fork", *words])
            return
        unit = f"{self.host.unique}.service"
        self.machine.note(Record(Kind.UNIT, unit, self.host.name))
        options = [
            "--quiet",
            "--collect",
            f"--unit={unit}",
            "--property=Delegate=yes",
            "--property=KillMode=mixed",
            "--property=TasksMax=infinity",
        ]
        self.machine.run(["systemd-run", *options, "--", *words])

    def _await_ssh(self, deadline: float) -> None:
        while not answers(str(self.host.address)):
            started = self.host.pid_file.exists()
            if time.monotonic() > deadline or (started and self._supervisor() is None):
                said = "\n".join(self.host.console.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
                raise UnifleetError(f"host {self.host.name} did not come up; its console ({self.host.console}) ends:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut the host down; cut its power when it has not gone after half a minute."""
        self._inside("systemctl", "poweroff", "--no-wall")
        deadline = time.monotonic() + 30
        while self._supervisor() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        self._power_off_remains()
        with contextlib.suppress(FileNotFoundError):
            self.host.pid_file.unlink()

    def remove(self) -> None:
        self.stop() if self._supervisor() is not None else self.kill()
        for record in self.machine.ledger().undoing(self.host.name):
            self.machine.undo(record)
        self.machine.edit_lines(self.host.lab.known_hosts, lambda line: line.split(" ", 1)[0] != str(self.host.address), None)
        if self.host.directory.exists():
            shutil.rmtree(self.host.directory)


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def answers(address: str) -> bool:
    """Whether an ssh server greets at the address."""
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "address": {"type": "str"},
            "base": {"type": "path"},
            "lab": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "network": {"type": "str", "required": True},
            "supervisor": {"type": "path"},
            "cgroups": {"type": "str", "choices": ["auto", "v1", "v2"], "default": "auto"},
            "state": {"type": "str", "choices": ["started", "stopped", "killed", "absent"], "default": "started"},
            "timeout": {"type": "int", "default": 90},
        },
        required_if=[("state", "started", ("address", "supervisor"))],
        supports_check_mode=True,
    )
    params = module.params
    wanted = params["state"]
    result: dict[str, object] = {}
    try:
        lab_machine.preflight(module.get_bin_path, OWN_COMMANDS if wanted == "started" else ["ip", "umount", "nsenter"])
        lab = lab_names.lab(params["lab"], params["directory"], params["network"])
        host = LabHost(module, lab.host(params["name"], params["address"] or str(lab.gateway + 1)))
        with (
            host.machine.alone(host.host.name)
            if not module.check_mode and (wanted == "started" or lab.directory.is_dir())
            else nullcontext()
        ):
            before = host.state()
            changed = before not in SATISFIES[wanted] or (wanted == "absent" and bool(host.machine.ledger().undoing(host.host.name)))
            if not module.check_mode:
                result = host.bring(wanted, changed)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    now = {"killed": "stopped"}.get(wanted, wanted) if changed else before
    module.exit_json(changed=changed, state=now, diff={"before": f"{before}\n", "after": f"{now}\n"}, **result)


if __name__ == "__main__":
    main()
