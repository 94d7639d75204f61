# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of this node's virtual machines: their addresses, the bridge they hang on, and the firewall that keeps them honest.

The bridge is made once the control plane has given the node a podCIDR, looked at when something of the host's network changed and every
half minute, and mended when somebody took it away. A machine is started only when bridge and firewall are as they should be; until then
its pod waits with the reason in its status and an event. Machines that run are left as they are, whatever happens here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Optional, Protocol

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.addresses import AddressPool
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.node_status import Health
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import StepError, mac_of
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Interface
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import Rules, Speaker, tap_name
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.network")
_LOOK_SECONDS, _RETRY_SECONDS = 30.0, 5.0

Tell = Callable[[str, str, str], None]


class Bridge(Protocol):
    """What this file needs of machines/pod_bridge.PodBridge."""

    name: str

    def ensure(self, networks: Sequence[str]) -> bool:
        """Have the bridge with these networks."""


class Firewall(Protocol):
    """What this file needs of machines/pod_firewall.PodFirewall."""

    def apply(self, rules: Rules, *, look: bool = False) -> bool:
        """Have these rules."""


class PodNetwork:
    """The pod network of one node. bridge: None on a node that has none. pool is None until the node has a podCIDR.

    health is None until it was tried, then what the Node's condition NetworkUnavailable says. tell: emits events about the node.
    """

    def __init__(
        self,
        bridge: Optional[Bridge] = None,
        firewall: Optional[Firewall] = None,
        *,
        tell: Optional[Tell] = None,
    ) -> None:
        self._bridge = bridge
        self._firewall = firewall
        self._tell: Tell = tell or (lambda _type, _reason, _message: None)
        self._others: frozenset[str] = frozenset()
        self._subscribers: list[Callable[[], None]] = []
        self._laid: tuple[str, ...] = ()
        self._wake = asyncio.Event()
        self._look = False
        self._one_at_a_time = asyncio.Lock()
        self.pool: Optional[AddressPool] = None
        self.health: Optional[Health] = None

    def see(self, cidr: str, known: Callable[[], Mapping[str, str]]) -> None:
        """The node's podCIDR. known: machine key -> "address/length" of the machines that there are, asked for when the podCIDR is new."""
        if not cidr or (self.pool is not None and self.pool.cidr == cidr):
            return
        try:
            pool = AddressPool(cidr)
        except UnifleetError as error:
            self._judge(str(error))
            return
        for key, address in known().items():
            pool.reserve(key, address)
        if self.pool is not None:
            LOG.warning("the node's podCIDR was %s and is %s; machines that run keep their addresses", self.pool.cidr, cidr)
        self.pool = pool
        self._wake.set()

    def reserve(self, key: str, address: str) -> None:
        """A machine that was found has this address."""
        if self.pool is not None:
            self.pool.reserve(key, address)

    def keep(self, keys: Collection[str]) -> None:
        """Only these machines are there, or will be: the addresses of all others are free."""
        if self.pool is not None:
            for key in set(self.pool.addresses) - set(keys):
                self.release(key)

    def release(self, key: str) -> None:
        """The machine is gone."""
        if self.pool is not None:
            self.pool.release(key)
            self._wake.set()

    async def interface(self, key: str) -> Interface:
        """The network card of a machine, with a network behind it. Raises StepError that says why there is none."""
        if self._bridge is None:
            raise StepError(
                "CreateContainerConfigError", "the image drives a network interface and this node has no bridge ([network] bridge)"
            )
        if self.pool is None:
            raise StepError("CreateContainerConfigError", "the image drives a network interface and the node has no podCIDR yet")
        pool = self.pool
        try:
            address = pool.take(key)
        except UnifleetError as error:
            raise StepError("CreateContainerConfigError", str(error)) from error
        trouble = await self._hold(look=False)
        if trouble:
            raise StepError(
                "CreateContainerConfigError", f"the image drives a network interface, and the node has no pod network: {trouble}"
            )
        return Interface(pool.with_prefix(address), pool.gateway, self._bridge.name, mac_of(key), tap_name(key))

    def reach(self, others: frozenset[str]) -> None:
        """The networks of other nodes' pods, which are reached under the machines' own addresses."""
        self._others = others
        self._wake.set()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """changed() is called when health changes."""
        self._subscribers.append(changed)

    def look(self) -> None:
        """Somebody may have changed the host's network."""
        self._look = True
        self._wake.set()

    async def run(self) -> None:
        """Hold the network until cancelled."""
        while True:
            wait = _LOOK_SECONDS if self.health is None or self.health.good else _RETRY_SECONDS
            woken = False
            with contextlib.suppress(asyncio.TimeoutError):
                woken = await asyncio.wait_for(self._wake.wait(), wait)
            self._wake.clear()
            look, self._look = self._look or not woken or self.health is None, False
            await self._hold(look=look)

    async def _hold(self, look: bool) -> str:
        """Have bridge and firewall as they should be; why they are not, or "". look: at the bridge too, should nothing have changed."""
        async with self._one_at_a_time:
            if self._bridge is None or self.pool is None:
                return ""
            bridge, firewall, networks = self._bridge, self._firewall, self.pool.networks
            speakers = frozenset(Speaker(tap_name(key), mac_of(key), address) for key, address in self.pool.addresses.items())
            rules = Rules(frozenset(networks), self._others, speakers)

            def work() -> None:
                if look or networks != self._laid:
                    bridge.ensure(networks)
                if firewall is not None:
                    firewall.apply(rules, look=look)

            try:
                await asyncio.get_running_loop().run_in_executor(None, work)
            except (UnifleetError, OSError) as error:
                self._laid = ()
                self._judge(str(error))
                return str(error)
            self._laid = networks
            self._judge("")
            return ""

    def _judge(self, trouble: str) -> None:
        before = self.health
        self.health = Health(trouble)
        if before == self.health:
            return
        if trouble:
            LOG.error("no pod network: %s", trouble)
            self._tell("Warning", "PodNetworkFailed", f"virtual machines with a network cannot start: {trouble}")
        elif before is not None:
            LOG.info("the pod network is well again")
            self._tell("Normal", "PodNetworkReady", "virtual machines with a network can start again")
        for changed in self._subscribers:
            changed()
