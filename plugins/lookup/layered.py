# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mapping variable merged over all groups of a host, where Ansible itself takes the innermost one whole."""

from __future__ import annotations

DOCUMENTATION = r"""
name: layered
short_description: A mapping variable of a host, merged over its groups
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Ansible gives a host the value of a variable from one place, the most specific. For mappings such as C(node_labels) this lookup lays
    the values of all places over each other instead, C(all) first, then parent groups before child groups (groups of one depth by
    C(ansible_group_priority), then by name), the host last. A more specific key wins; C(null) takes a key away.
  - Of each group and host, what the inventory says comes first, then C(group_vars) and C(host_vars) beside the inventory, then those
    beside the playbook.
  - A value that comes from none of these (extra vars, play vars, C(set_fact)) is laid on top of all.
options:
  _terms:
    description: Names of variables. Each gives one mapping.
    required: true
  host:
    description: Name of the host. The default is the host of the task.
    type: str
"""

EXAMPLES = r"""
- name: The labels of this host
  ansible.builtin.debug:
    msg: "{{ lookup('unifleet.hybrid.layered', 'node_labels') }}"

- name: The labels of another host
  ansible.builtin.debug:
    msg: "{{ lookup('unifleet.hybrid.layered', 'node_labels', host='pi1') }}"
"""

RETURN = r"""
_raw:
  description: One merged mapping for each variable name; empty when the variable is set nowhere.
  type: list
  elements: dict
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleLookupError
from ansible.inventory.group import Group
from ansible.inventory.helpers import sort_groups
from ansible.inventory.host import Host
from ansible.plugins.lookup import LookupBase
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import merge_layers


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup."""

    def run(self, terms: list[str], variables: Optional[Mapping[str, Any]] = None, **options: Any) -> list[dict[str, Any]]:
        """One mapping for each name."""
        self.set_options(var_options=variables, direct=options)
        variables = variables or {}
        name = self.get_option("host") or variables.get("inventory_hostname", "")
        hostvars = variables.get("hostvars")
        if hostvars is None:
            raise AnsibleLookupError("layered needs an inventory")
        inventory = hostvars._inventory
        host = inventory.get_host(name)
        if host is None:
            raise AnsibleLookupError(f"layered: there is no host {name!r} in the inventory")
        templar = self._templar
        if name != variables.get("inventory_hostname"):
            templar = templar.copy_with_new_env(available_variables={**hostvars.raw_get(name), "hostvars": hostvars})
        layers = list(self._layers(host, inventory, variables.get("playbook_dir")))
        return [self._merged(term, layers, templar, hostvars[name]) for term in terms]

    def _layers(self, host: Host, inventory: Any, playbook_dir: Optional[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(where, variables) of everything that the inventory says of the host, weakest first."""
        groups = sort_groups([group for group in host.get_groups() if group.name != "all"])
        entities: list[Any] = [inventory.groups["all"], *groups, host]
        for entity in entities:
            where = f"group {entity.name}" if isinstance(entity, Group) else f"host {entity.name}"
            yield where, entity.vars
            yield where, get_vars_from_inventory_sources(self._loader, inventory._sources, [entity], "task")
            if playbook_dir and Path(playbook_dir).is_dir():
                yield where, get_vars_from_path(self._loader, playbook_dir, [entity], "task")

    def _merged(self, term: str, layers: list[tuple[str, Mapping[str, Any]]], templar: Any, own: Mapping[str, Any]) -> dict[str, Any]:
        values = [(where, templar.template(found[term])) for where, found in layers if term in found]
        winner = own.get(term)
        if winner is not None and winner not in [value for _where, value in values]:
            values.append(("a variable from outside the inventory", winner))
        for where, value in values:
            if value is not None and not isinstance(value, Mapping):
                name = own.get("inventory_hostname")
                raise AnsibleLookupError(f"layered: {term} of {where} (for host {name}) must be a mapping, not {type(value).__name__}")
        return merge_layers(value for _where, value in values)
