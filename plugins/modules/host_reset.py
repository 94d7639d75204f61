#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take from a host what a role made of it: the order matters (stop, clean up, unmount, remove), and what is missing is no error."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_reset
short_description: Stop a role's services and remove all that they made
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - In this order, stops and disables units, runs commands that clean up, removes a namespace of containerd with all in it, removes
    firewall rules, tables and links, unmounts what is mounted below the paths, and removes the paths.
  - What is not there is no error, so a run that was interrupted is finished by the next one.
  - Packages stay installed.
options:
  units:
    description: Units to stop and disable, in this order.
    type: list
    elements: str
    default: []
  commands:
    description: Commands, as lists of words, to run when the units are stopped. Those whose program is not there are passed over.
    type: list
    elements: list
    default: []
  containerd_namespace:
    description: A namespace of containerd whose tasks and containers are removed, if containerd runs.
    type: str
  chains:
    description: Beginnings of names of iptables chains that are removed, with all rules that name them.
    type: list
    elements: str
    default: []
  tables:
    description: Tables of nftables, such as C(ip unifleet).
    type: list
    elements: str
    default: []
  links:
    description: Network links.
    type: list
    elements: str
    default: []
  paths:
    description:
      - Files and directories to remove; shell patterns are allowed in the last part. Only paths below C(/etc), C(/opt), C(/run),
        C(/usr/local) and C(/var) are taken.
      - A path that something is mounted on is emptied, and stays.
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - unifleet.hybrid.attributes
attributes:
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Remove the agent
  unifleet.hybrid.host_reset:
    units: [virtual-kubelet.service]
    commands: [[/usr/local/lib/unifleet/current/bin/virtual-kubelet, --remove-all]]
    paths: [/etc/unifleet, /var/lib/unifleet]
"""

RETURN = r"""
removed:
  description: What was, or in check mode would be, stopped, unmounted and removed.
  returned: always
  type: list
  elements: str
  sample: ["unit virtual-kubelet.service", "path /etc/unifleet"]
