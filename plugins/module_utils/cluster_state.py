# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a cluster is what its inventory says: pure comparison of what the API server and the hosts said with what was wanted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import AGENT_LABELS, INVENTORY_LABELS, read_owned

AGENT_TAINTS = frozenset({"virtual-kubelet.io/provider"})
"""Taints that an agent gives to its own node."""
RENEWED_WITH_LEFT = 0.15
"""The share of its life that a certificate has left when its renewal is overdue: agents renew with 0.2 left."""
SYSTEM_TAINTS = "node.kubernetes.io/"
"""Taints that Kubernetes sets and removes by itself, such as not-ready and unschedulable."""


def node_problems(wanted: Mapping[str, Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the nodes. wanted: node name -> labels, taints ("KEY:EFFECT" -> value); nodes: objects of the API."""
    found = {str(node["metadata"]["name"]): node for node in nodes}
    problems: list[str] = []
    for name, wish in sorted(wanted.items()):
        if name not in found:
            problems.append(f"node {name} is not in the cluster")
            continue
        node = found[name]
        problems += [f"node {name} {text}" for text in (*_ready(node), *_labels(node, wish.get("labels") or {}), *_taints(node, wish))]
    problems += [f"node {name} is in the cluster but not in the inventory" for name in sorted(set(found) - set(wanted))]
    return problems


def _ready(node: Mapping[str, Any]) -> Iterator[str]:
    conditions = {entry.get("type"): entry for entry in node.get("status", {}).get("conditions") or []}
    ready = conditions.get("Ready")
    if ready is None:
        yield "has not reported yet"
    elif ready.get("status") != "True":
        yield f"is not Ready: {ready.get('reason', '')} {ready.get('message', '')}".rstrip()
    if node.get("spec", {}).get("unschedulable"):
        yield "is cordoned"


def _labels(node: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    has = node["metadata"].get("labels") or {}
    for key, value in sorted(wanted.items()):
        if key not in has:
            yield f"lacks label {key}={value}"
        elif has[key] != str(value):
            yield f"has label {key}={has[key]} instead of {value}"
    for key in sorted(_owned(node) - set(wanted)):
        if key in has and not _built_in(key):
            yield f"still has label {key}={has[key]}, which the inventory no longer names"


def _owned(node: Mapping[str, Any]) -> set[str]:
    """The labels that the inventory once set: by an agent's file or by the module node_labels."""
    annotations = node["metadata"].get("annotations") or {}
    return set(read_owned(annotations, AGENT_LABELS) | read_owned(annotations, INVENTORY_LABELS))


def _built_in(key: str) -> bool:
    prefix = key.partition("/")[0] if "/" in key else ""
    return key == "type" or prefix.endswith("kubernetes.io") or prefix == "unifleet.io"


def _taints(node: Mapping[str, Any], wish: Mapping[str, Any]) -> Iterator[str]:
    has = {f"{t.get('key')}:{t.get('effect')}": t.get("value") or "" for t in node.get("spec", {}).get("taints") or []}
    wanted = {str(identity): str(value or "") for identity, value in (wish.get("taints") or {}).items()}
    for identity, value in sorted(wanted.items()):
        if identity not in has:
            yield f"lacks taint {identity}"
        elif has[identity] != value:
            yield f"has taint {identity} with value {has[identity]!r} instead of {value!r}"
    for identity in sorted(set(has) - set(wanted)):
        key = identity.partition(":")[0]
        if key not in AGENT_TAINTS and not key.startswith(SYSTEM_TAINTS):
            yield f"has taint {identity}, which the inventory does not name"


def host_problems(name: str, info: Mapping[str, Any], warn_days: float) -> list[str]:
    """What is wrong on one host. info: what host_info returned, or how it failed."""
    if info.get("unreachable"):
        return [f"host {name} cannot be reached: {info.get('msg', '')}"]
    if info.get("failed"):
        return [f"host {name} cannot be examined: {info.get('msg', '')}"]
    problems = []
    for path, entry in sorted((info.get("certificates") or {}).items()):
        if entry["problem"]:
            problems.append(f"host {name}: certificate {path}: {entry['problem']}")
        elif entry["days_left"] < min(warn_days, entry["days_total"] * RENEWED_WITH_LEFT):
            problems.append(f"host {name}: certificate {path} ends in {entry['days_left']:.1f} days")
    for unit, entry in sorted((info.get("units") or {}).items()):
        if entry["active"] != "active":
            problems.append(f"host {name}: {unit} is {entry['active']} ({entry['sub']})")
        elif entry["enabled"] not in {"enabled", "static", "unknown"}:
            problems.append(f"host {name}: {unit} does not start at boot ({entry['enabled']})")
    shown = set(info.get("units") or {})
    problems += [f"host {name}: {unit} has failed" for unit in info.get("failed_units") or [] if unit not in shown]
    return problems


def route_problems(name: str, info: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]], node_hosts: Mapping[str, Any]) -> list[str]:
    """To which nodes' pods a host has no route. info: what host_info returned; without C(routes) in it the host needs none.

    node_hosts: node name -> the host that it is, whose pods are its own.
    """
    if not isinstance(info.get("routes"), list):
        return []
    routes = [ipaddress.IPv4Network(route) for route in info["routes"]]
    problems = []
    for node in nodes:
        spec, there = node.get("spec", {}), str(node["metadata"]["name"])
        if node_hosts.get(there) == name:
            continue
        for cidr in spec.get("podCIDRs") or [spec.get("podCIDR")]:
            network = ipaddress.ip_network(cidr) if cidr else None
            if isinstance(network, ipaddress.IPv4Network) and not any(network.subnet_of(route) for route in routes):
                problems.append(f"host {name} has no route to the pods of node {there} ({cidr})")
    return problems


def program_problems(name: str, answer: Mapping[str, Any]) -> list[str]:
    """Whether the collection's programs are on a host as they should be. answer: what host_app returned in check mode."""
    if answer.get("unreachable"):
        return []  # said once, of the host
    if answer.get("failed") or "reason" not in answer:
        return [f"host {name}: its programs cannot be examined: {answer.get('msg', '')}"]
    if not answer["reason"]:
        return []
    return [f"host {name}: programs are version {answer.get('previous') or 'none'}, should be {answer['version']}: {answer['reason']}"]
