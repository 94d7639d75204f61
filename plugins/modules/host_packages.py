#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of the action plugin of the same name: which packages are missing, asked of dpkg, which answers at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_packages
short_description: Have Debian packages installed, quickly where they are
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Asks dpkg, and calls M(ansible.builtin.apt) with those packages that dpkg does not know as installed, if there are any. Opening
    apt's cache takes seconds on a small board, every time; dpkg answers in a fraction of one.
  - The package lists are refreshed before an installation when they are older than a day.
options:
  name:
    description:
      - Names of packages. What dpkg alone cannot answer, such as C(name=1.0), is left to M(ansible.builtin.apt).
    type: list
    elements: str
    required: true
  start:
    description: Whether services of the packages are started as their packages want it. V(false) leaves them stopped.
    type: bool
    default: true
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
  check_mode:
    description: Names what is missing. Whether it can be had is not known before the package lists are fetched.
seealso:
  - module: ansible.builtin.apt
"""

EXAMPLES = r"""
- name: Install etcd, stopped
  unifleet.hybrid.host_packages:
    name: [etcd-server]
    start: false
"""

RETURN = r"""
missing:
  description: The packages that were not installed.
  returned: success
  type: list
  elements: str
  sample: [etcd-server]
"""

import re

from ansible.module_utils.basic import AnsibleModule

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""Debian Policy 5.6.7."""


def missing(names: list[str], listing: str) -> list[str]:
    """The names, in their order, that "NAME STATUS" lines of dpkg-query do not show as installed."""
    installed = {name for name, _space, status in (line.partition(" ") for line in listing.splitlines()) if status == "installed"}
    return [name for name in dict.fromkeys(names) if name not in installed]


def main() -> None:
    """Ask dpkg."""
    module = AnsibleModule(
        argument_spec={"name": {"type": "list", "elements": "str", "required": True}, "start": {"type": "bool", "default": True}},
        supports_check_mode=True,
    )
    names: list[str] = module.params["name"]
    plain = [name for name in names if PACKAGE.fullmatch(name)]
    listing = ""
    if plain:
        command = [module.get_bin_path("dpkg-query", required=True), "--show", "--showformat", "${Package} ${db:Status-Status}\n", *plain]
        _status, listing, _errors = module.run_command(command)  # the status is 1 where dpkg never heard of one of them
    module.exit_json(changed=False, missing=missing(names, listing))


if __name__ == "__main__":
    main()
