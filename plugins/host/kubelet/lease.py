# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heartbeat: a Lease in kube-node-lease, renewed every ten seconds, and only while the provider is well.

As kubelet's (k8s.io/component-helpers/apimachinery/lease): 40 s long, owned by the Node, up to five tries in a row. The last lease seen
is replaced without reading it first, so that a renewal is one request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import ApiError, KubeApi, Object
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import TimingConfig

log = logging.getLogger("unifleet.lease")

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_TRIES = 5


class NodeLease:
    """One node's lease. node_uid() says which Node owns it, "" while it is not known; may_renew() is the provider's health."""

    def __init__(
        self, api: KubeApi, node_name: str, timing: TimingConfig, node_uid: Callable[[], str], may_renew: Callable[[], bool]
    ) -> None:
        self._api = api
        self._name = node_name
        self._timing = timing
        self._node_uid = node_uid
        self._may_renew = may_renew
        self._last: Optional[Object] = None
        self.renewed_at = 0.0

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            started = time.monotonic()
            if self._may_renew():
                await self._renew_stubbornly()
            await asyncio.sleep(max(0.0, self._timing.lease_renew - (time.monotonic() - started)))

    async def renew(self) -> None:
        """One renewal. Raises ApiError."""
        if self._last is None:
            try:
                self._last = await self._api.get(f"{LEASES}/{self._name}")
            except ApiError as error:
                if error.status != 404:
                    raise
                self._last = await self._api.create(LEASES, self._body(None))
                self.renewed_at = time.monotonic()
                return
        try:
            self._last = await self._api.replace(f"{LEASES}/{self._name}", self._body(self._last))
        except ApiError:
            self._last = None
            raise
        self.renewed_at = time.monotonic()

    async def _renew_stubbornly(self) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                await asyncio.wait_for(self.renew(), timeout=self._timing.lease_renew)
            except (ApiError, asyncio.TimeoutError) as error:
                self._last = None
                level = logging.WARNING if attempt == _TRIES else logging.DEBUG
                log.log(level, "the lease could not be renewed: %s", error if str(error) else "no answer in time")
                await asyncio.sleep(0.2 * attempt)
            else:
                return

    def _body(self, last: Optional[Object]) -> Object:
        metadata: dict[str, Any] = {"name": self._name, "namespace": "kube-node-lease"}
        if last is not None:
            metadata = dict(last["metadata"])
        if self._node_uid():
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._node_uid()}
            metadata["ownerReferences"] = [owner]
        now = datetime.fromtimestamp(time.time(), timezone.utc)
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": self._timing.lease_duration,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