"""

import glob
import os
import re
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

CONTAINERS_SECONDS = 60.0
TOPS = {"/etc": 1, "/opt": 1, "/run": 1, "/usr/local": 2, "/var": 2}
"""Where services keep what is theirs, and how many levels below that a path must be."""


def allowed(text: str) -> Path:
    """The path, if it may be removed. Raises UnifleetError for one that is relative, climbs, or is too near to the root."""
    path = Path(text)
    deep = any(text.startswith(top + "/") and len(path.relative_to(top).parts) >= levels for top, levels in TOPS.items())
    if not deep or os.path.normpath(text) != text or glob.has_magic(str(path.parent)):
        raise UnifleetError(f"paths: {text} is not removed", f"name something definite below {', '.join(TOPS)}")
    return path


def mounted_below(paths: list[Path], mountinfo: str) -> list[str]:
    """Mount points strictly below any of the paths, the deepest first, as often as it is one. mountinfo: proc(5), /proc/PID/mountinfo."""
    points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in mountinfo.splitlines() if line]
    return sorted((point for point in points if any(point.startswith(f"{path}/") for path in paths)), key=lambda p: (-p.count("/"), p))


def without_chains(saved: str, beginnings: tuple[str, ...]) -> str:
    """The output of iptables-save without the chains that begin so, and without the rules that name them."""
    ours = re.compile(rf"(^:|(?:^| )-[ANjg] )({'|'.join(map(re.escape, beginnings))})")
    return "".join(line + "\n" for line in saved.splitlines() if not ours.search(line))


class Reset:
    """One run. Each step adds to removed what it found, and takes it away unless this is check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.removed: list[str] = []

    def run(self, *command: str, data: str | None = None) -> tuple[int, str]:
        """Exit status and output of a program; 127 where there is no such program."""
        if not self.module.get_bin_path(command[0]):
            return 127, ""
        status, out, err = self.module.run_command(list(command), data=data, binary_data=True)
        return status, out if status == 0 else out + err

    def take(self, what: str, *command: str, data: str | None = None) -> None:
        """Run a command that takes something away. Raises UnifleetError when it fails."""
        self.removed.append(what)
        if not self.module.check_mode:
            status, said = self.run(*command, data=data)
            if status:
                raise UnifleetError(f"{what}: {' '.join(command)} failed: {said.strip()}")

    def units(self, units: list[str]) -> None:
        """Stop and disable."""
        for unit in units:
            _status, out = self.run("systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", "--", unit)
            state = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
            if state.get("ActiveState") in ("active", "activating", "reloading", "failed") or state.get("UnitFileState") == "enabled":
                self.take(f"unit {unit}", "systemctl", "disable", "--now", "--quiet", unit)
                if not self.module.check_mode:
                    self.run("systemctl", "reset-failed", unit)

    def commands(self, commands: list[list[str]]) -> None:
        """Run those whose program is there. They are no change by themselves: what they removed, they say."""
        for command in commands:
            if os.access(command[0], os.X_OK) and not self.module.check_mode:
                status, said = self.run(*command)
                if status:
                    raise UnifleetError(f"commands: {' '.join(command)} failed: {said.strip()}")

    def containers(self, namespace: str) -> None:
        """Kill and remove what runs in a namespace of containerd, which itself forgets some of it meanwhile."""
        if self.run("systemctl", "is-active", "--quiet", "containerd.service")[0]:
            return
        for kind, remove in (("tasks", ("rm", "--force")), ("containers", ("rm",))):
            listing = ("ctr", "--namespace", namespace, kind, "ls", "--quiet")
            names = self.run(*listing)[1].split()
            self.removed += [f"{kind[:-1]} {name}" for name in names]
            said, until = "", time.monotonic() + CONTAINERS_SECONDS
            while names and not self.module.check_mode:
                if time.monotonic() > until:
                    raise UnifleetError(f"{kind[:-1]} {names[0]} of containerd does not go: {said.strip()}")
                said = "".join(self.run("ctr", "--namespace", namespace, kind, *remove, name)[1] for name in names)
                names = self.run(*listing)[1].split()

    def chains(self, beginnings: tuple[str, ...]) -> None:
        """Put the firewall back without our chains, whole tables at a time, as iptables-restore does it: atomically."""
        for family in ("iptables", "ip6tables"):
            _status, saved = self.run(f"{family}-save")
            rest = without_chains(saved, beginnings)
            if rest != "".join(line + "\n" for line in saved.splitlines()):
                self.take(f"{family} chains {', '.join(beginnings)}", f"{family}-restore", data=rest)

    def tables(self, tables: list[str]) -> None:
        """Remove nftables' tables."""
        for table in tables:
            if self.run("nft", "list", "table", *table.split())[0] == 0:
                self.take(f"table {table}", "nft", "delete", "table", *table.split())

    def links(self, links: list[str]) -> None:
        """Remove links."""
        for link in links:
            if Path("/sys/class/net", link).exists():
                self.take(f"link {link}", "ip", "link", "delete", link)

    def paths(self, patterns: list[Path]) -> None:
        """Unmount what is below, then remove."""
        found = [path for pattern in patterns for path in sorted(pattern.parent.glob(pattern.name)) or [pattern]]
        for point in mounted_below(found, Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")):
            self.take(f"mount {point}", "umount", point)
        for path in found:
            mounted = os.path.ismount(path)  # of files as well: a network namespace that has a name is one
            if mounted and path.is_dir():
                for child in sorted(path.iterdir()):
                    self._remove(child)
            elif os.path.lexists(path):
                if mounted:
                    self.take(f"mount {path}", "umount", str(path))
                self._remove(path)

    def _remove(self, path: Path) -> None:
        self.removed.append(f"path {path}")
        if self.module.check_mode:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main() -> None:
    """Parse, take away, answer."""
    lists = {name: {"type": "list", "elements": "str", "default": []} for name in ("units", "chains", "tables", "links")}
    module = AnsibleModule(
        argument_spec={
            **lists,
            "commands": {"type": "list", "elements": "list", "default": []},
            "containerd_namespace": {"type": "str"},
            "paths": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    reset = Reset(module)
    try:
        paths = [allowed(path) for path in wanted["paths"]]
        reset.units(wanted["units"])
        reset.commands(wanted["commands"])
        if wanted["containerd_namespace"]:
            reset.containers(wanted["containerd_namespace"])
        if wanted["chains"]:
            reset.chains(tuple(wanted["chains"]))
        reset.tables(wanted["tables"])
        reset.links(wanted["links"])
        reset.paths(paths)
        if any(item.startswith("path /etc/systemd/") for item in reset.removed) and not module.check_mode:
            reset.run("systemctl", "daemon-reload")
    except UnifleetError as error:
        module.fail_json(msg=str(error), removed=reset.removed)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}", removed=reset.removed)
    module.exit_json(changed=bool(reset.removed), removed=reset.removed)


if __name__ == "__main__":
    main()
