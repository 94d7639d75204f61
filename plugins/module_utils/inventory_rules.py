# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory must say for `site` to work, checked for all hosts before any of them is touched.

Each rule returns sentences that name host, variable and allowed values. The types and choices of variables come from the roles'
argument specs; the rules here are about what must fit together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import subdomain_problem
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import parse_wish

PROVIDERS = ("kvm", "process", "simulated")
GROUPS = ("control_plane", "workers", "virtual_kubelets")
_SPEC_KEYS = frozenset({"type", "choices", "elements", "options", "aliases", "no_log"})


@dataclass(frozen=True)
class HostEntry:
    """One host as the inventory describes it; labels and taints are merged over its groups."""

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)
    taints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node_name(self) -> str:
        """The host's name in the cluster."""
        return str(self.variables.get(f"{self._agent}_node_name") or self.name)

    @property
    def _agent(self) -> str:
        """The role that runs the host's agent, whose variables begin with its name."""
        return "worker" if "workers" in self.groups else "virtual_kubelet"

    @property
    def is_node(self) -> bool:
        """Whether the host shall be a node of the cluster."""
        return bool({"workers", "virtual_kubelets"} & set(self.groups))

    @property
    def addresses(self) -> list[str]:
        """The names and addresses under which the node may serve, beside its own name."""
        given = [self.variables.get("ansible_host"), self.variables.get(f"{self._agent}_node_ip"), self.name]
        further = self.variables.get("node_addresses") or []
        return sorted({str(entry) for entry in [*given, *further] if entry} - {self.node_name})


def problems(hosts: Iterable[HostEntry], specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Everything that is wrong, sorted as the hosts are. specs: role name -> options of its entry point main."""
    listed = list(hosts)
    owners: dict[str, list[str]] = {}
    for host in listed:
        if set(host.groups) & set(GROUPS):
            for problem in (*_variables(host, specs), *_node(host)):
                owners.setdefault(problem, []).append(host.name)
    return [*_cluster(listed), *(f"{', '.join(names)}: {problem}" for problem, names in owners.items())]


def _cluster(hosts: list[HostEntry]) -> Iterator[str]:
    planes = [host for host in hosts if "control_plane" in host.groups]
    nodes = [host for host in hosts if host.is_node]
    if len(planes) != 1:
        names = ", ".join(host.name for host in planes) or "no host"
        yield f"group control_plane holds {names}; it needs exactly one host"
    if not nodes:
        yield "groups workers and virtual_kubelets are empty; there would be no node"
    if not all(host.variables.get("control_plane_admin_kubeconfig") for host in hosts if set(host.groups) & set(GROUPS)):
        yield "control_plane_admin_kubeconfig is not set for all hosts; it must be the path, on the controller, of an admin's kubeconfig"
    yield from _doubles("the node name", ((host.node_name, host.name) for host in nodes))
    reachable = [host for host in hosts if host.variables.get("ansible_connection") != "local"]
    addressed = (
        (f"{host.variables['ansible_host']}:{host.variables.get('ansible_port', 22)}", host.name)
        for host in reachable
        if host.variables.get("ansible_host")
    )
    yield from _doubles("the address (ansible_host)", addressed)


def _doubles(what: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    for value, owner in pairs:
        owners.setdefault(value, []).append(owner)
    for value, names in owners.items():
        if len(names) > 1:
            yield f"{', '.join(names)}: {what} {value} is given to all of them"


def _variables(host: HostEntry, specs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Types, choices and misspelt names of the roles' variables, as far as the inventory sets them."""
    for role, options in specs.items():
        given = {name: host.variables[name] for name in options if host.variables.get(name) is not None}
        result = ArgumentSpecValidator({name: _plain(options[name]) for name in given}).validate(given)
        yield from (f"role {role}: {message}" for message in result.error_messages)
        longer = tuple(f"{other}_" for other in specs if other.startswith(f"{role}_"))
        for name in host.variables:
            if name.startswith(f"{role}_") and name not in options and not (longer and name.startswith(longer)):
                prefix = len(role) + 1
                near = difflib.get_close_matches(name[prefix:], [option[prefix:] for option in options], n=1)
                hint = f"is {role}_{near[0]} meant?" if near else f"there are {', '.join(sorted(options))}"
                yield f"{name} is no variable of role {role}; {hint}"


def _plain(option: Mapping[str, Any]) -> dict[str, Any]:
    spec = {key: value for key, value in option.items() if key in _SPEC_KEYS}
    if "options" in spec:
        spec["options"] = {name: {**_plain(entry), "required": bool(entry.get("required"))} for name, entry in spec["options"].items()}
    return spec


def _node(host: HostEntry) -> Iterator[str]:
    if not host.is_node:
        return
    if {"workers", "virtual_kubelets"} <= set(host.groups):
        yield "is in both workers and virtual_kubelets; a host has one agent, choose one"
    trouble = subdomain_problem(host.node_name)
    if trouble:
        yield f"node name {host.node_name!r} {trouble}"
    if "virtual_kubelets" in host.groups:
        provider = host.variables.get("provider")
        if "virtual_kubelet_provider" not in host.variables and provider not in PROVIDERS:
            said = "is not set" if provider is None else f"is {provider!r}"
            yield f"provider {said}; it must be one of {', '.join(PROVIDERS)}"
    try:
        parse_wish(host.labels, host.taints, "node_labels and node_taints")
    except UnifleetError as error:
        yield str(error)
