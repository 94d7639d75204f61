# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pod as this agent understands it: the API server's JSON, parsed once into frozen records.

Two records are equal exactly when nothing that matters here differs, so a watch event that only echoes our own status is
recognised by ==. What cannot be honoured is not lost in parsing: it is listed in Pod.refusals.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_fields import TOKEN_PATH, Refusal, is_token_volume, refusals
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import tag_of

QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{1,2}))?")
SUFFIXES = {
    **{suffix: Fraction(1000) ** power for power, suffix in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE")},
    **{f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))?")


@dataclass(frozen=True)
class Resources:
    """What one container asks for: cpu in thousandths of a core, memory in bytes; None where the pod says nothing."""

    cpu_request: Optional[int] = None
    cpu_limit: Optional[int] = None
    memory_request: Optional[int] = None
    memory_limit: Optional[int] = None

    @property
    def cpu_millis(self) -> int:
        """The size to give: the limit, else the request, else 0 (the provider's default)."""
        return self.cpu_limit or self.cpu_request or 0

    def memory_bytes(self, floor: int) -> int:
        """The size to give: the limit, else the request, else what the image needs."""
        return self.memory_limit or self.memory_request or floor


@dataclass(frozen=True)
class Container:
    """One container. path: where it is in the pod ("spec.containers[0]"). ports: (protocol, number)."""

    name: str
    path: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    pull_policy: str = "IfNotPresent"
    resources: Resources = Resources()
    ports: tuple[tuple[str, int], ...] = ()
    token_volumes: tuple[str, ...] = ()
    run_as_non_root: bool = False
    message_from_logs: bool = False


@dataclass(frozen=True)
class TokenVolume:
    """The volume that holds a service account's token. secret: the token Secret (up to 1.20), else a bound token is requested."""

    name: str
    secret: str = ""
    audience: str = ""
    expiration_seconds: int = 3607
    root_ca_configmap: str = ""


@dataclass(frozen=True)
class Pod:
    """One pod. Times are seconds since the epoch. deletion_grace: seconds, set once deletion was asked for."""

    uid: str
    namespace: str
    name: str
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    restart_policy: str = "Always"
    grace_seconds: int = 30
    active_deadline: Optional[int] = None
    service_account: str = "default"
    pull_secrets: tuple[str, ...] = ()
    token_volumes: tuple[TokenVolume, ...] = ()
    readiness_gates: tuple[str, ...] = ()
    dns_policy: str = "ClusterFirst"
    name_servers: tuple[str, ...] = ()
    overhead_cpu: int = 0
    overhead_memory: int = 0
    created_at: float = 0.0
    deletion_grace: Optional[int] = None
    refusals: tuple[Refusal, ...] = ()

    @property
    def title(self) -> str:
        """namespace/name, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def every_container(self) -> tuple[Container, ...]:
        """Init containers first, as they run."""
        return self.init_containers + self.containers

    def key_of(self, container: str) -> str:
        """The machine's UUID: the pod's own for its first container, derived from it for every other."""
        return self.uid if container == self.containers[0].name else str(uuid.uuid5(uuid.UUID(self.uid), container))

    @property
    def cpu_request(self) -> int:
        """Thousandths of a core as the scheduler counts: the sum, or the hungriest init container."""
        return self.overhead_cpu + max(
            sum(c.resources.cpu_request or 0 for c in self.containers),
            *(c.resources.cpu_request or 0 for c in self.init_containers),
            0,
        )

    @property
    def memory_request(self) -> int:
        """Bytes as the scheduler counts."""
        return self.overhead_memory + max(
            sum(c.resources.memory_request or 0 for c in self.containers),
            *(c.resources.memory_request or 0 for c in self.init_containers),
            0,
        )


def quantity(text: object) -> Fraction:
    """A Kubernetes quantity ("64Mi", "250m", "1e3"). Raises UnifleetError. Source: apimachinery resource.Quantity."""
    found = QUANTITY.fullmatch(str(text))
    if not found:
        raise UnifleetError(f"{text!r} is no Kubernetes quantity", "write it as 64Mi, 250m or 2")
    number, suffix, exponent = found.groups()
    return Fraction(number) * (SUFFIXES[suffix] if suffix else Fraction(10) ** int(exponent or 0))


def parse_time(text: str) -> float:
    """An RFC 3339 time to seconds since the epoch. Raises ValueError."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", text)
    if not found:
        raise ValueError(f"{text!r} is no RFC 3339 time")
    day, clock, fraction, zone = found.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    return moment.timestamp() + float(fraction or 0)


