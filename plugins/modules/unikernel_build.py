#!/usr/bin/python

# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a unikernel with kraft or mirage, when its sources changed; the commands are module_utils/unikernel_toolchains.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unikernel_build
short_description: Build a unikernel with kraft or mirage, when its sources changed
version_added: 0.1.0
description:
  - Runs the toolchain in a project's directory and puts the kernel where it is wanted.
  - Beside the kernel it keeps a file C(KERNEL.built) with a digest of the project's files, the commands and the toolchain's version, and
    builds again only when that changes or the kernel is not what was built.
  - The toolchain must be there. Neither is to be had where this collection is tested; what is tested is this module's own logic, with
    programs that stand in for them.
author:
  - Unifleet developers (@unifleet)
requirements:
  - kraft, or mirage 4 and make
attributes:
  check_mode:
    description: Says whether it would build, and builds nothing.
    support: full
  diff_mode:
    description: Shows the digests of what the kernel was and would be made of.
    support: full
options:
  toolchain:
    description: What builds it.
    type: str
    required: true
    choices: [kraft, mirage]
  source:
    description: The project's directory, with a C(Kraftfile) or C(config.ml).
    type: path
    required: true
  target:
    description: What it is built for, as C(HYPERVISOR/ARCHITECTURE), such as V(kvm/amd64).
    type: str
    required: true
  dest:
    description: Where the kernel is put.
    type: path
    required: true
  solo5:
    description: Build for this Solo5 tender, for a target V(process/amd64) or V(process/arm64) of mirage.
    type: str
    choices: [hvt, spt]
  arguments:
    description: Further arguments of C(kraft build) or C(mirage configure).
    type: list
    elements: str
    default: []
  environment_variables:
    description: Variables that the toolchain gets besides, such as those of C(opam env).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Build the router for KVM
  unifleet.hybrid.unikernel_build:
    toolchain: kraft
    source: /srv/router
    target: kvm/amd64
    dest: /srv/kernels/router-kvm-amd64

- name: Build a MirageOS resolver for Solo5's spt
  unifleet.hybrid.unikernel_build:
    toolchain: mirage
    source: /srv/resolver
    target: process/amd64
    solo5: spt
    dest: /srv/kernels/resolver-spt-amd64
"""

RETURN = r"""
dest:
  description: Where the kernel is.
  returned: success
  type: str
  sample: /srv/kernels/router-kvm-amd64
sha256:
  description: Digest of the kernel.
  returned: when it is there
  type: str
  sample: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
commands:
  description: The commands that were run, or would be.
  returned: changed
  type: list
  elements: list
  sample: [[mirage, configure, -t, spt], [make, depend], [make]]
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_toolchains import (
    TOOLCHAINS,
    Build,
    build_of,
    find_result,
    fingerprint,
)

VERSION_FLAGS = {"kraft": ("version",), "mirage": ("--version",)}
TAIL = 30
"""Lines of a failed command's output that are shown."""


def toolchain_version(module: AnsibleModule, toolchain: str, environment: dict[str, str]) -> str:
    """What the toolchain calls itself. Raises UnifleetError when it is not there."""
    program = module.get_bin_path(toolchain)
    if program is None:
        raise UnifleetError(f"{toolchain} is not on this host", "install it; Unifleet does not bring toolchains")
    code, out, err = module.run_command([program, *VERSION_FLAGS[toolchain]], environ_update=environment)
    if code:
        raise UnifleetError(f"{toolchain} does not run: {(err or out).strip()[-500:]}", "mend the toolchain")
    return str(out).strip()


def run(module: AnsibleModule, build: Build, source: Path, environment: dict[str, str]) -> Path:
    """Build; the kernel that was left. Raises UnifleetError with the end of what a failed command said."""
    for command in build.commands:
        program = module.get_bin_path(command[0])
        if program is None:
            raise UnifleetError(f"{command[0]} is not on this host", "install it")
        code, out, err = module.run_command([program, *command[1:]], cwd=str(source), environ_update=environment)
        if code:
            said = "\n".join([*out.splitlines(), *err.splitlines()][-TAIL:])
            raise UnifleetError(f"`{' '.join(command)}` in {source} ended with {code}:\n{said}")
    return find_result(source, build.result)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """The module's result."""
    wanted = module.params
    source, dest = Path(wanted["source"]), Path(wanted["dest"])
    environment = {str(name): str(value) for name, value in wanted["environment_variables"].items()}
    build = build_of(wanted["toolchain"], wanted["target"], tuple(wanted["arguments"]), wanted["solo5"] or "")
    made_of = fingerprint(source, build, toolchain_version(module, wanted["toolchain"], environment))
    stamp = dest.with_name(dest.name + ".built")
    before = _read(stamp)
    result: dict[str, Any] = {"changed": False, "dest": str(dest)}
    current = _sha256(dest)
    if before.get("made_of") != made_of or current is None or before.get("sha256") != current:
        result.update(changed=True, commands=[list(command) for command in build.commands])
        if not module.check_mode:
            kernel = run(module, build, source, environment)
            dest.parent.mkdir(parents=True, exist_ok=True)
            new = dest.with_name(f".{dest.name}.new")
            shutil.copyfile(kernel, new)
            new.chmod(0o755)
            new.replace(dest)
            current = _sha256(dest)
            stamp.write_text(json.dumps({"made_of": made_of, "sha256": current}, sort_keys=True) + "\n")
    if current is not None:
        result["sha256"] = current
    if module._diff:
        result["diff"] = {"before": {"made_of": before.get("made_of")}, "after": {"made_of": made_of}}
    return result


def _read(stamp: Path) -> dict[str, Any]:
    try:
        said = json.loads(stamp.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _sha256(path: Path) -> Optional[str]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "toolchain": {"type": "str", "required": True, "choices": list(TOOLCHAINS)},
            "source": {"type": "path", "required": True},
            "target": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "solo5": {"type": "str", "choices": ["hvt", "spt"]},
            "arguments": {"type": "list", "elements": "str", "default": []},
            "environment_variables": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**ensure(module))
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
