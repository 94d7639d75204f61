# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter kubernetes_unit: what a control plane program's systemd unit runs, for the role's template."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kubernetes_unit
short_description: Arguments and files of a control plane program
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Gives the command line arguments that fit a version of Kubernetes, quoted for C(ExecStart=), and the files that the program reads.
positional: version
options:
  _input:
    description: Name of the program, one of etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
    type: str
    required: true
  version:
    description: Version of Kubernetes.
    type: str
    required: true
  settings:
    description:
      - The fields of C(ControlPlane) in C(plugins/module_utils/kubernetes_units.py), without C(credentials), which is the directory that
        systemd makes for the unit.
    type: dict
    required: true
"""

EXAMPLES = r"""
unit: "{{ 'kube-scheduler' | unifleet.hybrid.kubernetes_unit('1.33.1', {'address': '10.0.0.1'}) }}"
"""

RETURN = r"""
_value:
  description: C(arguments), a list, and C(credentials), names of files.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_units import ControlPlane, command_line, credential_files
from ansible_collections.unifleet.hybrid.plugins.module_utils.systemd_words import exec_start_word

CREDENTIALS = "\0"
"""Stands for the unit's credentials directory until all else is quoted, so that only our own "%d" is a specifier."""


def quoted(argument: str) -> str:
    """As one word of ExecStart=, in which systemd expands nothing but the credentials directory."""
    return exec_start_word(argument).replace(CREDENTIALS, "%d")


def kubernetes_unit(program: str, version: str, settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """{"arguments": [...], "credentials": [...]}; AnsibleFilterError for an unknown program, version or setting."""
    try:
        plane = ControlPlane(**settings, credentials=CREDENTIALS)
        arguments = [quoted(argument) for argument in command_line(program, version, plane)]
        return {"arguments": arguments, "credentials": list(credential_files(program))}
    except (UnifleetError, TypeError) as error:
        raise AnsibleFilterError(f"kubernetes_unit: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubernetes_unit": kubernetes_unit}
