# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which fields of a pod's spec this node honours: an allow-list, so that a field nobody thought of is refused by name.

A field that the API server or an admission plugin fills in by itself is here with the values that cost nothing. A refused field leaves
the pod Pending with an event that names its path; it is never skipped. The field names are those of core/v1 PodSpec up to Kubernetes
1.36; a field that holds Go's zero value ("", 0, false, [], {}) counts as not set, as it does for the API server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Union

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where every cluster mounts the token
DEFAULT_TERMINATION_LOG = "/dev/termination-log"
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "postStart", "preStop")


@dataclass(frozen=True)
class Refusal:
    """A field that this node does not honour. path: as kubectl explain writes it, with list indexes."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Anything:
    """A field that is honoured here, by the scheduler or by the API server, whatever it holds."""


@dataclass(frozen=True)
class OneOf:
    """A field of which only these values can be honoured."""

    values: tuple[object, ...]
    why: str


@dataclass(frozen=True)
class Each:
    """A list whose every element follows the same rule."""

    rule: Rule


@dataclass(frozen=True)
class Check:
    """A rule that a table cannot say."""

    find: Callable[[Any, str], Iterator[Refusal]]


Rule = Union[Anything, OneOf, Each, Check, Mapping[str, "Rule"]]
ANY = Anything()
NOT_YET = "this node does not support it"


def is_token_volume(volume: Mapping[str, Any], mounts: list[Mapping[str, Any]]) -> bool:
    """Whether a volume is the one the ServiceAccount admission plugin adds.

    Up to 1.20 it is a secret volume that is mounted only where tokens go (that the secret's type really is
    kubernetes.io/service-account-token is checked when it is fetched); later, a projected volume of token, CA and namespace.
    """
    used = [mount for mount in mounts if mount.get("name") == volume.get("name")]
    if not used or any(mount.get("mountPath") != TOKEN_PATH for mount in used):
        return False
    if set(volume) == {"name", "secret"}:
        return not (volume["secret"].get("items") or volume["secret"].get("optional"))
    if set(volume) != {"name", "projected"}:
        return False
    sources = volume["projected"].get("sources") or []
    return any("serviceAccountToken" in source for source in sources) and all(_token_source(source) for source in sources)


def _token_source(source: Mapping[str, Any]) -> bool:
    if "serviceAccountToken" in source:
        return True
    if "configMap" in source:
        return bool(source["configMap"].get("name") == "kube-root-ca.crt")
    items = (source.get("downwardAPI") or {}).get("items") or []
    return bool(items) and all((item.get("fieldRef") or {}).get("fieldPath") == "metadata.namespace" for item in items)


def _probe(value: Any, path: str) -> Iterator[Refusal]:
    handlers = [name for name in HANDLERS if isinstance(value, Mapping) and name in value]
    yield from (Refusal(f"{path}.{name}", NOT_YET) for name in handlers)
    if not handlers:
        yield Refusal(path, NOT_YET)


def _limits(value: Any, path: str) -> Iterator[Refusal]:
    for name, amount in value.items():
        if name not in {"cpu", "memory", "ephemeral-storage"} and str(amount) != "0":
            yield Refusal(f"{path}.{name}", "this node has no such resource")


def _port(value: Any, path: str) -> Iterator[Refusal]:
    if value.get("hostIP"):
        yield Refusal(f"{path}.hostIP", "a port cannot be bound to one of the node's addresses here")
    if value.get("hostPort") not in (None, 0, value.get("containerPort")):
        yield Refusal(f"{path}.hostPort", "ports are not translated here, it must equal containerPort")


def _vm_port(value: Any, path: str) -> Iterator[Refusal]:
    if value.get("hostPort"):
        yield Refusal(f"{path}.hostPort", "a virtual machine has its own address, reach it there")


def _env(value: Any, path: str) -> Iterator[Refusal]:
    for source in value.get("valueFrom") or {}:
        yield Refusal(f"{path}.valueFrom.{source}", "only literal values are supported")


def _process_dns(_value: Any, path: str) -> Iterator[Refusal]:
    yield Refusal(path, "a process has its host's name servers")


DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default")
SECCOMP: Rule = {"type": OneOf(("RuntimeDefault", "Unconfined"), "profiles of one's own are not supported"), "localhostProfile": ANY}
POD_SECURITY: Rule = {"runAsNonRoot": ANY, "seccompProfile": SECCOMP, "fsGroupChangePolicy": ANY}
CONTAINER_SECURITY: Rule = {
    "allowPrivilegeEscalation": ANY,
    "readOnlyRootFilesystem": ANY,
    "runAsNonRoot": ANY,
    "seccompProfile": SECCOMP,
    "procMount": OneOf(("Default",), NOT_YET),
    "capabilities": {"drop": ANY},
}
VOLUME_MOUNT: Rule = {"name": ANY, "mountPath": ANY, "readOnly": ANY, "recursiveReadOnly": OneOf(("Disabled", "IfPossible"), NOT_YET)}


def _container(vm: bool) -> Mapping[str, Rule]:
    return {
        "name": ANY,
        "image": ANY,
        "imagePullPolicy": ANY,
        "args": ANY,
        "command": ANY,
        "env": Each(Check(_env)),
        "ports": Each(Check(_vm_port if vm else _port)),
        "resources": {"limits": Check(_limits), "requests": Check(_limits)},
        "resizePolicy": ANY,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": OneOf((DEFAULT_TERMINATION_LOG,), "only the default is supported"),
        "terminationMessagePolicy": ANY,
        "volumeMounts": Each(VOLUME_MOUNT),
        "workingDir": OneOf(("/",), "a virtual machine has no working directory") if vm else ANY,
        "livenessProbe": Check(_probe),
        "readinessProbe": Check(_probe),
        "startupProbe": Check(_probe),
        "lifecycle": Check(_probe),
    }


def _pod(vm: bool, runtime_classes: tuple[str, ...]) -> Mapping[str, Rule]:
    scheduling = (
        "affinity nodeName nodeSelector tolerations topologySpreadConstraints schedulerName schedulingGates priority priorityClassName "
        "preemptionPolicy overhead"
    )
    honoured = (
        "activeDeadlineSeconds automountServiceAccountToken enableServiceLinks hostname subdomain imagePullSecrets readinessGates "
        "restartPolicy serviceAccount serviceAccountName terminationGracePeriodSeconds"
    )
    rules: dict[str, Rule] = dict.fromkeys(f"{scheduling} {honoured}".split(), ANY)
    rules.update(
        {
            "containers": Each(_container(vm)),
            "initContainers": Each(_container(vm)),
            "dnsPolicy": OneOf(DNS_POLICIES + (("None",) if vm else ()), "a process has its host's name servers"),
            "dnsConfig": {"nameservers": ANY} if vm else Check(_process_dns),
            "hostNetwork": OneOf((False,), "a virtual machine has its own network") if vm else ANY,
            "hostUsers": OneOf((True,), "user namespaces are not supported"),
            "os": {"name": OneOf(("linux",), "this node runs linux")},
            "runtimeClassName": OneOf(runtime_classes, "this node has no such runtime class"),
            "securityContext": POD_SECURITY,
            "volumes": Each({"name": ANY}),
        }
    )
    return rules


def refusals(spec: Mapping[str, Any], *, vm: bool, runtime_classes: tuple[str, ...] = ("runu",)) -> tuple[Refusal, ...]:
    """Every field of a pod's spec that this node (one that runs virtual machines, or processes) cannot honour."""
    mounts = [
        mount
        for group in ("initContainers", "containers")
        for container in spec.get(group) or []
        for mount in container.get("volumeMounts") or []
    ]
    known = [{"name": volume["name"]} if is_token_volume(volume, mounts) else volume for volume in spec.get("volumes") or []]
    return tuple(_find(_pod(vm, runtime_classes), {**spec, "volumes": known}, "spec"))


def _find(rule: Rule, value: Any, path: str) -> Iterator[Refusal]:
    if isinstance(rule, Anything):
        return
    if isinstance(rule, OneOf):
        if value not in rule.values:
            yield Refusal(path, f"{value!r} is not supported, {rule.why}")
    elif isinstance(rule, Check):
        yield from rule.find(value, path)
    elif isinstance(rule, Each):
        for index, element in enumerate(value):
            yield from _find(rule.rule, element, f"{path}[{index}]")
    else:
        for name, element in value.items():
            if name in rule:
                if element not in (None, "", [], {}):
                    yield from _find(rule[name], element, f"{path}.{name}")
            elif element not in (None, "", 0, False, [], {}) or (path.endswith("]") and element == {}):
                yield Refusal(f"{path}.{name}", NOT_YET)
