# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pod half of the agent can be told, with kubelet's values as defaults; config.py fills it from the configuration file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import KUBELET, RETRY, Curve
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "riscv64": "riscv64", "i686": "386"}


def host_architecture() -> str:
    """This host's architecture as images name it."""
    machine = platform.machine()
    return GO_ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True)
class PodSettings:
    """log_directory: as kubelet's, so that log shippers find it. token_directory: files of mounted tokens, best on a tmpfs.

    hold_off: seconds during which a machine of a pod that the API server does not list is left alone, counted from the first
    authoritative list. resync: seconds between looks at every
    machine, for the case that a change was not reported. workers: how many provider calls run at once. cluster_dns: the name servers of
    ClusterFirst pods, of [network].
    """

    log_directory: Path = Path("/var/log/pods")
    token_directory: Path = Path("/run/unifleet/pods")
    architecture: str = host_architecture()
    curve: Curve = KUBELET
    retry: Curve = RETRY
    hold_off: float = 60.0
    resync: float = 30.0
    workers: int = 12
    pulls: int = 3
    cluster_dns: tuple[str, ...] = ()
    runtime_classes: tuple[str, ...] = ("runu",)


CURVES = {"restart_initial": ("curve", "initial"), "restart_cap": ("curve", "cap"), "restart_reset": ("curve", "reset_after")}
ELSEWHERE = {"cluster_dns"}
KINDS: Mapping[str, Any] = {"float": (int, float), "int": (int,), "str": (str,), "Path": (str,), "tuple[str, ...]": (list,)}


def pod_settings(table: Mapping[str, Any], where: str = "[pods]", base: PodSettings = PodSettings()) -> PodSettings:
    """The [pods] table of the configuration file over these defaults. Raises UnifleetError that names the key.

    Keys: the simple fields of PodSettings, and restart_initial, restart_cap, restart_reset (seconds of the restart curve).
    """
    known = {f.name: str(f.type) for f in fields(PodSettings) if f.type in KINDS and f.name not in ELSEWHERE}
    result = base
    for key, value in table.items():
        name = CURVES[key][1] if key in CURVES else key
        kind = "float" if key in CURVES else known.get(key)
        if kind is None:
            raise UnifleetError(f"{where}: unknown key {key!r}", f"known: {', '.join(sorted([*known, *CURVES]))}")
        if not isinstance(value, KINDS[kind]) or isinstance(value, bool):
            raise UnifleetError(f"{where} {key}: {value!r} is no {kind}")
        if kind in {"float", "int"} and value < 0:
            raise UnifleetError(f"{where} {key}: {value!r} is negative")
        if key in CURVES:
            result = replace(result, curve=replace(result.curve, **{name: float(value)}))
        else:
            converted = {"Path": Path, "tuple[str, ...]": tuple}.get(kind, lambda same: same)(value)
            result = replace(result, **{name: converted})
    return result
