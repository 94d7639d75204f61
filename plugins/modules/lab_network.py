#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible face of a lab's network and of everything else that its hosts share on the machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_network
short_description: Bridge, address translation and foreign architectures for a lab of hosts on this machine
version_added: 0.1.0
description:
  - Makes what the hosts of a lab share, a bridge with the lab's gateway address, one nftables table that translates the
    hosts' addresses, IP forwarding, and, for hosts of other architectures, the kernel's ability to run their programs.
  - Everything is recorded in the lab's C(state.json) before it is made. V(absent) takes away what is recorded there,
    hosts included, and nothing else; it can be repeated after it was interrupted.
  - What several labs of a machine need, IP forwarding and foreign architectures, the last of them puts back as it was before
    the first. Which labs there are is noted in C(/run/unifleet-labs.json).
author: [Unifleet developers (@unifleet)]
options:
  name:
    description: Name of the lab, the prefix of every name it takes on the machine.
    type: str
    required: true
  directory:
    description: State directory of the lab, an absolute path.
    type: path
    required: true
  network:
    description: IPv4 network of the lab. The first address is the machine's own.
    type: str
    required: true
  architectures:
    description: Debian architectures of the hosts.
    type: list
    elements: str
    default: []
  state:
    description: Whether the lab is to be there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be made or taken away.
    support: full
  diff_mode:
    description: Shows what is recorded before and after.
    support: full
  platform:
    description: Debian machines with root.
    support: full
    platforms: debian
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Lay the network of a lab
  unifleet.hybrid.lab_network:
    name: unifleet
    directory: /srv/unifleet/.lab
    network: 10.77.0.0/24
    architectures: [amd64, arm64]
"""

RETURN = r"""
made:
  description: What was made, or taken away, in order, as kind and name.
  returned: always
  type: list
  elements: str
  sample: ["mount /proc/sys/fs/binfmt_misc", "link unifleet-br", "table unifleet"]
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Callable

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_machine, lab_names
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_commons import Commons
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_machine import BINFMT
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import Lab
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_register import is_common

FORWARDING = "/proc/sys/net/ipv4/ip_forward"
HANDLERS = {"arm64": "qemu-aarch64", "armhf": "qemu-arm", "riscv64": "qemu-riscv64", "ppc64el": "qemu-ppc64le", "s390x": "qemu-s390x"}


