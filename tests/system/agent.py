# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent in this process against a real API server, with real node credentials and machines whose behaviour a test chooses.

Everything but the machines is real: bootstrap token, certificate, Node authorizer, watch, status writes, logs on disk, HTTPS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import KubeApi
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.credentials import join
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import NodeLabels, builtin_labels
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node import NodeController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import read_host_facts
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_controller import PodController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server import KubeletServer
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server_auth import Reviewer
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.serving import ServingCertificate, serving_identity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.simulated_images import SimulatedImages
from ansible_collections.unifleet.hybrid.plugins.host.machines.console_log import ConsoleLog
from ansible_collections.unifleet.hybrid.plugins.host.machines.simulated import SimulatedHost, SimulatedMachines
from tests.system.local_cluster import LocalCluster


@dataclass
class SimulatedAgent:
    """One node. start() and kill() may be called again and again; host and directory survive, as a real host would."""

    cluster: LocalCluster
    directory: Path
    name: str = "sim1"
    host: SimulatedHost = field(default_factory=SimulatedHost)
    images: SimulatedImages = field(default_factory=SimulatedImages)
    settings: PodSettings = field(default_factory=PodSettings)
    kind: str = "simulated"
    port: int = 0

    def __post_init__(self) -> None:
        self.thread: Optional[threading.Thread] = None
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.main: Optional[asyncio.Task[None]] = None
        self.pods: Optional[PodController] = None
        self.failure: Optional[BaseException] = None
        self.registered = threading.Event()

    def start(self) -> SimulatedAgent:
        """Returns when the node is registered."""
        self.registered.clear()
        self.thread = threading.Thread(target=self._thread, name=self.name, daemon=True)
        self.thread.start()
        if not self.registered.wait(60) or self.failure:
            raise RuntimeError(f"the agent did not register: {self.failure!r}")
        return self

    def stop(self) -> None:
        """End the agent as SIGTERM would; machines go on."""
        if self.loop and self.main:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.main.cancel)
        if self.thread:
            self.thread.join(30)

    def _thread(self) -> None:
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.failure = error
            self.registered.set()
            raise

    async def _run(self) -> None:
        self.loop, self.main = asyncio.get_running_loop(), asyncio.current_task()
        self.directory.mkdir(parents=True, exist_ok=True)
        token = self.directory / "token"
        token.write_text(self.cluster.bootstrap_token())
        config = Config(
            provider="simulated",
            node_name=self.name,
            node_ip="127.0.0.1",
            api_server=self.cluster.server,
            cluster_ca=self.cluster.ca,
            bootstrap_token_file=token,
            state_directory=self.directory / "state",
        )
        machines = SimulatedMachines(self.host, self.kind)
        labels = NodeLabels(builtin_labels(self.name, "amd64", "simulated", ""), {}, None, {}, [])
        with ConsoleLog() as consoles:
            async with KubeApi(await join(config)) as api:
                facts = read_host_facts(config)
                self.pods = PodController(api, self.name, "127.0.0.1", machines, self.images, self.settings, consoles=consoles)
                serving = ServingCertificate(config.pki_directory, serving_identity(self.name, ["127.0.0.1"]))
                await serving.prepare()
                server = KubeletServer(
                    self.pods,
                    Reviewer(api, self.name),
                    certificate=lambda: serving.path,
                    client_ca=self.cluster.ca,
                    address="127.0.0.1",
                    port=self.port,
                )
                serving.subscribe(server.reload)
                await server.start()
                self.port = server.port
                node = NodeController(api, config, facts, machines, labels, port=server.port)
                await asyncio.gather(self.pods.run(), server.run(), node.run(), serving.run(api), self._tell(node))

    async def _tell(self, node: NodeController) -> None:
        await node.registered.wait()
        self.registered.set()

    def approve_serving(self) -> None:
        """Approve the serving certificate that the agent asks for, as the site playbook does, and wait until it is used."""
        deadline = time.monotonic() + 30
        folder = self.directory / "state" / "pki" / "serving.pem"
        while not folder.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("no serving certificate was issued")
            requests = json.loads(self.cluster.kubectl("get", "csr", "-o", "json"))["items"]
            for request in requests:
                if request["spec"]["signerName"] == "kubernetes.io/kubelet-serving" and not request["status"].get("conditions"):
                    self.cluster.kubectl("certificate", "approve", request["metadata"]["name"])
            time.sleep(0.2)
        time.sleep(0.5)


@contextlib.contextmanager
def simulated_agent(cluster: LocalCluster, directory: Path, **settings: Any) -> Iterator[SimulatedAgent]:
    """A running agent, ended afterwards."""
    base = PodSettings(log_directory=directory / "logs", token_directory=directory / "tokens")
    agent = SimulatedAgent(cluster, directory, settings=settings.pop("settings", base), **settings)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()
