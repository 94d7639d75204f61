# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the parts of the agent are put together: provider, images, node half, pod half and HTTPS server around one API client.

main.py reads what the user wants; this file opens what is needed for it and runs it until it is told to end. Nothing decides here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ansible_collections.unifleet.hybrid.plugins.host.daemon.notify import Notifier
from ansible_collections.unifleet.hybrid.plugins.host.daemon.together import run_together
from ansible_collections.unifleet.hybrid.plugins.host.guests.families import FAMILIES
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.host.kube.client import KubeApi
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig, write_private
from ansible_collections.unifleet.hybrid.plugins.host.kube.peer_nodes import PeerNodes
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.certificates import keep
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.credentials import client_certificate, join, node_identity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.events import EventRecorder, Subject
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_care import ImageCare
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import NodeLabels
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node import NodeController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import HostFacts
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_controller import PodController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_network import PodNetwork
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import Images
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server import KubeletServer
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server_auth import Reviewer
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.serving import ServingCertificate, serving_identity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings, pod_settings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.simulated_images import SimulatedImages
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.stacks import stacks
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.version import KUBELET_VERSION
from ansible_collections.unifleet.hybrid.plugins.host.machines.console_log import ConsoleLog
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines
from ansible_collections.unifleet.hybrid.plugins.host.machines.network_events import NetworkEvents
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import PodFirewall
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_routes import PodRoutes
from ansible_collections.unifleet.hybrid.plugins.host.machines.registry import MachinesSettings, open_bridge, open_machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

if TYPE_CHECKING:
    from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_bridge import PodBridge

log = logging.getLogger("unifleet.agent")


def open_provider(config: Config) -> Machines:
    """The machines of this host. Raises UnifleetError."""
    settings = MachinesSettings(
        run_directory=config.run_directory,
        state_directory=config.state_directory,
        pods=config.max_pods,
        accelerator=config.machines.accelerator,
        probe_kernel=config.machines.probe_kernel,
        libvirt_uri=config.machines.libvirt_uri,
        exit_parsers={name: guest.exit_code for name, guest in FAMILIES.items()},
    )
    return open_machines(config.provider, settings)


def open_images(config: Config, architecture: str) -> Images:
    """The images of this host; simulated machines run simulated images. Raises UnifleetError."""
    if config.provider == "simulated":
        return SimulatedImages()
    return ImageStore(
        config.images.directory or config.state_directory / "images",
        config.images.default_registry,
        config.images.insecure_registries,
        architecture,
        hypervisor=config.provider,
        registries=config.images.registries,
    )


def settings_of_pods(config: Config, architecture: str) -> PodSettings:
    """The [pods] table over what the rest of the configuration says. Raises UnifleetError that names the key."""
    base = PodSettings(log_directory=config.log_directory, token_directory=config.run_directory / "pods", architecture=architecture)
    base = replace(base, cluster_dns=config.network.cluster_dns)
    return pod_settings(config.pods, "[pods]", base)


def client_ca(config: Config, credentials: Kubeconfig) -> Path:
    """The PEM file with the CA whose client certificates the HTTPS server takes: the cluster's."""
    if credentials.ca_file is not None:
        return credentials.ca_file
    path = config.pki_directory / "cluster-ca.pem"
    write_private(path, credentials.ca_data)
    return path


