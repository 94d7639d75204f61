#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin inventory_check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Check the inventory of a whole cluster before any host is touched
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Checks all hosts of the groups C(control_plane), C(workers) and C(virtual_kubelets) on the controller, without a connection. Variables
    are checked against the argument specs of the collection's roles; names that look like a role's variable but are none are found; labels,
    taints, node names and addresses are checked as Kubernetes would.
  - Fails with everything that is wrong, naming host, variable and allowed values.
  - Looks at the inventory only, so one run for all hosts is right (C(run_once)).
options: {}
extends_documentation_fragment:
  - unifleet.hybrid.attributes
  - action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: none
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Check the inventory
  unifleet.hybrid.inventory_check:
  run_once: true
  register: inventory
"""

RETURN = r"""
nodes:
  description: What each node shall be, by node name.
  returned: success
  type: dict
  contains:
    labels:
      description: The labels, merged over the groups of the host.
      type: dict
    taints:
      description: The taints, merged over the groups of the host.
      type: dict
  sample:
    pi1: {labels: {sensor: humidity}, taints: {}}
addresses:
  description: Names and addresses under which each node may serve, by node name.
  returned: success
  type: dict
  sample:
    pi1: [10.77.0.13]
hosts:
  description: Each node's host in the inventory, by node name.
  returned: success
  type: dict
  sample:
    pi1: pi1
problems:
  description: Everything that is wrong.
  returned: failure
  type: list
  elements: str
  sample: ["pi1: provider is 'docker'; it must be one of kvm, process, simulated"]
"""
