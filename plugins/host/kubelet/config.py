# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of virtual-kubelet: TOML, every key known and typed, told by file and key when it is not.

A flag wins over the file, the file over the default. All times are seconds, all sizes bytes. `python3 -m ... --check-config` reads it
all (labels too) and ends.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.registry_settings import registry_settings
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_settings import ImagesConfig, check_images
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import subdomain_problem
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import Taint, parse_taints
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import from_toml

PROVIDERS = ("kvm", "process", "simulated")
DEFAULT_CONFIG = Path("/etc/unifleet/virtual-kubelet.toml")
PROVIDER_TAINT = Taint("virtual-kubelet.io/provider", "NoSchedule", "unikernel")


@dataclass(frozen=True)
class ServerConfig:
    """[server]: where logs and the like are asked for. address "" is the node's address; port 0 any free one (it is announced)."""

    address: str = ""
    port: int = 10250


@dataclass(frozen=True)
class ReserveConfig:
    """[reserve]: what is kept from pods for the host itself (capacity minus reserve is allocatable)."""

    cpu_millis: int = 0
    memory_bytes: int = 128 * 1024 * 1024
    storage_bytes: int = 0


@dataclass(frozen=True)
class PressureConfig:
    """[pressure]: below what the node says MemoryPressure, DiskPressure, PIDPressure (as kubelet's eviction thresholds)."""

    memory_bytes: int = 100 * 1024 * 1024
    disk_percent: float = 10.0
    pid_percent: float = 10.0
    hold: float = 300.0


@dataclass(frozen=True)
class TimingConfig:
    """[timing]: lease renewal and duration, status report at the latest, provider health check and its limit, labels file poll."""

    lease_renew: float = 10.0
    lease_duration: int = 40
    status_check: float = 10.0
    status_report: float = 300.0
    health_timeout: float = 10.0
    labels_poll: float = 2.0


@dataclass(frozen=True)
class MachinesConfig:
    """[machines]: of the kvm provider. accelerator: auto, kvm or tcg. probe_kernel: the guest that auto boots to find out."""

    accelerator: str = "auto"
    probe_kernel: Optional[Path] = Path("/usr/local/lib/unifleet/current/probe/sensor-kvm-amd64")
    libvirt_uri: str = "qemu:///system"


