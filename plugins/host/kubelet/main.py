# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""virtual-kubelet, the command line.

    virtual-kubelet --provider process --node-labels sensor=temperature,site=attic --config /etc/unifleet/virtual-kubelet.toml

Exit codes: 0 after SIGTERM or SIGINT (workloads go on and are adopted at the next start), 78 (EX_CONFIG) for a configuration or labels
that cannot be, one line each; systemd should not try again then. SIGHUP reads the labels again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.daemon.notify import Notifier
from ansible_collections.unifleet.hybrid.plugins.host.daemon.signals import until_signal
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.assembly import assemble, remove_machines, remove_network, settings_of_pods
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import DEFAULT_CONFIG, PROVIDERS, Config, read_config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import LabelSourcesError, NodeLabels, builtin_labels, go_architecture
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import read_host_facts
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.version import KUBELET_VERSION
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

EX_CONFIG = 78


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The flags; the ones that stand for a key of the configuration are None when they were not given."""
    parser = argparse.ArgumentParser(
        prog="virtual-kubelet",
        description="Make this host a Kubernetes node that runs unikernels (or plain processes) as pods.",
        epilog="Labels: built-in < configuration < labels file < environment (UNIFLEET_NODE_LABELS, LABELS) < --node-labels.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="TOML file (default: %(default)s)")
    parser.add_argument("--provider", choices=PROVIDERS, help="what runs the pods")
    parser.add_argument("--node-labels", action="append", default=[], metavar="K=V,...", help="labels of the node; may be repeated")
    parser.add_argument("--labels-file", metavar="FILE", help="JSON or TOML mapping of labels; taken over again whenever it changes")
    parser.add_argument("--node-name", metavar="NAME", help="name of the Node (default: the host name)")
    parser.add_argument("--node-ip", metavar="ADDRESS", help="the node's address (default: the one that leads to the API server)")
    parser.add_argument("--api-server", metavar="URL", help="https://HOST:PORT")
    parser.add_argument("--cluster-ca", metavar="FILE", help="PEM file with the cluster's CA")
    parser.add_argument("--bootstrap-token-file", metavar="FILE", help="token to join with; read only without a valid certificate")
    parser.add_argument("--bootstrap-kubeconfig", metavar="FILE", help="kubeconfig that has server, CA and token in one")
    parser.add_argument("--kubeconfig", metavar="FILE", help="use these credentials as they are, do not join or renew")
    parser.add_argument("--state-directory", metavar="DIR", help="certificates and state (default: /var/lib/unifleet)")
    parser.add_argument("--run-directory", metavar="DIR", help="state that ends with the boot (default: /run/unifleet)")
    parser.add_argument("--log-directory", metavar="DIR", help="logs of pods (default: /var/log/pods)")
    parser.add_argument("--port", type=int, metavar="N", help="of the HTTPS server; 0 takes a free one (default: 10250)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="(default: info)")
    parser.add_argument("--check-config", action="store_true", help="read configuration and labels, say what is wrong, and end")
    parser.add_argument(
        "--remove-network", action="store_true", help="remove the bridge, firewall tables and routes of the (stopped) agent, and end"
    )
    parser.add_argument(
        "--remove-all", action="store_true", help="end every machine of the (stopped) agent, remove its network as well, and end"
    )
    parser.add_argument("--version", action="version", version=KUBELET_VERSION)
    return parser.parse_args(argv)


def configure(options: argparse.Namespace) -> Config:
    """The configuration with the flags laid over it. Raises UnifleetError."""
    flags = vars(options).copy()
    for own in ("config", "node_labels", "check_config", "remove_network", "remove_all"):
        flags.pop(own)
    return read_config(options.config, flags)


def node_labels(config: Config, options: argparse.Namespace, accelerator: str = "") -> NodeLabels:
    """The labels from all sources. Raises LabelSourcesError."""
    builtin = builtin_labels(config.node_name, go_architecture(platform.machine()), config.provider, accelerator)
    return NodeLabels(builtin, config.labels, config.labels_file, os.environ, options.node_labels)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The program; returns its exit code."""
    options = parse_arguments(argv)
    try:
        config = configure(options)
        logging.basicConfig(
            stream=sys.stderr,
            level=config.log_level.upper(),
            format="%(levelname)s %(name)s: %(message)s"
            if "JOURNAL_STREAM" in os.environ
            else "%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        labels = node_labels(config, options)
        settings_of_pods(config, go_architecture(platform.machine()))
        if options.check_config:
            sys.stdout.write(f"{options.config}: node {config.node_name}, provider {config.provider}, {len(labels.wanted)} labels: ok\n")
            return 0
        if options.remove_network or options.remove_all:
            removed = (remove_machines(config) if options.remove_all else []) + remove_network(config)
            sys.stdout.write(f"removed: {', '.join(removed) or 'nothing, there was nothing of ours'}\n")
            return 0
        agent = assemble(
            config, lambda accelerator: node_labels(config, options, accelerator), read_host_facts(config), Notifier(os.environ)
        )
    except LabelSourcesError as error:
        for line in error.lines:
            sys.stderr.write(f"virtual-kubelet: {line}\n")
        sys.stderr.write(f"virtual-kubelet: {error.hint}\n")
        return EX_CONFIG
    except UnifleetError as error:
        sys.stderr.write(f"virtual-kubelet: {error}\n")
        return EX_CONFIG
    try:
        asyncio.run(until_signal(agent.run(), "workloads go on"))
    except UnifleetError as error:
        sys.stderr.write(f"virtual-kubelet: {error}\n")
        return 1
    return 0
