#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin host_app, which does the controller's half; host_app_install does the host's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_app
short_description: Install the collection's programs on a host
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Packs programs from C(plugins/host), with the shared modules that they import and nothing else, on the controller, and installs them
    on the host in a directory of their own version, byte-compiled by the host's own Python, behind a C(current) link.
  - The version is the collection's version and a hash of the content, so that a host changes only when the content did.
  - An install that breaks half-way leaves C(current) untouched. A version that was damaged on the host is installed again.
  - Nothing is transferred to a host that has the version. The host needs Python 3.9 and no network.
options:
  programs:
    description:
      - The programs to install, as a mapping from the name of the command to its package under C(plugins/host).
    type: dict
    required: true
  files:
    description:
      - Further files to carry, as a mapping from the path inside the version's directory to the file on the controller.
      - A file that is executable on the controller is executable on the host.
    type: dict
    default: {}
  directory:
    description: Where the versions are kept on the host.
    type: path
    default: /usr/local/lib/unifleet
  bin_directory:
    description: Where the links to the commands are kept on the host.
    type: path
    default: /usr/local/bin
  python:
    description: The host's Python, which runs and compiles the programs.
    type: path
    default: /usr/bin/python3
  keep:
    description: How many versions stay installed. Those that C(current) and C(previous) name always stay.
    type: int
    default: 3
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
seealso:
  - module: unifleet.hybrid.host_app_install
"""

EXAMPLES = r"""
- name: Install the virtual kubelet
  unifleet.hybrid.host_app:
    programs:
      virtual-kubelet: kubelet
    files:
      probe/sensor-kvm-amd64: "{{ playbook_dir }}/../guest/build/sensor-kvm-amd64"
"""

RETURN = r"""
version:
  description: The version that is, or in check mode would be, installed.
  returned: success
  type: str
  sample: 0.1.0+1a2b3c4d
previous:
  description: The version that C(current) named before; empty on a host that had none.
  returned: success
  type: str
  sample: 0.1.0+99aa88bb
reason:
  description: Why something changed; empty when nothing did.
  returned: success
  type: str
  sample: not installed
path:
  description: The directory of the version.
  returned: success
  type: str
  sample: /usr/local/lib/unifleet/0.1.0+1a2b3c4d
pruned:
  description: The versions that were removed.
  returned: success
  type: list
  elements: str
  sample: []
"""
