# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What everything in a lab is called, derived from the lab's name, directory and network.

Two labs on one machine must never share a bridge, a table, a namespace or a control group, and a teardown must recognise its
own; so no other file makes up a name. Pure: nothing here looks at the machine.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

INTERFACE_NAME_LIMIT = 15
"""IFNAMSIZ - 1, linux/if.h."""

_LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Lab:
    """One lab: its name (also the prefix of every name it takes on the machine), its state directory and its IPv4 network."""

    name: str
    directory: Path
    network: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        return f"{self.name}-br"

    @property
    def table(self) -> str:
        """The nftables table (family ip) that holds the lab's address translation."""
        return self.name

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.network.network_address + 1

    @property
    def ledger(self) -> Path:
        return self.directory / "state.json"

    @property
    def key(self) -> Path:
        return self.directory / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "ssh" / "known_hosts"

    @property
    def modules(self) -> Path:
        """A made-up /lib/modules for hosts of a machine whose kernel has everything built in."""
        return self.directory / "modules"

    def host(self, name: str, address: str) -> Host:
        """The named host; UnifleetError when the name or the address cannot be one of this lab's."""
        if not _HOST_NAME.fullmatch(name):
            raise UnifleetError(f"host name {name!r} is not a DNS label", "use lower-case letters, digits and dashes, at most 63")
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError as error:
            raise UnifleetError(f"address of host {name}: {error}", "set ansible_host to an address of the lab's network") from error
        if parsed not in self.network or parsed in (self.network.network_address, self.gateway, self.network.broadcast_address):
            raise UnifleetError(f"address {address} of host {name} is not a free address of the lab network {self.network}")
        return Host(self, name, parsed)


@dataclass(frozen=True)
class Host:
    """One host of a lab: what it is called on the machine and where its state lies."""

    lab: Lab
    name: str
    address: ipaddress.IPv4Address

    @property
    def unique(self) -> str:
        """Name of the machine, the network namespace, the control groups and the systemd unit."""
        return f"{self.lab.name}-{self.name}"

    @property
    def interface(self) -> str:
        """The machine's end of the host's cable; hashed when the readable name is too long for the kernel."""
        if len(self.unique) <= INTERFACE_NAME_LIMIT:
            return self.unique
        return "v" + self._digest()[:12]

    @property
    def mac(self) -> str:
        """The same after every boot, so that neighbours need not wait for their ARP entries to go stale."""
        digest = self._digest()
        return ":".join(["52:54:00", digest[0:2], digest[2:4], digest[4:6]])

    @property
    def directory(self) -> Path:
        return self.lab.directory / "hosts" / self.name

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def run_file(self) -> Path:
        """What the supervisor is to run."""
        return self.directory / "run.json"

    @property
    def pid_file(self) -> Path:
        """The supervisor's process: "PID START" (start in clock ticks since boot, proc(5) stat field 22)."""
        return self.directory / "pid"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def leftovers(self) -> tuple[Path, ...]:
        """What systemd-nspawn (257 and later: a mount as well) leaves of a host whose power was cut, and then refuses to start over."""
        return tuple(Path("/run/systemd/nspawn", kind, self.unique) for kind in ("unix-export", "propagate"))

    @property
    def namespace(self) -> Path:
        return Path("/run/netns") / self.unique

    def _digest(self) -> str:
        return hashlib.sha256(f"{self.lab.name}/{self.name}".encode()).hexdigest()


def lab(name: str, directory: str, network: str) -> Lab:
    """A lab from what a user wrote; UnifleetError names the value that cannot be used."""
    if not _LAB_NAME.fullmatch(name):
        raise UnifleetError(f"lab name {name!r} cannot be used", "use at most 12 lower-case letters, digits and dashes, a letter first")
    path = Path(directory)
    if not path.is_absolute():
        raise UnifleetError(f"lab directory {directory!r} is not an absolute path")
    if re.search(r"[,:\\\s]", directory):
        raise UnifleetError(
            f"lab directory {directory!r} has a comma, colon, backslash or space, which mount options cannot carry", "use another"
        )
    try:
        parsed = ipaddress.IPv4Network(network)
    except ValueError as error:
        raise UnifleetError(f"lab network {network!r}: {error}", "write it like 10.77.0.0/24") from error
    if parsed.num_addresses < 8:
        raise UnifleetError(f"lab network {network} is too small for a gateway and hosts", "use /29 or larger")
    return Lab(name, path, parsed)