class Network:
    """The lab's shared things, made one by one; in check mode only counted."""

    def __init__(self, module: AnsibleModule, lab: Lab) -> None:
        self.module = module
        self.lab = lab
        self.machine = lab_machine.Machine(lab, module.run_command)
        self.commons = Commons(self.machine)
        self.done: list[str] = []

    def _make(self, record: Record, *commands: list[str], data: str | None = None) -> None:
        def do() -> None:
            for words in commands:
                self.machine.run(words, data=data)

        if not self.machine.present(record) if self.module.check_mode else self.machine.make(record, do):
            self.done.append(_word(record))

    def _share(self, record: Record, in_force: Callable[[], bool], do: Callable[[], object]) -> None:
        if not in_force() if self.module.check_mode else self.commons.use(record, in_force, do):
            self.done.append(_word(record))

    def present(self, architectures: list[str]) -> None:
        foreign = sorted(set(architectures) - self._native())
        for architecture in foreign:
            self._emulate(architecture)
        # The first `ip netns add`, of a host or of anybody, makes this mount.
        namespaces = Record(Kind.MOUNT, lab_machine.NAMESPACES)
        if not self.module.check_mode:
            self.commons.use(namespaces, partial(self.machine.present, namespaces), lambda: None)
        lab = self.lab
        self._make(
            Record(Kind.LINK, lab.bridge),
            ["ip", "link", "add", lab.bridge, "type", "bridge"],
        )
        if not self.module.check_mode:
            self.machine.run(["ip", "addr", "replace", f"{lab.gateway}/{lab.network.prefixlen}", "dev", lab.bridge])
            self.machine.run(["ip", "link", "set", lab.bridge, "up"])
        # What stays on the bridge, such as a host's packets to pods behind another, is not leaving; br_netfilter shows it here too.
        rules = (
            f"add table ip {lab.table}\n"
            f"add chain ip {lab.table} leaving {{ type nat hook postrouting priority srcnat; }}\n"
            f"add rule ip {lab.table} leaving ip saddr {lab.network} ip daddr != {lab.network} "
            f'oifname != "{lab.bridge}" masquerade\n'
        )
        self._make(Record(Kind.TABLE, lab.table), ["nft", "-f", "-"], data=rules)
        self._forward()

    def _native(self) -> set[str]:
        return {self.machine.run(["dpkg", "--print-architecture"]).strip(), "all"}

    def _emulate(self, architecture: str) -> None:
        handler = HANDLERS.get(architecture)
        if handler is None:
            raise UnifleetError(f"hosts of architecture {architecture} cannot be emulated", f"known are {', '.join(sorted(HANDLERS))}")
        if not Path("/usr/share/binfmts", handler).exists() and not Path(BINFMT, handler).exists():
            raise UnifleetError(
                f"hosts of architecture {architecture} need {handler}, which this machine lacks",
                "apt-get install qemu-user-static binfmt-support",
            )
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT]
        self._share(Record(Kind.MOUNT, BINFMT), Path(BINFMT, "status").exists, partial(self.machine.run, mount))
        entry = ["update-binfmts", "--enable", handler]
        self._share(Record(Kind.BINFMT, handler), Path(BINFMT, handler).exists, partial(self.machine.run, entry))
        if not self.module.check_mode and "F" not in self._flags(handler):
            raise UnifleetError(
                f"{BINFMT}/{handler} lacks the flag F, so programs cannot run inside a host", "use qemu-user-static, not qemu-user"
            )

    @staticmethod
    def _flags(handler: str) -> str:
        for line in Path(BINFMT, handler).read_text(encoding="ascii").splitlines():
            if line.startswith("flags:"):
                return line.partition(":")[2]
        return ""

    def _forward(self) -> None:
        path = Path(FORWARDING)
        self._share(
            Record(Kind.SYSCTL, FORWARDING),
            lambda: path.read_text(encoding="ascii").strip() == "1",
            lambda: path.write_text("1", encoding="ascii"),
        )

    def absent(self) -> None:
        for record in self.machine.ledger().undoing():
            if not is_common(record):
                self.done.append(_word(record))
                if not self.module.check_mode:
                    self.machine.undo(record)
        self.done += map(_word, self.commons.leaving())
        if not self.module.check_mode:
            self.commons.leave()
        if self.lab.ledger.exists() or (self.lab.directory / "hosts").exists():
            self.done.append(f"directory {self.lab.directory}")
            if not self.module.check_mode:
                self.machine.remove_state()


def _word(record: Record) -> str:
    return f"{record.kind.value} {record.name}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "network": {"type": "str", "required": True},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        lab_machine.preflight(module.get_bin_path, ["ip", "nft", "dpkg"])
        network = Network(module, lab_names.lab(params["name"], params["directory"], params["network"]))
        before = [_word(record) for record in network.machine.ledger().records]
        if params["state"] == "present":
            lab_machine.may_unshare(module.run_command)
        act = partial(network.present, params["architectures"]) if params["state"] == "present" else network.absent
        with (
            network.machine.alone(None)
            if not module.check_mode and (params["state"] == "present" or network.lab.directory.is_dir())
            else nullcontext()
        ):
            act()
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    after = [*before, *network.done] if params["state"] == "present" else []
    diff = {"before": "".join(line + "\n" for line in before), "after": "".join(line + "\n" for line in after)}
    module.exit_json(changed=bool(network.done), made=network.done, diff=diff)


if __name__ == "__main__":
    main()
