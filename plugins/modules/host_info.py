#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself, in one call: its certificates, units, installed programs, routes. Needs nothing installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Read certificates, units, installed programs and routes of a host
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Reads from when until when certificates are valid, whether systemd units run, which units failed, and which version of the
    collection's programs is installed, and which networks the host has routes to. Changes nothing.
options:
  certificates:
    description: Paths of PEM files, or shell patterns of such paths; the first certificate of each is read.
    type: list
    elements: path
    default: []
  authority_file:
    description: Path of the host's copy of the cluster's certificate authority.
    type: path
  authority:
    description:
      - The PEM text of the cluster's certificate authority. A host whose O(authority_file) says something else has not joined this
        cluster, whatever its certificates are.
    type: str
  units:
    description: Names of systemd units.
    type: list
    elements: str
    default: []
  routes:
    description: Whether to read the host's IPv4 routes.
    type: bool
    default: false
  directory:
    description: Where the versions of the collection's programs are kept.
    type: path
    default: /usr/local/lib/unifleet
extends_documentation_fragment:
  - unifleet.hybrid.attributes
attributes:
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Look at an agent
  unifleet.hybrid.host_info:
    certificates: [/var/lib/unifleet/pki/client.pem]
    units: [virtual-kubelet.service]
  register: agent
"""

RETURN = r"""
certificates:
  description: One entry per certificate, by path.
  returned: success
  type: dict
  contains:
    exists:
      description: Whether there is a file.
      type: bool
    problem:
      description: Why the file does not count; empty when it does.
      type: str
    not_after:
      description: When it ends, in seconds since the epoch; 0 when unknown.
      type: float
    days_left:
      description: How many days it is still valid; negative when it has ended.
      type: float
    days_total:
      description: How many days it is valid in all.
      type: float
    valid:
      description: Whether it is valid now.
      type: bool
  sample:
    /var/lib/unifleet/pki/client.pem: {exists: true, problem: "", not_after: 1826832000.0, days_left: 300.5, days_total: 365.0, valid: true}
joined:
  description: Whether all certificates asked for are there and valid now, and O(authority_file), if given, holds O(authority).
  returned: success
  type: bool
  sample: true
units:
  description: State and, as far as systemd says, sub-state of each unit asked for.
  returned: success
  type: dict
  sample:
    virtual-kubelet.service: {active: active, sub: running, enabled: enabled}
failed_units:
  description: All units of the host that failed.
  returned: success
  type: list
  elements: str
  sample: []
routes:
  description: The networks that the main table has routes to, without the default route.
  returned: if O(routes)
  type: list
  elements: str
  sample: [10.77.0.0/24, 10.244.1.0/24]
version:
  description: The current version of the collection's programs; empty when there is none.
  returned: success
  type: str
  sample: 0.1.0+1a2b3c4d
"""

import glob
import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.certificate_dates import validity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_install import Installation

DAY = 86400.0


def certificate(path: Path, now: float) -> dict[str, Any]:
    """One certificate's entry of the result."""
    answer = {"exists": path.is_file(), "problem": "", "not_after": 0.0, "days_left": 0.0, "days_total": 0.0, "valid": False}
    if not answer["exists"]:
        return {**answer, "problem": "there is no such file"}
    try:
        before, after = validity(path.read_text(encoding="utf-8", errors="replace"))
    except (UnifleetError, OSError) as error:
        return {**answer, "problem": str(error)}
    problem = "it is not valid yet" if now < before else "it has expired" if now > after else ""
    return {
        **answer,
        "problem": problem,
        "not_after": after,
        "days_left": round((after - now) / DAY, 2),
        "days_total": round((after - before) / DAY, 2),
        "valid": not problem,
    }


def same_authority(parameters: dict[str, Any]) -> bool:
    """Whether the host has the cluster's certificate authority, as far as that was asked."""
    if parameters["authority_file"] is None:
        return True
    try:
        found = Path(parameters["authority_file"]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return found.strip() == str(parameters["authority"]).strip()


def unit_states(module: AnsibleModule, units: list[str]) -> dict[str, dict[str, str]]:
    """Unit -> active, sub and enabled state, in systemd's words."""
    if not units:
        return {}
    command = ["systemctl", "show", "--property=ActiveState,SubState,UnitFileState", "--", *units]
    _code, out, _err = module.run_command(command)
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.strip().split("\n\n")]
    if len(blocks) != len(units):
        blocks = [{} for _unit in units]
    names = {"active": "ActiveState", "sub": "SubState", "enabled": "UnitFileState"}
    return {unit: {key: block.get(name) or "unknown" for key, name in names.items()} for unit, block in zip(units, blocks)}


def failed_units(module: AnsibleModule) -> list[str]:
    """Every failed unit of the host."""
    _code, out, _err = module.run_command(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"])
    return sorted(line.split()[0] for line in out.splitlines() if line.split())


def routes(module: AnsibleModule) -> list[str]:
    """The networks that there is a route to. Fails when the host cannot say."""
    _code, out, _err = module.run_command(["ip", "-4", "-json", "route", "show", "table", "main"], check_rc=True)
    found = {route["dst"] for route in json.loads(out or "[]") if route["dst"] != "default" and route.get("type", "unicast") == "unicast"}
    return sorted(network if "/" in network else f"{network}/32" for network in found)


def main() -> None:
    """Parse, read, answer."""
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "path", "default": []},
            "authority_file": {"type": "path"},
            "authority": {"type": "str"},
            "units": {"type": "list", "elements": "str", "default": []},
            "routes": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": "/usr/local/lib/unifleet"},
        },
        required_together=[["authority_file", "authority"]],
        supports_check_mode=True,
    )
    now = time.time()
    paths = [path for pattern in module.params["certificates"] for path in sorted(glob.glob(pattern)) or [pattern]]  # noqa: PTH207
    certificates = {path: certificate(Path(path), now) for path in paths}
    module.exit_json(
        changed=False,
        certificates=certificates,
        joined=all(entry["valid"] for entry in certificates.values()) and same_authority(module.params),
        units=unit_states(module, module.params["units"]),
        failed_units=failed_units(module),
        **({"routes": routes(module)} if module.params["routes"] else {}),
        version=Installation(Path(module.params["directory"]), Path("/usr/local/bin")).current or "",
    )


if __name__ == "__main__":
    main()