def format_time(seconds: float) -> str:
    """Seconds since the epoch as the API server writes times (whole seconds, UTC)."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) replaced where NAME is known and left alone where not; $$ is one $. Source: kubernetes third_party/forked expansion."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return variables.get(found[2], found[0]) if found[1] else found[0]

    return REFERENCE.sub(value, text)


def parse_pod(raw: Mapping[str, Any], *, vm: bool, runtime_classes: tuple[str, ...] = ("runu",)) -> Pod:
    """A pod object from the API server. Raises UnifleetError when it could never be one of ours (its UID is no UUID, say)."""
    metadata, spec = raw["metadata"], raw["spec"]
    title = f"{metadata.get('namespace')}/{metadata.get('name')}"
    try:
        uid = str(uuid.UUID(metadata["uid"]))
    except ValueError as error:
        raise UnifleetError(f"pod {title}: UID {metadata['uid']!r} is no UUID", "the UID is the key of its machine") from error
    names = [str(part) for part in (metadata["namespace"], metadata["name"])]
    if any("/" in part or part in {"", ".", ".."} for part in names):
        raise UnifleetError(f"pod {title}: the name cannot be a path component")
    every = [*(spec.get("initContainers") or []), *spec["containers"]]
    mounts = [mount for container in every for mount in container.get("volumeMounts") or []]
    tokens = tuple(_token_volume(volume) for volume in spec.get("volumes") or [] if is_token_volume(volume, mounts))
    overhead = spec.get("overhead") or {}
    context = spec.get("securityContext") or {}
    deleted = metadata.get("deletionTimestamp") is not None
    return Pod(
        uid=uid,
        namespace=names[0],
        name=names[1],
        containers=_containers(spec, "containers", context),
        init_containers=_containers(spec, "initContainers", context),
        restart_policy=spec.get("restartPolicy", "Always"),
        grace_seconds=_grace(spec.get("terminationGracePeriodSeconds")),
        active_deadline=spec.get("activeDeadlineSeconds"),
        service_account=spec.get("serviceAccountName") or "default",
        pull_secrets=tuple(secret["name"] for secret in spec.get("imagePullSecrets") or [] if secret.get("name")),
        token_volumes=tokens,
        readiness_gates=tuple(gate["conditionType"] for gate in spec.get("readinessGates") or []),
        dns_policy=spec.get("dnsPolicy") or "ClusterFirst",
        name_servers=tuple((spec.get("dnsConfig") or {}).get("nameservers") or ()),
        overhead_cpu=_millis(overhead.get("cpu")) or 0,
        overhead_memory=_bytes(overhead.get("memory")) or 0,
        created_at=parse_time(metadata["creationTimestamp"]) if metadata.get("creationTimestamp") else 0.0,
        deletion_grace=int(metadata.get("deletionGracePeriodSeconds") or 0) if deleted else None,
        refusals=refusals(spec, vm=vm, runtime_classes=runtime_classes),
    )


def _grace(value: Optional[int]) -> int:
    return 30 if value is None else int(value)


def _containers(spec: Mapping[str, Any], group: str, context: Mapping[str, Any]) -> tuple[Container, ...]:
    return tuple(_container(raw, f"spec.{group}[{index}]", context) for index, raw in enumerate(spec.get(group) or []))


def _container(raw: Mapping[str, Any], path: str, pod_context: Mapping[str, Any]) -> Container:
    variables: dict[str, str] = {}
    for entry in raw.get("env") or []:
        variables.pop(entry["name"], None)
        variables[entry["name"]] = expand(entry.get("value") or "", variables)
    context = raw.get("securityContext") or {}
    return Container(
        name=raw["name"],
        path=path,
        image=raw.get("image") or "",
        command=tuple(expand(word, variables) for word in raw.get("command") or []),
        args=tuple(expand(word, variables) for word in raw.get("args") or []),
        env=tuple(variables.items()),
        working_dir=raw.get("workingDir") or "",
        pull_policy=raw.get("imagePullPolicy") or default_pull_policy(str(raw.get("image") or "")),
        resources=_resources(raw.get("resources") or {}),
        ports=tuple((port.get("protocol") or "TCP", int(port["containerPort"])) for port in raw.get("ports") or []),
        token_volumes=tuple(mount["name"] for mount in raw.get("volumeMounts") or [] if mount.get("mountPath") == TOKEN_PATH),
        run_as_non_root=bool(context.get("runAsNonRoot", pod_context.get("runAsNonRoot", False))),
        message_from_logs=raw.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def _resources(raw: Mapping[str, Any]) -> Resources:
    requests, limits = raw.get("requests") or {}, raw.get("limits") or {}
    return Resources(_millis(requests.get("cpu")), _millis(limits.get("cpu")), _bytes(requests.get("memory")), _bytes(limits.get("memory")))


def _millis(value: object) -> Optional[int]:
    return None if value is None else -int(-quantity(value) * 1000 // 1)


def _bytes(value: object) -> Optional[int]:
    return None if value is None else -int(-quantity(value) // 1)


def _token_volume(volume: Mapping[str, Any]) -> TokenVolume:
    if "secret" in volume:
        return TokenVolume(volume["name"], secret=volume["secret"]["secretName"])
    sources = volume["projected"]["sources"]
    token = next(source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source)
    root = next((source["configMap"]["name"] for source in sources if "configMap" in source), "")
    return TokenVolume(
        volume["name"],
        audience=token.get("audience") or "",
        expiration_seconds=int(token.get("expirationSeconds") or 3607),
        root_ca_configmap=root,
    )


def default_pull_policy(image: str) -> str:
    """What the API server fills in for a container that does not say (pkg/apis/core/v1/defaults.go): Always for the tag latest."""
    try:
        return "Always" if tag_of(image) == "latest" else "IfNotPresent"
    except UnifleetError:
        return "IfNotPresent"
