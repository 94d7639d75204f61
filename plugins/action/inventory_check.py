# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the whole inventory on the controller, before any host is touched, and say what the nodes shall be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

from ansible_collections.unifleet.hybrid.plugins.module_utils.inventory_rules import GROUPS, HostEntry, problems

ROLES = Path(os.path.realpath(__file__)).parents[2] / "roles"


class ActionModule(ActionBase):
    """Needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Returns the nodes, or fails with everything that is wrong."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        self.validate_argument_spec(argument_spec={})
        variables = task_vars or {}
        found: list[str] = []
        hosts = []
        for name in sorted({host for group in GROUPS for host in variables["groups"].get(group, [])}):
            try:
                hosts.append(self._host(name, variables))
            except AnsibleError as error:
                found.append(f"{name}: {error}")
        found += problems(hosts, role_options())
        if found:
            lines = "".join(f"\n- {problem}" for problem in found)
            return {
                **result,
                "failed": True,
                "problems": found,
                "msg": f"The inventory has {len(found)} fault(s); no host was touched:{lines}",
            }
        nodes = [host for host in hosts if host.is_node]
        return {
            **result,
            "changed": False,
            "nodes": {host.node_name: {"labels": dict(host.labels), "taints": dict(host.taints)} for host in nodes},
            "addresses": {host.node_name: host.addresses for host in nodes},
            "hosts": {host.node_name: host.name for host in nodes},
        }

    def _host(self, name: str, variables: Mapping[str, Any]) -> HostEntry:
        """One host, its mappings merged over its groups. A variable that cannot be templated yet is left to its role."""
        lookup = lookup_loader.get("unifleet.hybrid.layered", loader=self._loader, templar=self._templar)
        labels, taints = lookup.run(["node_labels", "node_taints"], variables=variables, host=name)
        own = variables["hostvars"][name]
        known: dict[str, Any] = {}
        for key in own:
            try:
                value = own[key]
            except (AnsibleError, KeyError):
                continue
            if not _is_registered(value):
                known[key] = value
        return HostEntry(name, tuple(own["group_names"]), known, labels, taints)


def _is_registered(value: object) -> bool:
    """Whether it is what a task before this one registered, as where two playbooks are run at once."""
    return isinstance(value, Mapping) and "changed" in value and ("failed" in value or "skipped" in value)


def role_options() -> dict[str, dict[str, Any]]:
    """Role name -> options of its entry point main, of every role that has argument specs."""
    options = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        options[path.parents[1].name] = document["argument_specs"]["main"].get("options") or {}
    return options
