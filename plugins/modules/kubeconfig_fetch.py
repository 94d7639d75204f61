#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeconfig_fetch
short_description: Bring a kubeconfig to the controller
version_added: 0.1.0
description:
  - Copies a file that holds a key from a host to the controller, where only the user who runs Ansible can read it. The content
    appears in no output.
author:
  - Unifleet developers (@unifleet)
options:
  src:
    description: Path on the host.
    type: path
    required: true
  dest:
    description: Path on the controller. A missing directory is made.
    type: path
    required: true
attributes:
  check_mode:
    description: Says whether the file on the controller would change. A file that is not on the host yet is expected to come.
    support: full
  diff_mode:
    description: The content is secret.
    support: none
  action:
    description: Part of it runs on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Get the administrator's kubeconfig
  unifleet.hybrid.kubeconfig_fetch:
    src: /etc/kubernetes/pki/admin.kubeconfig
    dest: ~/.kube/unifleet.kubeconfig
"""

RETURN = r"""
dest:
  description: Path on the controller.
  type: str
  returned: success
"""
