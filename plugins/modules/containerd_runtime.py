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

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_file import ContainerdFile
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_registration import Registration
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


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


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare, write unless in check mode, describe."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", module.params["name"]):
        raise UnifleetError(f"{module.params['name']!r} is no name for a runtime", "letters, digits, _ . and - make one")
    file = ContainerdFile(Path(module.params["path"]), module.run_command, module.get_bin_path("containerd"))
    registration = Registration(file, module.params["name"], Path(module.params["drop_in_directory"]))
    changes = registration.texts(runtime_of(module.params) if module.params["state"] == "present" else None)
    for warning in registration.warnings():
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": bool(changes),
        "restart_needed": bool(changes),
        "path": str(registration.home.path),
        "diff": [{"before_header": str(f.path), "after_header": str(f.path), "before": f.text, "after": text} for f, text in changes],
    }
    if changes and not module.check_mode:
        backup = registration.apply(changes)
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
