# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that the agent's HTTPS server shows: the cluster's once somebody approved it, one of its own making until then.

No controller approves kubelet-serving requests by itself, so the request waits (for ever, and over restarts) while a self-signed
certificate serves. The file that counts can change at any time; whoever serves subscribes and loads it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import KubeApi
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import write_private
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.certificates import SERVING_SIGNER, CertificateFile, Identity, keep, self_sign

log = logging.getLogger("unifleet.serving")


def serving_identity(node_name: str, addresses: Sequence[str]) -> Identity:
    """Names and addresses of the Node object, no others: that is what an approver checks the request against."""
    return Identity(f"system:node:{node_name}", dns=(node_name,), ips=tuple(addresses))


class ServingCertificate:
    """path is the PEM file (certificate and key) to serve with now; subscribe() to hear when to load it again."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self._issued = CertificateFile(directory / "serving.pem", SERVING_SIGNER)
        self._own = CertificateFile(directory / "serving-self-signed.pem", SERVING_SIGNER)
        self._identity = identity
        self._listeners: list[Callable[[], None]] = []
        self.path = self._own.path

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have listener called, in the event loop, whenever path or its content changed."""
        self._listeners.append(listener)

    async def prepare(self) -> Path:
        """Make sure that there is something to serve with. Raises UnifleetError."""
        if await self._issued.current(self._identity):
            self.path = self._issued.path
        elif await self._own.current(self._identity) is None:
            write_private(self._own.path, (await self_sign(self._identity)).encode())
        return self.path

    async def run(self, api: KubeApi) -> None:
        """Ask for the cluster's certificate and keep it fresh, until cancelled."""
        await keep(self._issued, api, lambda: self._identity, self._renewed, patience=3.0)

    def _renewed(self) -> None:
        self.path = self._issued.path
        log.info("serving with %s", self.path)
        for listener in self._listeners:
            listener()
