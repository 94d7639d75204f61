# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the agent becomes system:node:NAME: the credentials that it starts with, and the client certificate that it keeps.

With a valid certificate on disk nothing else is needed. Without one (the first start, or a host that was off for longer than its
certificate's life) a bootstrap token asks for one; the token's file is read anew at each try, so a new token needs no restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import ApiError, KubeApi
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import Kubeconfig, load_kubeconfig, render_kubeconfig, write_private
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.certificates import CLIENT_SIGNER, CertificateFile, Identity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

log = logging.getLogger("unifleet.credentials")


def node_identity(node_name: str) -> Identity:
    """Who the Node authorizer takes this agent for."""
    return Identity(common_name=f"system:node:{node_name}")


def client_certificate(config: Config) -> CertificateFile:
    """The client certificate's place on disk."""
    return CertificateFile(config.pki_directory / "client.pem", CLIENT_SIGNER)


async def join(config: Config) -> Kubeconfig:
    """The credentials to work with; asks for a certificate first when there is none. Waits for as long as it takes.

    Raises UnifleetError only for what no waiting mends: a configuration or a file that is wrong.
    """
    if config.kubeconfig is not None:
        return load_kubeconfig(config.kubeconfig)
    file = client_certificate(config)
    identity = node_identity(config.node_name)
    if await file.current(identity) is None:
        await _bootstrap(config, file, identity)
        if config.bootstrap_token_file is not None:
            with contextlib.suppress(OSError):  # it ends by itself within the hour
                config.bootstrap_token_file.unlink()
    joined = replace(cluster(config), client_certificate=file.path, client_key=file.path)
    # For people and for an api_server that is known from a bootstrap kubeconfig alone, which goes once the host has joined.
    write_private(config.pki_directory / "kubeconfig", render_kubeconfig(joined).encode())
    return joined


def cluster(config: Config) -> Kubeconfig:
    """Server and CA without a user: the configuration's, else the bootstrap kubeconfig's, else those that the agent joined with."""
    if config.api_server and config.cluster_ca is not None:
        return Kubeconfig(server=config.api_server.rstrip("/"), ca_file=config.cluster_ca)
    joined = config.pki_directory / "kubeconfig"
    path = config.bootstrap_kubeconfig
    if path is None or not path.exists():
        path = joined
    known = load_kubeconfig(path)
    return Kubeconfig(server=config.api_server or known.server, ca_file=config.cluster_ca or known.ca_file, ca_data=known.ca_data)


def bootstrap_credentials(config: Config) -> Kubeconfig:
    """What a certificate is asked for with. Raises UnifleetError when there is no token."""
    hint = "run the site playbook again for this host: it makes a fresh short-lived token"
    if config.bootstrap_token_file is not None:
        token = _read_token(config.bootstrap_token_file, hint)
        return replace(cluster(config), token=token)
    if config.bootstrap_kubeconfig is not None and config.bootstrap_kubeconfig.exists():
        known = load_kubeconfig(config.bootstrap_kubeconfig)
        return replace(known, server=config.api_server or known.server)
    raise UnifleetError(f"{config.node_name} has no valid client certificate and no bootstrap token", hint)


async def _bootstrap(config: Config, file: CertificateFile, identity: Identity) -> None:
    backoff = Backoff(base=1.0, ceiling=15.0)
    while True:
        try:
            async with KubeApi(bootstrap_credentials(config), user_agent="virtual-kubelet") as api:
                await file.obtain(api, identity, patience=2.0)
                return
        except UnifleetError as error:
            delay = backoff.next_delay()
            why = error
            if isinstance(error, ApiError) and error.status in (401, 403):
                why = UnifleetError(
                    f"the API server does not accept the bootstrap token: {error.message}",
                    "tokens expire within the hour: run the site playbook again for this host, the agent takes a new one over by itself",
                )
            log.warning("cannot join yet: %s; next try in %.0f s", why, delay)
            await asyncio.sleep(delay)


def _read_token(path: Path, hint: str) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnifleetError(f"cannot read the bootstrap token {path}: {error}", hint) from error
    if not token:
        raise UnifleetError(f"the bootstrap token file {path} is empty", hint)
    return token
