#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can run machines with, in one call and from files alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_facts
short_description: Tell what a host can run virtual machines and processes with
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Looks for KVM, Xen and QEMU, at the board's model, the architecture in the terms of OCI images, control groups and memory.
  - Reads files only. That C(/dev/kvm) can be opened does not prove that guests run under it well. The agent finds that out by booting one.
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
  facts:
    support: full
    description: Adds RV(ansible_facts.hypervisor).
  platform:
    support: full
    platforms: posix
    description: Linux hosts.
"""

EXAMPLES = r"""
- name: Look at the hypervisor
  unifleet.hybrid.hypervisor_facts:

- name: Say what the board is
  ansible.builtin.debug:
    msg: "{{ ansible_facts.hypervisor.board }} ({{ ansible_facts.hypervisor.architecture }})"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to ansible_facts.
  returned: always
  type: dict
  contains:
    hypervisor:
      description: What the host can run machines with.
      type: dict
      returned: always
      contains:
        architecture:
          description: The architecture as OCI images name it.
          type: str
          sample: arm64
        variant:
          description: The architecture's variant as OCI images name it, or empty.
          type: str
          sample: v8
        board:
          description: The board's model from the device tree, else from the firmware, or empty.
          type: str
          sample: Raspberry Pi 4 Model B Rev 1.4
        kvm:
          description: Whether C(/dev/kvm) can be opened. No proof that it runs guests well.
          type: bool
        xen:
          description: The host's place under Xen. C(dom0), C(domU), or empty without Xen.
          type: str
          sample: dom0
        tcg:
          description: The path of the QEMU that emulates this architecture, or empty.
          type: str
          sample: /usr/bin/qemu-system-x86_64
        libvirt_uris:
          description: The libvirt URIs whose daemon or socket is there.
          type: list
          elements: str
          sample: ["qemu:///system"]
        cgroup_version:
          description: Version of the control groups. 1 for hybrid ones, 0 for none.
          type: int
          sample: 2
        cgroup_controllers:
          description: Controllers that can limit something.
          type: list
          elements: str
          sample: [cpu, io, memory, pids]
        memory_bytes:
          description: The host's memory.
          type: int
          sample: 4137156608
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.hypervisor import describe


def main() -> None:
    """Return the facts."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts={"hypervisor": describe(platform.machine())})


if __name__ == "__main__":
    main()
