# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter worker_unit: what kubelet and kube-proxy are started with, for the role's files."""

from __future__ import annotations

DOCUMENTATION = r"""
name: worker_unit
short_description: Arguments and configuration of a worker's program
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Gives the command line arguments that fit a version of Kubernetes, quoted for C(ExecStart=), the content of the program's configuration
    file, and the environment that the arguments refer to.
positional: version
options:
  _input:
    description: Name of the program, kubelet, kube-proxy or pod-router.
    type: str
    required: true
  version:
    description: Version of Kubernetes.
    type: str
    required: true
  settings:
    description: The fields of C(Worker) in C(plugins/module_utils/worker_units.py).
    type: dict
    required: true
"""

EXAMPLES = r"""
unit: "{{ 'kubelet' | unifleet.hybrid.worker_unit('1.33.1', {'node_name': 'worker1'}) }}"
"""

RETURN = r"""
_value:
  description: C(arguments), a list, and C(configuration) and C(environment), mappings.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils import worker_units
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.systemd_words import exec_start_word


def quoted(argument: str) -> str:
    """As one word of ExecStart=, in which systemd expands nothing but what the node registers with."""
    return exec_start_word(argument).replace("$${NODE_", "${NODE_")


def worker_unit(program: str, version: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"arguments": [...], "configuration": {...}, "environment": {...}}; AnsibleFilterError for an unknown program, version or setting."""
    try:
        worker = worker_units.Worker(**settings)
        arguments = [quoted(argument) for argument in worker_units.arguments(program, version, worker)]
        return {
            "arguments": arguments,
            "configuration": worker_units.configuration(program, version, worker),
            "environment": worker_units.registration(worker),
        }
    except (UnifleetError, TypeError) as error:
        raise AnsibleFilterError(f"worker_unit: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"worker_unit": worker_unit}
