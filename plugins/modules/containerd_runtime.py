#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of containerd_settings for one runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_runtime
short_description: Register an OCI runtime with containerd
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Has containerd's CRI plugin know one runtime by name, which a RuntimeClass then names as its handler, or know it no longer.
  - Writes the table that the version of the file wants. Version 2 is that of containerd 1.6 and 1.7, version 3 that of 2.x.
  - Under containerd 2.x, when the file imports O(drop_in_directory), the runtime gets a file of its own there. Older ones would drop
    all other settings of the CRI plugin for an imported file, so there the file itself is edited. Comments, order and the tables of
    others stay.
  - containerd itself judges the new content before it is put in place, and a copy of the old file is kept beside it.
  - Restarts nothing. RV(restart_needed) says whether the running containerd has to be.
options:
  name:
    description: The runtime's name.
    type: str
    required: true
  state:
    description: Whether containerd shall know the runtime.
    type: str
    choices: [present, absent]
    default: present
  binary:
    description: Path of the runtime, which the stock shim C(containerd-shim-runc-v2) runs. It need not be there yet.
    type: path
  runtime_type:
    description:
      - The shim. The default works for every runtime with the command line of runc.
      - A type that cannot work with the options is refused with the reason, such as V(io.containerd.runtime.runu.v2) with a C(BinaryName).
    type: str
    default: io.containerd.runc.v2
  systemd_cgroup:
    description: Whether the runtime is to have systemd make control groups. It must be what the kubelet does.
    type: bool
  options:
    description: Further options of the shim, such as C(Root).
    type: dict
    default: {}
  pod_annotations:
    description: Patterns of the pod annotations that the runtime gets to see.
    type: list
    elements: str
    default: []
  settings:
    description: Further keys of the runtime's table.
    type: dict
    default: {}
  path:
    description: containerd's configuration file. It is made when it does not exist.
    type: path
    default: /etc/containerd/config.toml
  drop_in_directory:
    description: Where a file of the runtime's own goes, when containerd can merge files and O(path) imports them from there.
    type: path
    default: /etc/containerd/conf.d
extends_documentation_fragment:
  - unifleet.hybrid.attributes
