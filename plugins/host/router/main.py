# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pod-router: keeps this host's routes to the pods of all nodes, where no virtual kubelet does so and no CNI from elsewhere.

    pod-router --kubeconfig /etc/kubernetes/kube-proxy.kubeconfig --node worker1 --pods 10.244.0.0/16

It follows the nodes with the credentials of the kubeconfig, which are read anew for each connection: what the kubelet renews is used.
While the API server is away, and when this program ends or is killed, the routes stay as they are; --remove takes them away. On the control
plane's host, which is no node, it needs no --node, and no --pods because nothing is forwarded there.
Exit codes: 0 after SIGTERM or SIGINT, 78 (EX_CONFIG) for arguments that cannot be.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.daemon.notify import Notifier
from ansible_collections.unifleet.hybrid.plugins.host.daemon.signals import until_signal
from ansible_collections.unifleet.hybrid.plugins.host.daemon.together import run_together
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import load_kubeconfig
from ansible_collections.unifleet.hybrid.plugins.host.kube.peer_nodes import PeerNodes
from ansible_collections.unifleet.hybrid.plugins.host.kube.reader import ApiReader
from ansible_collections.unifleet.hybrid.plugins.host.machines.network_events import NetworkEvents
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_forwarding import PodForwarding
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_routes import PodRoutes
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.router")
EX_CONFIG = 78
_LOOK_SECONDS = 30.0


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="pod-router", description="Keep this host's routes to the pods of a Kubernetes cluster's nodes.")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="whose user may list and watch nodes; JSON")
    parser.add_argument("--node", default="", metavar="NAME", help="the node that this host is (default: none)")
    parser.add_argument("--pods", default="", metavar="CIDR", help="forward packets of all pods, also where iptables drops by default")
    parser.add_argument(
        "--translation", default="", metavar="TABLE=FILE", help="load the file whenever nftables' table of family ip is not there"
    )
    parser.add_argument("--remove", action="store_true", help="take the routes, and the chain of --pods, away and end")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)")
    return parser.parse_args(argv)


def forwarding_of(options: argparse.Namespace) -> Optional[PodForwarding]:
    """The firewall's part, None where nothing is forwarded. Raises UnifleetError that names the flag."""
    if not options.pods:
        return None
    try:
        cidr = ipaddress.IPv4Network(options.pods)
    except ValueError as error:
        raise UnifleetError(f"--pods {options.pods}: {error}", "for example 10.244.0.0/16") from error
    table, _equals, file = options.translation.partition("=")
    if options.translation and not (table and file):
        raise UnifleetError(f"--translation {options.translation} is not TABLE=FILE")
    return PodForwarding(str(cidr), table, Path(file))


async def keep_forwarding(forwarding: PodForwarding, changed: asyncio.Event) -> None:
    """Look after the firewall when something changed and every half minute, until cancelled."""
    said = ""
    while True:
        try:
            await asyncio.get_running_loop().run_in_executor(None, forwarding.apply)
            said = ""
        except (UnifleetError, OSError) as error:
            if str(error) != said:
                said = str(error)
                LOG.warning("the firewall cannot be looked after: %s", error)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed.wait(), _LOOK_SECONDS)
        changed.clear()


async def work(kubeconfig: Path, node: str, forwarding: Optional[PodForwarding], notifier: Notifier) -> None:
    """Keep the routes until cancelled."""
    api = ApiReader(lambda: load_kubeconfig(kubeconfig), user_agent="unifleet-pod-router")
    peers, changes = PeerNodes(api, node, PodRoutes()), NetworkEvents()
    changes.subscribe(peers.look)
    works: list[Awaitable[None]] = [peers.run(), changes.run(), notifier.feed_watchdog()]
    if forwarding is not None:
        changed = asyncio.Event()
        changes.subscribe(changed.set)
        works.append(keep_forwarding(forwarding, changed))
    notifier.tell("READY=1")
    await run_together(works)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The program; returns its exit code."""
    options = parse_arguments(argv)
    logging.basicConfig(stream=sys.stderr, level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    try:
        forwarding = forwarding_of(options)
        if options.remove:
            removed = [
                *(["routes"] if PodRoutes().remove() else []),
                *(["firewall chain"] if forwarding is not None and forwarding.remove() else []),
            ]
            sys.stdout.write(f"removed: {', '.join(removed) or 'nothing, there were none of ours'}\n")
            return 0
        if options.kubeconfig is None:
            raise UnifleetError("--kubeconfig is missing", "name the file with the node's credentials")
    except UnifleetError as error:
        sys.stderr.write(f"pod-router: {error}\n")
        return 1 if options.remove else EX_CONFIG
    asyncio.run(until_signal(work(options.kubeconfig, options.node, forwarding, Notifier(os.environ)), "the routes stay"))
    return 0
