# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of this node's virtual machines: static ones out of the node's podCIDR, as a CNI plugin's host-local would give.

Nothing is stored: who has which address is in the machines' metadata, from which a restarted agent fills the pool again. A node that was
deleted and made anew may have got another podCIDR: machines that run keep their old addresses until they end.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass
class AddressPool:
    """cidr: the node's podCIDR ("10.244.1.0/24"); its first address is the gateway. given: machine key -> address.

    foreign: machine key -> "address/length" outside of it, from a podCIDR that the node had before.
    """

    cidr: str
    given: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    _next: int = 2

    def __post_init__(self) -> None:
        try:
            self.network = ipaddress.ip_network(self.cidr)
        except ValueError as error:
            raise UnifleetError(f"the node's podCIDR {self.cidr!r} is no network", "see spec.podCIDR of the Node") from error
        if self.network.num_addresses < 4:
            raise UnifleetError(f"the node's podCIDR {self.cidr} has no room for a machine beside the host", "see spec.podCIDR of the Node")

    @property
    def gateway(self) -> str:
        """The host's own address on the bridge."""
        return str(self.network[1])

    def with_prefix(self, address: str) -> str:
        """ "10.244.1.7/24"."""
        return f"{address}/{self.network.prefixlen}"

    @property
    def networks(self) -> tuple[str, ...]:
        """Every network that machines here have addresses of, the podCIDR first."""
        return (str(self.network), *sorted({str(ipaddress.ip_interface(address).network) for address in self.foreign.values()}))

    @property
    def addresses(self) -> dict[str, str]:
        """Machine key -> address, without a length."""
        return {**{key: address.partition("/")[0] for key, address in self.foreign.items()}, **self.given}

    def reserve(self, key: str, address: str) -> None:
        """A machine that was found has this address ("10.244.1.7/24")."""
        if not address or key in self.given:
            return
        bare = address.partition("/")[0]
        if ipaddress.ip_address(bare) in self.network:
            self.given[key] = bare
        else:
            self.foreign[key] = address

    def take(self, key: str) -> str:
        """This machine's address, the same one every time; a freed one is used again as late as possible. Raises UnifleetError."""
        self.foreign.pop(key, None)
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
        self.foreign.pop(key, None)
