# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a process of its own beside a real control plane, started and killed at will: a class, and fixtures to import."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from tests.system.local_cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[2]
AGENT = "ansible_collections.unifleet.hybrid.plugins.host.kubelet"
OWNED = "unifleet.io/agent-labels"


def wait_for(what: Callable[[], Any], seconds: float = 60.0, every: float = 0.1) -> Any:
    """What what() gives once it is true; the last AssertionError or a plain one when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = what()
            if result:
                return result
        except (AssertionError, subprocess.CalledProcessError, UnifleetError, KeyError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(every)


@dataclass
class AgentProcess:
    """One virtual-kubelet with its own directory; started and killed at will."""

    cluster: LocalCluster
    directory: Path
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    extra: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    process: Optional[subprocess.Popen[bytes]] = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "token").write_text(self.cluster.bootstrap_token())
        self.write_labels(self.labels)
        lines = [
            'provider = "simulated"',
            f'node_name = "{self.name}"',
            f'api_server = "{self.cluster.server}"',
            f'cluster_ca = "{self.cluster.ca}"',
            f'bootstrap_token_file = "{self.directory}/token"',
            f'labels_file = "{self.labels_file}"',
            *(f'{kind}_directory = "{self.directory}/{kind}"' for kind in ("state", "run", "log")),
            self.extra,
            "[server]",
            "port = 0",
            "[timing]",
            "labels_poll = 0.2",
        ]
        self.config.write_text("\n".join(lines))

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def labels_file(self) -> Path:
        return self.directory / "labels.json"

    @property
    def certificate(self) -> Path:
        return self.directory / "state" / "pki" / "client.pem"

    @property
    def log(self) -> str:
        return (self.directory / "log.txt").read_text()

    def write_labels(self, labels: dict[str, Any]) -> None:
        fresh = self.labels_file.with_suffix(".new")
        fresh.write_text(json.dumps(labels))
        fresh.replace(self.labels_file)

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", AGENT, "--config", str(self.config), *flags]

    def start(self, *flags: str) -> AgentProcess:
        with (self.directory / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(self.command(*flags), stdout=log, stderr=log, env=self.env(), cwd=ROOT)
        return self

    def once(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*flags), capture_output=True, text=True, timeout=30, env=self.env(), cwd=ROOT, check=False)

    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "collections"), **self.environment}

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def node(self) -> dict[str, Any]:
        return get_node(self.cluster, self.name)

    def ready(self) -> bool:
        return bool(condition(self.node(), "Ready")["status"] == "True")


def get_node(cluster: LocalCluster, name: str) -> dict[str, Any]:
    return cluster.get(f"/api/v1/nodes/{name}")


def condition(node: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in node["status"]["conditions"] if entry["type"] == kind)


def renew_time(cluster: LocalCluster, name: str) -> str:
    return str(cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")["spec"]["renewTime"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as running:
        # The controllers that sign requests are up once they have made this one.
        wait_for(lambda: running.get("/api/v1/namespaces/default/serviceaccounts/default"), 60)
        yield running


Launcher = Callable[..., AgentProcess]


@pytest.fixture
def launch(cluster: LocalCluster, tmp_path: Path) -> Iterator[Launcher]:
    """Make agents; those still alive at the end are killed and their nodes removed."""
    made: list[AgentProcess] = []

    def make(name: str, *flags: str, start: bool = True, **settings: Any) -> AgentProcess:
        agent = AgentProcess(cluster, tmp_path / name, name, **settings)
        made.append(agent)
        return agent.start(*flags) if start else agent

    yield make
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            cluster.kubectl("delete", "node", agent.name, "--ignore-not-found")