@dataclass(frozen=True)
class NetworkConfig:
    """[network]: of pods. bridge: what virtual machines hang on, made by the agent ("": none, and images that drive a card cannot run).

    routes: whether the agent keeps this host's routes to the pods of other nodes. cluster_dns: name servers of ClusterFirst pods.
    """

    bridge: str = "unifleet0"
    routes: bool = True
    cluster_dns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """The whole file. Either kubeconfig is given (used as it is), or the agent joins by itself with a bootstrap token.

    api_server ("https://HOST:PORT") and cluster_ca (PEM file), or bootstrap_kubeconfig that has both and the token. The token is read
    only while there is no valid certificate under state_directory/pki.
    """

    provider: str = "process"
    node_name: str = ""
    node_ip: str = ""
    api_server: str = ""
    cluster_ca: Optional[Path] = None
    bootstrap_token_file: Optional[Path] = None
    bootstrap_kubeconfig: Optional[Path] = None
    kubeconfig: Optional[Path] = None
    state_directory: Path = Path("/var/lib/unifleet")
    run_directory: Path = Path("/run/unifleet")
    log_directory: Path = Path("/var/log/pods")
    labels_file: Optional[Path] = None
    max_pods: int = 110
    log_level: str = "info"
    taints: tuple[Taint, ...] = (PROVIDER_TAINT,)
    labels: Mapping[str, str] = field(default_factory=dict)
    server: ServerConfig = field(default_factory=ServerConfig)
    reserve: ReserveConfig = field(default_factory=ReserveConfig)
    pressure: PressureConfig = field(default_factory=PressureConfig)
    timing: TimingConfig = field(default_factory=TimingConfig)
    pods: Mapping[str, Any] = field(default_factory=dict)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    machines: MachinesConfig = field(default_factory=MachinesConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def pki_directory(self) -> Path:
        """Where the agent keeps its keys and certificates."""
        return self.state_directory / "pki"


_SECTIONS: Mapping[str, type] = {
    "server": ServerConfig,
    "reserve": ReserveConfig,
    "pressure": PressureConfig,
    "timing": TimingConfig,
    "images": ImagesConfig,
    "machines": MachinesConfig,
    "network": NetworkConfig,
}
_PATHS = {
    "cluster_ca",
    "bootstrap_token_file",
    "bootstrap_kubeconfig",
    "kubeconfig",
    "state_directory",
    "run_directory",
    "log_directory",
    "labels_file",
    "directory",
    "probe_kernel",
}
_CHOICES = {"provider": PROVIDERS, "log_level": ("debug", "info", "warning", "error"), "accelerator": ("auto", "kvm", "tcg")}
_TABLES = {"pods", "labels"}


def read_config(path: Path, overrides: Optional[Mapping[str, Any]] = None) -> Config:
    """Read the file (one that is not there is empty when it is the default one) and lay the flags over it.

    overrides: key -> value as in the file, None for flags that were not given. Raises UnifleetError with file and key.
    """
    document: dict[str, Any] = {}
    if path != DEFAULT_CONFIG or path.exists():
        document = read_document(path)
    config = parse_config(document, str(path))
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return _complete(_laid_over(config, given), str(path))


def parse_config(document: Mapping[str, Any], where: str) -> Config:
    """A Config out of a decoded document; where names the file in messages."""
    known = {entry.name for entry in fields(Config)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise UnifleetError(f"{where}: unknown key {', '.join(map(repr, unknown))}", f"known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key in _SECTIONS:
            values[key] = _section(_SECTIONS[key], value, f"{where}: [{key}]")
        elif key == "taints":
            if not isinstance(value, Mapping):
                raise UnifleetError(f"{where}: 'taints' is not a table", 'write [taints] and lines like "KEY:NoSchedule" = "VALUE"')
            own = [taint for taint in parse_taints(value, f"{where}: [taints]") if taint.identity != PROVIDER_TAINT.identity]
            values[key] = (PROVIDER_TAINT, *own)
        elif key in _TABLES:
            if not isinstance(value, Mapping):
                raise UnifleetError(f"{where}: {key!r} is not a table")
            values[key] = dict(value)
        else:
            values[key] = _scalar(Config, key, value, where)
    return Config(**values)


def read_document(path: Path) -> dict[str, Any]:
    """A TOML or (by its name) JSON file as a dict. Raises UnifleetError naming the file, and the line where there is one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UnifleetError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnifleetError(f"cannot read {path}: {error}") from error
    try:
        document = json.loads(text) if path.suffix == ".json" else from_toml(text)
    except ValueError as error:
        raise UnifleetError(f"{path} is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    if not isinstance(document, dict):
        raise UnifleetError(f"{path} is not a mapping of keys to values")
    return document


def _laid_over(config: Config, given: Mapping[str, Any]) -> Config:
    values = {}
    for key, value in given.items():
        if key == "port":
            config = replace(config, server=replace(config.server, port=_scalar(ServerConfig, "port", value, "--port")))
        else:
            values[key] = _scalar(Config, key, value, f"--{key.replace('_', '-')}")
    return replace(config, **values)


def _complete(config: Config, where: str) -> Config:
    """Defaults that need a look at the host, and what must fit together."""
    config = replace(config, node_name=(config.node_name or socket.gethostname()).strip().lower())
    trouble = subdomain_problem(config.node_name)
    if trouble:
        raise UnifleetError(f"{where}: node_name {config.node_name!r} {trouble}")
    check_images(config.images, f"{where}: [images]")
    if config.node_ip:
        try:
            ipaddress.ip_address(config.node_ip)
        except ValueError as error:
            raise UnifleetError(f"{where}: node_ip {config.node_ip!r} is not an IP address") from error
    if config.kubeconfig is None and config.bootstrap_kubeconfig is None:
        missing = [key for key, value in (("api_server", config.api_server), ("cluster_ca", config.cluster_ca)) if not value]
        if missing:
            raise UnifleetError(
                f"{where}: {' and '.join(missing)} not set", "name the API server and its CA, or a bootstrap_kubeconfig, or a kubeconfig"
            )
    if config.api_server and not config.api_server.startswith("https://"):
        raise UnifleetError(f"{where}: api_server {config.api_server!r} is not an https:// address")
    if config.timing.lease_renew * 2 > config.timing.lease_duration:
        raise UnifleetError(f"{where}: [timing] lease_renew is more than half of lease_duration", "a lease must survive one lost renewal")
    return config


def _section(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UnifleetError(f"{where} is not a table")
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise UnifleetError(f"{where}: unknown key {', '.join(map(repr, unknown))}", f"known are {', '.join(sorted(known))}")
    return kind(**{key: _scalar(kind, key, entry, where) for key, entry in value.items()})


def _scalar(kind: type, key: str, value: Any, where: str) -> Any:
    """Check one value against the type of the field's default; numbers must not be negative."""
    if key in _PATHS:
        if not isinstance(value, (str, Path)) or not str(value):
            raise UnifleetError(f"{where}: {key} must be the path of a file, not {value!r}")
        return Path(value)
    if key in ("insecure_registries", "prefetch"):
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in value):
            what = '"HOST:PORT"' if key == "insecure_registries" else "image references"
            raise UnifleetError(f"{where}: {key} must be a list of {what}, not {value!r}")
        return tuple(value)
    if key == "registries":
        return registry_settings(value, f"{where} registries")
    if key == "cluster_dns":
        if not isinstance(value, (list, tuple)) or not all(_is_ipv4(entry) for entry in value):
            raise UnifleetError(f"{where}: {key} must be a list of IPv4 addresses, not {value!r}")
        return tuple(value)
    if key == "bridge" and not (isinstance(value, str) and re.fullmatch(r"[a-zA-Z0-9_.-]{0,15}", value) and value not in (".", "..")):
        raise UnifleetError(f"{where}: {key} {value!r} is no name of a network interface", "use up to 15 letters, digits, and _ . -")
    default = next(entry.default for entry in fields(kind) if entry.name == key)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UnifleetError(f"{where}: {key} must be true or false, not {value!r}")
        return value
    wanted = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, wanted) or isinstance(value, bool):
        name = "a number" if wanted[0] is int else "a string"
        raise UnifleetError(f"{where}: {key} must be {name}, not {value!r}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise UnifleetError(f"{where}: {key} is {value!r}", f"use one of {', '.join(_CHOICES[key])}")
    if isinstance(value, (int, float)):
        if value < 0 or (key == "port" and value > 65535):
            raise UnifleetError(f"{where}: {key} is {value}, out of range")
        if isinstance(default, float):
            return float(value)
    return value


def _is_ipv4(value: object) -> bool:
    try:
        ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True
