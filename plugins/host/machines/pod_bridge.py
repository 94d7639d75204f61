# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridge that this host's virtual machines hang on: a libvirt network of ours, routed, without DHCP and without name service.

libvirt keeps the bridge over its own restarts, lets the packets through its own firewall rules and turns forwarding on. The network is
known by its UUID, so that one of the same name that is somebody else's is told of and never touched.
https://libvirt.org/formatnetwork.html
"""

from __future__ import annotations

import ipaddress
import logging
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt

from ansible_collections.unifleet.hybrid.plugins.host.machines.network_tools import ip
from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_firewall import TAP_PREFIX
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_LOG = logging.getLogger(__name__)
_OURS = uuid.UUID("6c1cfd7c-5f0e-4c3e-9d3c-0f4b8a4d9e51")
_LINKS = Path("/sys/class/net")
_TAP_SECONDS = 0.5


def network_uuid(name: str) -> str:
    """The UUID that a network of this name has when it is ours."""
    return str(uuid.uuid5(_OURS, name))


def network_xml(name: str, networks: Sequence[str], mode: str = "route") -> str:
    """The libvirt network, whose bridge bears its name. networks: "10.244.1.0/24", of which the host takes each first address.

    mode: "open" is "route" without any firewall rule of libvirt's.
    """
    network = ET.Element("network")
    ET.SubElement(network, "name").text = name
    ET.SubElement(network, "uuid").text = network_uuid(name)
    ET.SubElement(network, "forward", {"mode": mode})
    ET.SubElement(network, "bridge", {"name": name, "stp": "off", "delay": "0"})
    digest = uuid.uuid5(_OURS, f"{name} mac").hex
    ET.SubElement(network, "mac", {"address": f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"})
    ET.SubElement(network, "dns", {"enable": "no"})
    for each in map(ipaddress.ip_network, networks):
        ET.SubElement(network, "ip", {"address": str(each[1]), "prefix": str(each.prefixlen)})
    return ET.tostring(network, encoding="unicode")


def addresses_of(xml: str) -> frozenset[tuple[str, str]]:
    """(address, prefix length) of a libvirt network."""
    found = ET.fromstring(xml).iter("ip")  # noqa: S314 - libvirt's own
    return frozenset((element.get("address", ""), element.get("prefix", "")) for element in found)


class PodBridge:
    """One bridge under one libvirt. name: of the bridge and of the libvirt network."""

    def __init__(self, name: str, uri: str) -> None:
        self.name = name
        self._uri = uri

    def ensure(self, networks: Sequence[str]) -> bool:
        """Have the bridge, with the first address of each network, and our machines' taps on it; whether anything had to be done.

        Raises UnifleetError when a bridge or network of this name is somebody else's, or libvirt refuses.
        """
        with self._connection("make") as connection:
            changed = self._ensure(connection, networks)
        return self._hang_taps() or changed

    def remove(self) -> bool:
        """Take the bridge away if it is ours; whether it was there. Raises UnifleetError."""
        with self._connection("remove") as connection:
            network = self._ours(connection)
            if network is None:
                return False
            if network.isActive():
                network.destroy()
            network.undefine()
        _LOG.info("removed the bridge %s", self.name)
        return True

    @contextmanager
    def _connection(self, what: str) -> Iterator[Any]:
        libvirt.registerErrorHandler(lambda *_: None, None)
        try:
            connection = libvirt.open(self._uri)
            try:
                yield connection
            finally:
                connection.close()
        except libvirt.libvirtError as error:
            raise UnifleetError(f"libvirt could not {what} the bridge {self.name}: {_said(error)}", "see journalctl -u libvirtd") from error

    def _ensure(self, connection: Any, networks: Sequence[str]) -> bool:
        wanted = addresses_of(network_xml(self.name, networks))
        network = self._ours(connection)
        if network is not None and network.isActive():
            if addresses_of(network.XMLDesc()) == wanted and (_LINKS / self.name).exists():
                return False
            network.destroy()
        if (_LINKS / self.name).exists():
            raise UnifleetError(
                f"there is a network interface {self.name} on this host that is not ours",
                "remove it, or name another as bridge in [network]",
            )
        try:
            self._make(connection, network_xml(self.name, networks))
        except libvirt.libvirtError as error:
            if "firewall" not in str(error):
                raise
            # Who flushed all firewall rules took libvirt's chains too, and it makes them only when it starts.
            _LOG.warning("the bridge %s has no firewall rules of libvirt until libvirtd is restarted: %s", self.name, _said(error))
            self._make(connection, network_xml(self.name, networks, "open"))
        _LOG.info("made the bridge %s for %s", self.name, ", ".join(sorted(address for address, _prefix in wanted)))
        return True

    @staticmethod
    def _make(connection: Any, xml: str) -> None:
        network = connection.networkDefineXMLFlags(xml, libvirt.VIR_NETWORK_DEFINE_VALIDATE)
        network.setAutostart(True)
        network.create()

    def _ours(self, connection: Any) -> Any:
        """Our network, or None. Raises UnifleetError for another's of the same name."""
        for network in connection.listAllNetworks():
            if network.UUIDString() == network_uuid(self.name):
                return network
            if network.name() == self.name:
                raise UnifleetError(
                    f"there is a libvirt network {self.name} on this host that is not ours", "name another as bridge in [network]"
                )
        return None

    def _hang_taps(self) -> bool:
        """Bring back the taps of running machines, which a bridge that is made anew has lost."""
        loose = _loose_taps()
        if loose:  # libvirt makes a tap first and hangs it on the bridge then, and fails when somebody else was quicker
            time.sleep(_TAP_SECONDS)
            loose &= _loose_taps()
        for tap in sorted(loose):
            ip("link", "set", "dev", tap.name, "master", self.name)
            _LOG.warning("%s was on no bridge, and is on %s again", tap.name, self.name)
        return bool(loose)


def _loose_taps() -> set[Path]:
    return {tap for tap in _LINKS.glob(f"{TAP_PREFIX}*") if not (tap / "master").exists()}


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