"""

EXAMPLES = r"""
- name: Register runu
  unifleet.hybrid.containerd_runtime:
    name: runu
    binary: /usr/local/bin/runu
    pod_annotations: [unifleet.io/*]
  notify: Restart containerd

- name: Forget it again
  unifleet.hybrid.containerd_runtime:
    name: runu
    state: absent
  notify: Restart containerd
"""

RETURN = r"""
path:
  description: The file that has, or had, the runtime.
  returned: success
  type: str
  sample: /etc/containerd/config.toml
restart_needed:
  description: Whether containerd has to be restarted for it.
  returned: success
  type: bool
backup:
  description: Path of the copy of what the file was before.
  returned: when an existing file was changed
  type: str
  sample: /etc/containerd/config.toml.before-unifleet
"""

import fnmatch
import re
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_file import ContainerdFile
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

MERGES_SINCE = (2, 0)


def runtime_of(params: dict[str, Any]) -> Runtime:
    """The runtime that the parameters describe. Raises UnifleetError for one that cannot work."""
    options = dict(params["options"])
    if params["binary"]:
        options["BinaryName"] = params["binary"]
    if params["systemd_cgroup"] is not None:
        options["SystemdCgroup"] = params["systemd_cgroup"]
    why = containerd_settings.explain(params["name"], params["runtime_type"], options)
    if why:
        raise UnifleetError(why)
    return Runtime(params["name"], params["runtime_type"], options, tuple(params["pod_annotations"]), params["settings"])


def drop_in_of(file: ContainerdFile, document: dict[str, Any], params: dict[str, Any]) -> Optional[Path]:
    """The runtime's own file, where containerd can merge files and this one is imported."""
    target = Path(params["drop_in_directory"]) / f"50-{params['name']}.toml"
    patterns = [str(file.path.parent / pattern) for pattern in containerd_settings.imports(document)]
    if file.program_version() >= MERGES_SINCE and any(fnmatch.fnmatch(str(target), pattern) for pattern in patterns):
        return target
    return None


class Change:
    """What a run does to containerd's files: new texts by path (empty: the file goes), and what is to be said."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        program = module.get_bin_path("containerd")
        self.main = ContainerdFile(Path(self.params["path"]), module.run_command, program)
        self.document = containerd_settings.read(self.main.text, str(self.main.path))
        self.drop_in: Optional[ContainerdFile] = None
        target = drop_in_of(self.main, self.document, self.params)
        if target is not None:
            self.drop_in = ContainerdFile(target, module.run_command, program)

    @property
    def home(self) -> ContainerdFile:
        """The file that has the runtime, or will have it."""
        return self.drop_in or self.main

    def texts(self) -> list[tuple[ContainerdFile, str]]:
        """(file, its new text) of each file that must change; the main file no longer holds what a drop-in now says."""
        file = self.main
        version = containerd_settings.file_version(self.document, str(file.path))
        name = self.params["name"]
        if self.params["state"] == "absent":
            wanted = [(file, containerd_settings.without_runtime(file.text, version, name, str(file.path)))]
            wanted += [(self.drop_in, "")] if self.drop_in else []
        elif self.drop_in:
            runtime = runtime_of(self.params)
            own = containerd_settings.with_runtime("", 3, runtime, str(self.drop_in.path))
            header = "# Written by the module unifleet.hybrid.containerd_runtime; changes are overwritten.\nversion = 3\n\n"
            wanted = [(file, containerd_settings.without_runtime(file.text, version, name, str(file.path))), (self.drop_in, header + own)]
        else:
            text, version = (file.text, version) if version else self._fresh()
            wanted = [(file, containerd_settings.with_runtime(text, version, runtime_of(self.params), str(file.path)))]
        return [(one, text) for one, text in wanted if one.text != text]

    def _fresh(self) -> tuple[str, int]:
        """The start of a file that has nothing yet, and its version."""
        text = containerd_settings.fresh(self.main.program_version()) + self.main.text
        return text, int(containerd_settings.read(text, str(self.main.path))["version"])

    def warnings(self) -> list[str]:
        """What is wrong with the runtime as the file has it now."""
        version = containerd_settings.file_version(self.document, str(self.main.path))
        found = containerd_settings.present_runtime(self.document, version, self.params["name"]) or {}
        if not found:
            return []
        why = containerd_settings.explain(self.params["name"], str(found.get("runtime_type", "")), found.get("options") or {})
        return [f"{self.main.path} had a runtime that cannot work: {why}"] if why else []

    def apply(self, changes: list[tuple[ContainerdFile, str]]) -> Optional[str]:
        """Put the new texts in place, all or none; where the main file's old text is kept."""
        for file, text in changes:
            if text:
                file.judge(text)
        backup = None
        done: list[tuple[ContainerdFile, str]] = []
        try:
            for file, text in changes:
                if text:
                    backup = file.replace(text) or backup
                else:
                    file.path.unlink(missing_ok=True)
                done.append((file, text))
            self.main.judge_all()
        except (UnifleetError, OSError):
            for file, _text in done:
                if file.text:
                    file.replace(file.text, keep=False)
                else:
                    file.path.unlink(missing_ok=True)
            raise
        return backup


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare, write unless in check mode, describe."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", module.params["name"]):
        raise UnifleetError(f"{module.params['name']!r} is no name for a runtime", "letters, digits, _ . and - make one")
    change = Change(module)
    changes = change.texts()
    for warning in change.warnings():
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": bool(changes),
        "restart_needed": bool(changes),
        "path": str(change.home.path),
        "diff": [{"before_header": str(f.path), "after_header": str(f.path), "before": f.text, "after": text} for f, text in changes],
    }
    if changes and not module.check_mode:
        backup = change.apply(changes)
        if backup:
            result["backup"] = backup
    return result


def main() -> None:
    """Parse, run, answer."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "binary": {"type": "path"},
            "runtime_type": {"type": "str", "default": "io.containerd.runc.v2"},
            "systemd_cgroup": {"type": "bool"},
            "options": {"type": "dict", "default": {}},
            "pod_annotations": {"type": "list", "elements": "str", "default": []},
            "settings": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": "/etc/containerd/config.toml"},
            "drop_in_directory": {"type": "path", "default": "/etc/containerd/conf.d"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except UnifleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
