# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Node object says: pure functions from what was measured to spec, status and conditions, and the measuring itself.

Nothing here is a constant dressed up as a reading. Pressure is what the host has left now, held for some minutes after it ended so
that the scheduler does not see a flicker (kubelet's eviction-pressure-transition-period); a transition time changes only with the status.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config, PressureConfig, ReserveConfig
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.labels import go_architecture
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import quantity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.version import KUBELET_VERSION, UNIFLEET_VERSION
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

Condition = dict[str, Any]


@dataclass(frozen=True)
class HostFacts:
    """What a host is, as long as it runs."""

    hostname: str
    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Readings:
    """What the host has left now: bytes of memory and disk, percent of disk, inodes and process ids; total disk bytes."""

    memory_available: int
    disk_total: int
    disk_percent: float
    inode_percent: float
    pid_percent: float


@dataclass(frozen=True)
class Health:
    """The provider's answer: message "" when it is well."""

    message: str = ""

    @property
    def good(self) -> bool:
        """Whether lease and status may say that the node is alive."""
        return not self.message


def read_host_facts(config: Config) -> HostFacts:
    """Look at the host. Raises UnifleetError when no address can be found."""
    address = config.node_ip or _outgoing_address(config.api_server)
    return HostFacts(
        hostname=socket.gethostname(),
        architecture=go_architecture(platform.machine()),
        kernel=platform.release(),
        os_image=_os_image(_text("/etc/os-release") or _text("/usr/lib/os-release")),
        machine_id=_text("/etc/machine-id").strip(),
        boot_id=_text("/proc/sys/kernel/random/boot_id").strip(),
        addresses=(address,),
    )


def take_readings(directory: Path) -> Readings:
    """Measure what is left; directory is on the file system that images and logs are on."""
    meminfo = parse_meminfo(_text("/proc/meminfo"))
    while not directory.exists():
        directory = directory.parent
    disk = os.statvfs(directory)
    threads = _text("/proc/loadavg").split()[3].partition("/")[2] if _text("/proc/loadavg") else "0"
    pid_max = int(_text("/proc/sys/kernel/pid_max") or 32768)
    return Readings(
        memory_available=meminfo.get("MemAvailable", 0),
        disk_total=disk.f_blocks * disk.f_frsize,
        disk_percent=100.0 * disk.f_bavail / max(1, disk.f_blocks),
        inode_percent=100.0 * disk.f_favail / disk.f_files if disk.f_files else 100.0,
        pid_percent=100.0 * max(0, pid_max - int(threads or 0)) / pid_max,
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    sizes = {}
    for line in text.splitlines():
        name, _colon, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return sizes


def timestamp(moment: float) -> str:
    """Seconds since the epoch as metav1.Time."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(
    previous: Iterable[Mapping[str, Any]],
    health: Health,
    readings: Readings,
    limits: PressureConfig,
    now: float,
    *,
    network: Optional[Health] = None,
) -> list[Condition]:
    """The four conditions that a kubelet owns, and NetworkUnavailable where the pod network is ours and was tried.

    previous: the Node's conditions as they are, for the transition times.
    """
    before = {str(entry.get("type")): entry for entry in previous}
    disk_low = min(readings.disk_percent / max(limits.disk_percent, 1e-9), readings.inode_percent / max(limits.disk_percent / 2, 1e-9)) < 1
    measured = (
        ("MemoryPressure", readings.memory_available < limits.memory_bytes, "InsufficientMemory", "SufficientMemory", "memory"),
        ("DiskPressure", disk_low, "DiskPressure", "NoDiskPressure", "disk space"),
        ("PIDPressure", readings.pid_percent < limits.pid_percent, "InsufficientPID", "SufficientPID", "process ids"),
    )
    result = []
    for kind, low, bad, good, what in measured:
        old = before.get(kind, {})
        held = not low and old.get("status") == "True" and _age(old, now) < limits.hold
        message = (
            f"the host is short of {what}"
            if low
            else f"the host was short of {what} a moment ago"
            if held
            else f"the host has enough {what}"
        )
        result.append(_condition(old, kind, low or held, (bad if low or held else good, message), now))
    why = ("KubeletReady", "virtual-kubelet and its provider are well") if health.good else ("ProviderUnhealthy", health.message)
    if network is not None:
        reason = ("PodNetworkReady", "virtual machines have a network") if network.good else ("PodNetworkFailed", network.message)
        result.append(_condition(before.get("NetworkUnavailable", {}), "NetworkUnavailable", not network.good, reason, now))
    return [*result, _condition(before.get("Ready", {}), "Ready", health.good, why, now)]


def node_status(
    facts: HostFacts,
    capacity: Optional[Capacity],
    readings: Readings,
    *,
    reserve: ReserveConfig,
    conditions: list[Condition],
    port: int,
    node_name: str,
    images: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """status of the Node, the part that is ours; without capacity and allocatable while the provider has not told them."""
    addresses = [{"type": "InternalIP", "address": address} for address in facts.addresses]
    return {
        **_resources(capacity, readings, reserve),
        "addresses": [*addresses, {"type": "Hostname", "address": node_name}],
        "conditions": conditions,
        "images": [dict(image) for image in images],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "architecture": facts.architecture,
            "bootID": facts.boot_id,
            "containerRuntimeVersion": f"unifleet://{UNIFLEET_VERSION}",
            "kernelVersion": facts.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": facts.machine_id,
            "operatingSystem": "linux",
            "osImage": facts.os_image,
            "systemUUID": facts.machine_id,
        },
    }


def _resources(capacity: Optional[Capacity], readings: Readings, reserve: ReserveConfig) -> dict[str, Any]:
    if capacity is None:
        return {}
    free_cpu = max(0, capacity.cpus * 1000 - reserve.cpu_millis)
    return {
        "capacity": {
            "cpu": str(capacity.cpus),
            "memory": f"{capacity.memory_bytes // 1024}Ki",
            "ephemeral-storage": f"{readings.disk_total // 1024}Ki",
            "pods": str(capacity.pods),
        },
        "allocatable": {
            "cpu": str(free_cpu // 1000) if free_cpu % 1000 == 0 else f"{free_cpu}m",
            "memory": f"{max(0, capacity.memory_bytes - reserve.memory_bytes) // 1024}Ki",
            "ephemeral-storage": f"{max(0, readings.disk_total - reserve.storage_bytes) // 1024}Ki",
            "pods": str(capacity.pods),
        },
    }


def status_differs(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether the API server should hear of it now: all but heartbeats, and what others added to the status, counts."""
    for key, value in mine.items():
        if key == "conditions":
            known = {entry.get("type"): entry for entry in theirs.get("conditions") or ()}
            for entry in value:
                other = known.get(entry["type"], {})
                if any(entry[name] != other.get(name) for name in ("status", "reason", "message")):
                    return True
        elif key in ("capacity", "allocatable"):
            other = theirs.get(key) or {}
            # The API server spells quantities its own way: 1000 comes back as 1k.
            if any(quantity(entry) != quantity(str(other.get(name, "-1"))) for name, entry in value.items()):
                return True
        elif isinstance(value, Mapping):
            other = theirs.get(key) or {}
            # The API server leaves empty strings out of what it gives back.
            if any(entry != other.get(name, "") for name, entry in value.items()):
                return True
        elif value != (theirs.get(key) or ([] if value == [] else None)):
            return True
    return False


def status_patch(status: Mapping[str, Any]) -> dict[str, Any]:
    """A strategic merge patch: conditions merge by type and so leave others' alone; addresses are replaced as a whole.

    Without the $patch directive two addresses of one type would be merged into one (kubernetes/kubernetes pkg/util/node, fixPatch).
    """
    return {"status": {**status, "addresses": [{"$patch": "replace"}, *status["addresses"]]}}


def _condition(old: Mapping[str, Any], kind: str, value: bool, why: tuple[str, str], now: float) -> Condition:
    status = "True" if value else "False"
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": why[0],
        "message": why[1][:1024],
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": since or timestamp(now),
    }


def _age(condition: Mapping[str, Any], now: float) -> float:
    try:
        since = datetime.strptime(str(condition.get("lastTransitionTime")), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return float("inf")
    return now - since.timestamp()


def _outgoing_address(api_server: str) -> str:
    """The address of this host that packets to the API server leave from; nothing is sent."""
    from urllib.parse import urlsplit

    target = urlsplit(api_server)
    host, port = target.hostname or "192.0.2.1", target.port or 443
    try:
        family, _kind, _proto, _name, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UnifleetError(f"cannot tell this host's address on the way to {host}: {error}", "set node_ip") from error


def _os_image(os_release: str) -> str:
    for line in os_release.splitlines():
        key, _equals, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return "Linux"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def pod_cidr(node: Mapping[str, Any]) -> Optional[str]:
    """The network that the control plane gave the node for its pods, once it did."""
    spec = node.get("spec") or {}
    ranges = spec.get("podCIDRs") or []
    return spec.get("podCIDR") or (ranges[0] if ranges else None)
