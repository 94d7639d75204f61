# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab cluster as its user has it: playbooks against an inventory, kubectl with the admin kubeconfig, and waiting for what shows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from kubernetes import client, config

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)\s+"
    r"failed=(?P<failed>\d+)\s+skipped=(?P<skipped>\d+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Run:
    """One playbook run: exit code, output, seconds, and the recap's counters by host."""

    returncode: int
    output: str
    seconds: float
    recap: dict[str, dict[str, int]]

    def changed(self) -> dict[str, int]:
        """Changed tasks by host, the zeros left out."""
        return {host: counts["changed"] for host, counts in self.recap.items() if counts["changed"]}

    def tasks(self, host: str) -> int:
        """How many tasks this host was put through, skipped ones included: each costs the controller time."""
        counts = self.recap[host]
        return counts["ok"] + counts["skipped"] + counts["failed"]


@dataclass(frozen=True)
class Cluster:
    """The lab in a directory of its own, with an inventory and the admin kubeconfig."""

    directory: Path
    inventory: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """Where the control_plane role leaves the admin's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    def playbook(self, name: str, *arguments: str, check: bool = True) -> Run:
        """Run playbooks/NAME.yml, or unifleet.hybrid.NAME; with check a failure fails the test with the end of the output."""
        playbook = name if "." in name else f"playbooks/{name}.yml"
        extra = [word for key, value in self.variables.items() for word in ("-e", f"{key}={value}")]
        command = [str(BIN / "ansible-playbook"), "-i", str(self.inventory), playbook, *extra, *arguments]
        started = time.monotonic()
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        output = done.stdout + done.stderr
        recap = {m["host"]: {k: int(v) for k, v in m.groupdict().items() if k != "host"} for m in RECAP.finditer(done.stdout)}
        print(f"\n$ ansible-playbook {playbook} {' '.join(arguments)}  [{seconds:.0f} s, exit {done.returncode}]")
        if check:
            assert done.returncode == 0, output[-12000:]
        return Run(done.returncode, output, seconds, recap)

    def kubectl(self, *arguments: str, stdin: Optional[str] = None, check: bool = True, timeout: float = 60) -> str:
        """The standard output of kubectl."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    @contextlib.contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[tuple[int, Callable[[], str]]]:
        """A local port while kubectl forwards it to a port of a pod, and what kubectl says meanwhile."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), "port-forward", f"pod/{pod}", f":{port}"]
        with tempfile.NamedTemporaryFile("r") as said, Path(said.name).open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
            try:
                read = Path(said.name).read_text
                found = eventually(lambda: re.search(r"127\.0\.0\.1:(\d+) -> ", read()), 30, f"kubectl port-forward to {pod}")
                yield int(found[1]), read
            finally:
                process.terminate()
                process.wait(30)

    @cached_property
    def api(self) -> client.CoreV1Api:
        """The official client, for a program that reads this cluster as others do."""
        return client.CoreV1Api(config.new_client_from_config(str(self.kubeconfig)))

    def node(self, name: str) -> dict[str, Any]:
        """A node as the API server has it."""
        answer: dict[str, Any] = json.loads(self.api.read_node(name, _preload_content=False).data)
        return answer

    def labels(self, node: str) -> dict[str, str]:
        """The labels of a node as the API server has them."""
        labels: dict[str, str] = self.node(node)["metadata"]["labels"]
        return labels

    def ready(self, node: str) -> str:
        """The node's Ready condition: True, False or Unknown."""
        return next(str(c["status"]) for c in self.node(node)["status"]["conditions"] if c["type"] == "Ready")

    def pods(self, selector: str) -> dict[str, dict[str, Any]]:
        """Pods by the node they are on (one a node, as a DaemonSet makes them); pods that are going away are left out."""
        items = json.loads(self.api.list_namespaced_pod("default", label_selector=selector, _preload_content=False).data)["items"]
        return {p["spec"].get("nodeName", ""): p for p in items if "deletionTimestamp" not in p["metadata"]}

    def ssh(self, host: str, *command: str, check: bool = True) -> str:
        """The output of a shell command on a lab host, as root, over one connection that is kept for a while."""
        keys = self.directory / "ssh"
        options = {
            "IdentityFile": keys / "id_ed25519",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": keys / "known_hosts",
            "ServerAliveInterval": 5,
            "ControlMaster": "auto",
            "ControlPath": keys / "%h",
            "ControlPersist": 30,
            "LogLevel": "ERROR",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        done = subprocess.run(
            ["ssh", *words, f"root@{self._addresses[host]}", " ".join(command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stdout
        return done.stdout

    @cached_property
    def _addresses(self) -> dict[str, str]:
        """The hosts' addresses, as Ansible reads them from the inventory."""
        listed = subprocess.run(
            [str(BIN / "ansible-inventory"), "-i", str(self.inventory), "--list"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        return {host: str(variables["ansible_host"]) for host, variables in json.loads(listed)["_meta"]["hostvars"].items()}


def lab_beside(directory: Path, name: str, third: int) -> Cluster:
    """The repository's lab inventory, copied, for a lab of another name on the network 10.77.THIRD.0/24."""
    inventory = directory / "inventories" / "lab"
    shutil.copytree(ROOT / "inventories/lab", inventory, dirs_exist_ok=True)
    for file in inventory.rglob("*.yml"):
        file.write_text(file.read_text(encoding="utf-8").replace("10.77.0.", f"10.77.{third}."), encoding="utf-8")
    return Cluster(directory / ".lab", inventory, {"lab_host_name": name, "lab_host_network": f"10.77.{third}.0/24"})


def eventually(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.5) -> Any:
    """Wait until the condition holds and return what it gave; fail with what was waited for and the last answer."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except AssertionError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s: {what}; last answer: {last!r}")
