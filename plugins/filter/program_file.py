# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host program as one executable file, for M(unifleet.hybrid.host_files): hosts that need one small program need no versions of it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: program_file
short_description: One of the collection's host programs as one executable file
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Packs a program and all that it imports into one file that Python runs (PEP 441). The same sources give the same bytes.
options:
  _input:
    description: Name of the program's package in C(plugins/host).
    type: str
    required: true
  python:
    description: The interpreter on the host.
    type: path
    default: /usr/bin/python3
positional: python
"""

EXAMPLES = r"""
- name: Install pod-router
  unifleet.hybrid.host_files:
    files:
      - path: /usr/local/bin/pod-router
        base64: "{{ 'router' | unifleet.hybrid.program_file }}"
        mode: "0755"
"""

RETURN = r"""
_value:
  description: The file's content in base64.
  type: str
"""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import pack

COLLECTION_ROOT = Path(os.path.realpath(__file__)).parents[2]


def program_file(package: str, python: str = "/usr/bin/python3") -> str:
    """The program in base64; AnsibleFilterError for one that is not there."""
    try:
        return base64.b64encode(pack(COLLECTION_ROOT, {package.replace("_", "-"): package}, {}, python).single_file(python)).decode()
    except UnifleetError as error:
        raise AnsibleFilterError(f"program_file: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"program_file": program_file}
