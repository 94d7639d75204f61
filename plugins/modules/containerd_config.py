#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of containerd_settings for the CRI plugin itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_config
short_description: Set what Kubernetes needs of containerd
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Sets keys of containerd's CRI plugin in its configuration file, in the tables that the version of the file wants, and leaves all else
    in it as it is, comments and the tables of others included.
  - containerd itself judges the new content before it is put in place, and a copy of the old file is kept beside it. Restarts nothing.
options:
  sandbox_image:
    description: Image of the container that holds a pod's namespaces.
    type: str
  cni_bin_dir:
    description: Where the CNI plugins are.
    type: path
  cni_conf_dir:
    description: Where the configuration of the pod network is.
    type: path
  cni_conf_template:
    description: A template from which containerd writes the pod network's configuration once the kubelet tells it the node's range.
    type: path
  registry_config_path:
    description: Directory with one directory for each registry that needs settings of its own (C(hosts.toml)).
    type: path
  systemd_cgroup:
    description: Whether runc is to have systemd make control groups. It must be what the kubelet does.
    type: bool
  restrict_oom_score_adj:
    description: Whether containers get no lower C(oom_score_adj) than containerd has, for hosts where that is forbidden.
    type: bool
  disable_cgroup:
    description: Whether the CRI plugin leaves control groups alone, for hosts that have none with controllers. Unknown to containerd 2.x.
    type: bool
  path:
    description: containerd's configuration file. It is made when it does not exist.
    type: path
    default: /etc/containerd/config.toml
extends_documentation_fragment:
  - unifleet.hybrid.attributes
"""

EXAMPLES = r"""
- name: Set up containerd for Kubernetes
  unifleet.hybrid.containerd_config:
    cni_bin_dir: /usr/lib/cni
    systemd_cgroup: true
  notify: Restart containerd
"""

RETURN = r"""
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

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_file import ContainerdFile
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import CriSettings
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

OPTIONS: dict[str, dict[str, Any]] = {
    "sandbox_image": {"type": "str"},
    "cni_bin_dir": {"type": "path"},
    "cni_conf_dir": {"type": "path"},
    "cni_conf_template": {"type": "path"},
    "registry_config_path": {"type": "path"},
    "systemd_cgroup": {"type": "bool"},
    "restrict_oom_score_adj": {"type": "bool"},
    "disable_cgroup": {"type": "bool"},
}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare, write unless in check mode, describe."""
    file = ContainerdFile(Path(module.params["path"]), module.run_command, module.get_bin_path("containerd"))
    where = str(file.path)
    start = file.text
    if not containerd_settings.file_version(containerd_settings.read(start, where), where):
        start = containerd_settings.fresh(file.program_version()) + start
    version = containerd_settings.file_version(containerd_settings.read(start, where), where)
    settings = CriSettings(**{name: module.params[name] for name in OPTIONS})
    text = containerd_settings.with_settings(start, version, settings, where)
    changed = text != file.text
    result: dict[str, Any] = {"changed": changed, "restart_needed": changed}
    if changed:
        result["diff"] = {"before_header": where, "after_header": where, "before": file.text, "after": text}
    if changed and not module.check_mode:
        file.judge(text)
        backup = file.replace(text)
        if backup:
            result["backup"] = backup
    return result


def main() -> None:
    """Parse, run, answer."""
    module = AnsibleModule(
        argument_spec={**OPTIONS, "path": {"type": "path", "default": "/etc/containerd/config.toml"}}, supports_check_mode=True
    )
    try:
        module.exit_json(**run(module))
    except UnifleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