@dataclass
class Agent:
    """All that is known before the API server is asked."""

    config: Config
    facts: HostFacts
    machines: Machines
    images: Images
    pod_settings: PodSettings
    labels: NodeLabels
    notifier: Notifier
    bridge: Optional[PodBridge] = None

    async def run(self) -> None:
        """Join and work until cancelled. The workloads go on without us."""
        self.notifier.tell("READY=1", "STATUS=joining the cluster")
        watchdog = asyncio.ensure_future(self.notifier.feed_watchdog())
        try:
            credentials = await join(self.config)
            async with KubeApi(credentials, user_agent=f"virtual-kubelet/{KUBELET_VERSION}") as api:
                with ConsoleLog() as consoles:
                    await self._work(api, credentials, consoles)
        finally:
            self.notifier.tell("STOPPING=1")
            watchdog.cancel()

    async def _work(self, api: KubeApi, credentials: Kubeconfig, consoles: ConsoleLog) -> None:
        config, name = self.config, self.config.node_name
        serving = ServingCertificate(config.pki_directory, serving_identity(name, self.facts.addresses))
        await serving.prepare()
        events = EventRecorder(api, name)
        tell = _teller(events, Subject("Node", name, uid=name))
        routes = PodRoutes() if config.network.routes and config.provider != "simulated" else None
        network = PodNetwork(self.bridge, PodFirewall(), tell=tell)
        peers = PeerNodes(api, name, routes, tell=tell, changed=network.reach)
        pods = PodController(
            api,
            name,
            self.facts.addresses[0],
            self.machines,
            self.images,
            self.pod_settings,
            consoles=consoles,
            events=events,
            network=network,
        )
        health: list[NodeController] = []

        async def healthy() -> None:
            if health and not health[0].provider.health.good:
                raise UnifleetError(health[0].provider.health.message)

        server = KubeletServer(
            pods,
            Reviewer(api, name),
            certificate=lambda: serving.path,
            client_ca=client_ca(config, credentials),
            address=config.server.address,
            port=config.server.port,
            healthy=healthy,
        )
        serving.subscribe(server.reload)
        await server.start()
        care = ImageCare(pods.runtime, config.images, pods.images_in_use, tell)
        node = NodeController(
            api,
            config,
            self.facts,
            self.machines,
            self.labels,
            port=server.port,
            tell=tell,
            network=lambda: network.health,
            images=lambda: care.listed,
        )
        health.append(node)
        network.subscribe(node.poke)
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.reload_labels)
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: log.info("asked what is going on:\n%s", stacks()))
        works: list[Awaitable[None]] = [node.run(), events.run(), server.run(), care.run(), self._pods_when_registered(node, pods)]
        if self.bridge is not None or routes is not None:
            changes = NetworkEvents()
            changes.subscribe(network.look)
            changes.subscribe(peers.look)
            works += [network.run(), self._peers_when_registered(node, peers), changes.run()]
        if config.kubeconfig is None:
            works.append(keep(client_certificate(config), api, lambda: node_identity(name), api.reload, needs_itself=True))
            works.append(serving.run(api))
        try:
            await run_together(works)
        finally:
            await server.stop()

    async def _peers_when_registered(self, node: NodeController, peers: PeerNodes) -> None:
        await node.registered.wait()
        await peers.run()

    async def _pods_when_registered(self, node: NodeController, pods: PodController) -> None:
        await node.registered.wait()
        self.notifier.tell(f"STATUS=node {self.config.node_name} is registered")
        await pods.run()


def assemble(config: Config, labels: Callable[[str], NodeLabels], facts: HostFacts, notifier: Notifier) -> Agent:
    """Open the provider and the images. labels: the node's labels, given the provider's accelerator. Raises UnifleetError."""
    settings = settings_of_pods(config, facts.architecture)
    machines = open_provider(config)
    for sentence in machines.limitations():
        log.warning("%s", sentence)
    accelerator = getattr(machines, "accelerator", None)
    return Agent(
        config=config,
        facts=facts,
        machines=machines,
        images=open_images(config, facts.architecture),
        pod_settings=settings,
        labels=labels(str(getattr(accelerator, "kind", ""))),
        notifier=notifier,
        bridge=open_bridge(config.provider, config.network.bridge, config.machines.libvirt_uri),
    )


def remove_network(config: Config) -> list[str]:
    """Take away what the agent made of this host's network: bridge, firewall tables, routes. Returns what there was.

    Raises UnifleetError.
    """
    bridge = open_bridge(config.provider, config.network.bridge, config.machines.libvirt_uri)
    removed = []
    if bridge is not None and bridge.remove():
        removed.append(f"bridge {bridge.name}")
    if bridge is not None and PodFirewall().remove():
        removed.append("firewall tables")
    if PodRoutes().remove():
        removed.append("routes")
    return removed


def remove_machines(config: Config) -> list[str]:
    """End and forget every machine that the agent made on this host. Returns what there was. Raises UnifleetError."""
    machines = open_provider(config)
    keys = [state.key for state in machines.list()]
    for key in keys:
        machines.remove(key)
    return [f"machine {key}" for key in keys]


def _teller(events: EventRecorder, subject: Subject) -> Callable[[str, str, str], None]:
    return lambda type_, reason, message: events.emit(subject, type_, reason, message)
