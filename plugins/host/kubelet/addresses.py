# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of this node's virtual machines: static ones out of the node's podCIDR, as a CNI plugin's host-local would give.

Nothing is stored: who has which address is in the machines' metadata, from which a restarted agent fills the pool again.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass
class AddressPool:
    """cidr: the node's podCIDR ("10.244.1.0/24"); its first address is the gateway. given: machine key -> address."""

    cidr: str
    given: dict[str, str] = field(default_factory=dict)
    _next: int = 2

    def __post_init__(self) -> None:
        try:
            self.network = ipaddress.ip_network(self.cidr)
        except ValueError as error:
            raise UnifleetError(f"the node's podCIDR {self.cidr!r} is no network", "see spec.podCIDR of the Node") from error

    @property
    def gateway(self) -> str:
        """The host's own address on the bridge."""
        return str(self.network[1])

    def with_prefix(self, address: str) -> str:
        """ "10.244.1.7/24"."""
        return f"{address}/{self.network.prefixlen}"

    def reserve(self, key: str, address: str) -> None:
        """A machine that was found has this address."""
        if address:
            self.given[key] = address.partition("/")[0]

    def take(self, key: str) -> str:
        """This machine's address, the same one every time; a freed one is used again as late as possible. Raises UnifleetError."""
        if key in self.given:
            return self.given[key]
        taken = set(self.given.values())
        size = min(self.network.num_addresses, 1 << 16)
        for step in range(size):
            index = 2 + (self._next - 2 + step) % max(size - 3, 1)
            address = str(self.network[index]) if index < size - 1 else ""
            if address and address not in taken:
                self._next = index + 1
                self.given[key] = address
                return address
        raise UnifleetError(f"no address is left in {self.cidr}", f"{len(taken)} are in use")

    def release(self, key: str) -> None:
        """The machine is gone."""
        self.given.pop(key, None)
