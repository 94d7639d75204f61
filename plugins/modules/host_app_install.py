#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of host_app: unpack, compile, flip the link. Of use by itself to go back to an installed version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_app_install
short_description: Switch a host to a version of the collection's programs
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Makes a version of the collection's programs the current one. Installs it from an archive when the host does not have it whole.
  - Normally called by M(unifleet.hybrid.host_app), which makes archive and manifest. Called without them it switches to a version that is
    installed, which is how a host goes back.
options:
  version:
    description: The version that shall be current.
    type: str
    required: true
  programs:
    description: The commands of this version that get a link in O(bin_directory). Links of other commands are removed.
    type: list
    elements: str
    required: true
  manifest:
    description: One line with SHA-256, mode and path for each file of the version. What is installed counts as whole when not given.
    type: str
  archive:
    description: The version's files as a C(.tar.gz) on the host. Needed only when the host does not have the version whole.
    type: path
  directory:
    description: Where the versions are kept.
    type: path
    default: /usr/local/lib/unifleet
  bin_directory:
    description: Where the links to the commands are kept.
    type: path
    default: /usr/local/bin
  python:
    description: The host's Python, which runs and compiles the programs.
    type: path
    default: /usr/bin/python3
  keep:
    description: How many versions stay installed.
    type: int
    default: 3
extends_documentation_fragment:
  - unifleet.hybrid.attributes
seealso:
  - module: unifleet.hybrid.host_app
"""

EXAMPLES = r"""
- name: Go back to the version before
  unifleet.hybrid.host_app_install:
    version: 0.1.0+99aa88bb
    programs: [virtual-kubelet]
"""

RETURN = r"""
version:
  description: The version that is, or in check mode would be, current.
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
needs_archive:
  description: Whether the module failed only because it had no archive.
  returned: failure
  type: bool
  sample: true
"""

import os
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_install import Installation

OLDEST_PYTHON = (3, 9)
WHICH_PYTHON = "import sys; print(sys.version_info[0], sys.version_info[1], sys.implementation.cache_tag)"


def cache_tag_of(module: AnsibleModule, python: str) -> str:
    """For which Python the host compiles, for example cpython-311."""
    version, tag = sys.version_info[:2], str(sys.implementation.cache_tag)
    if os.path.realpath(python) != os.path.realpath(sys.executable):
        code, out, err = module.run_command([python, "-I", "-c", WHICH_PYTHON])
        if code:
            raise UnifleetError(f"{python} does not run on this host: {err.strip()}", "install python3, or name another python")
        major, minor, tag = out.split()
        version = (int(major), int(minor))
    if version < OLDEST_PYTHON:
        raise UnifleetError(f"{python} is Python {version[0]}.{version[1]}", "the host programs need 3.9 or newer")
    return tag


def compiler(module: AnsibleModule, python: str) -> Any:
    """Compiles with the host's own Python, as it will run the programs. The hash is not checked at import: a version never changes."""

    def compile_sources(staging: Path, final: Path) -> None:
        command = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        code, out, err = module.run_command([*command, "-s", str(staging), "-p", str(final), str(staging)])
        if code:
            raise UnifleetError(f"{python} cannot compile the programs: {(out + err).strip()}", "they need Python 3.9 or newer")

    return compile_sources


def readable(manifest: str) -> str:
    """A manifest as people want to see it in a diff: short hashes, and names without what all have in common."""
    entries = (line.split(" ", 2) for line in manifest.splitlines())
    shown = [
        (name.rpartition("/unifleet/hybrid/plugins/")[2], digest) for digest, _mode, name in entries if not name.endswith("/__init__.py")
    ]
    return "".join(f"{name} {digest[:12]}\n" for name, digest in shown)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare, and change what differs unless in check mode. Returns the module's result."""
    wanted: dict[str, Any] = module.params
    version, programs = wanted["version"], wanted["programs"]
    host = Installation(Path(wanted["directory"]), Path(wanted["bin_directory"]))
    before, before_manifest = host.current, host.manifest(host.current)
    fault = host.fault(version, wanted["manifest"], cache_tag_of(module, wanted["python"]))
    reason = fault or ""
    if not reason and before != version:
        reason = f"current is {before or 'not set'}"
    if not reason:
        for word, names in (("missing", host.missing_links(programs)), ("unwanted", host.stale_links(programs))):
            reason = reason or (f"{word} in {host.bin_directory}: {', '.join(names)}" if names else "")
    result: dict[str, Any] = {
        "changed": bool(reason),
        "version": version,
        "previous": before or "",
        "reason": reason,
        "path": str(host.path(version)),
        "pruned": [],
    }
    if fault and wanted["archive"] is None and not (module.check_mode and wanted["manifest"]):
        module.fail_json(
            msg=f"version {version} is not usable on this host: {fault}. Use host_app, or give an archive.", needs_archive=True
        )
    if reason and module._diff:
        after = wanted["manifest"] or host.manifest(version)
        result["diff"] = {
            "before_header": f"{host.directory}/current -> {before or 'nothing'}",
            "after_header": f"{host.directory}/current -> {version}",
            "before": readable(before_manifest),
            "after": readable(after),
        }
    if reason and not module.check_mode:
        if fault:
            host.install(version, wanted["manifest"] or "", Path(wanted["archive"]), compiler(module, wanted["python"]))
        host.activate(version)
        host.link(programs)
        result["pruned"] = host.prune(wanted["keep"])
    return result


def main() -> None:
    """Parse, run, answer."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "programs": {"type": "list", "elements": "str", "required": True},
            "manifest": {"type": "str"},
            "archive": {"type": "path"},
            "directory": {"type": "path", "default": "/usr/local/lib/unifleet"},
            "bin_directory": {"type": "path", "default": "/usr/local/bin"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "keep": {"type": "int", "default": 3},
        },
        required_by={"archive": ["manifest"]},
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except UnifleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
