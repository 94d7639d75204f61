#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of pki_cluster: reads a directory, asks what is due, writes it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_pki
short_description: Keep a control plane's certificates, keys and kubeconfigs
version_added: 0.1.0
description:
  - Makes the authorities of a cluster, every certificate of its control plane, the key of service accounts, the key that seals secrets at
    rest, and kubeconfigs, all in one call; on later calls it renews what has less than a third of its life left, what is damaged, and what
    no longer says what it should.
  - An authority is renewed with the key it has, so that what it signed stays valid.
author:
  - Unifleet developers (@unifleet)
requirements:
  - cryptography >= 38 on the host (Debian's python3-cryptography)
options:
  directory:
    description: Where the files are.
    type: path
    default: /etc/kubernetes/pki
  node_name:
    description: Name of this control plane host.
    type: str
    required: true
  endpoints:
    description: Addresses and names under which clients reach the API server. The first one goes into the administrator's kubeconfig.
    type: list
    elements: str
    required: true
  port:
    description: Port of the API server.
    type: int
    default: 6443
  service_cidr:
    description: Range of service addresses.
    type: str
    default: 10.96.0.0/16
  cluster_name:
    description: Name of the cluster in the authorities' subjects and in kubeconfigs.
    type: str
    default: unifleet
  cluster_domain:
    description: Domain of services.
    type: str
    default: cluster.local
  authority_days:
    description: Life of an authority's certificate in days.
    type: int
    default: 3650
  certificate_days:
    description: Life of every other certificate in days.
    type: int
    default: 365
attributes:
  check_mode:
    description: Says which certificates would be made, and why.
    support: full
  diff_mode:
    description: Shows why each certificate is made; never a key.
    support: full
"""

EXAMPLES = r"""
- name: Keep the control plane's certificates
  unifleet.hybrid.cluster_pki:
    node_name: "{{ inventory_hostname }}"
    endpoints:
      - 10.77.0.11
      - cp1.example.org
"""

RETURN = r"""
made:
  description: Why each certificate or key was made or renewed, by name.
  type: dict
  returned: always
  sample: {apiserver: "29% of its life left, ends 2027-03-01 12:00 UTC"}
fingerprints:
  description: By program, 16 hex digits that change when a file changes that the program reads.
  type: dict
  returned: when the cryptography library is installed
expires:
  description: By certificate, the end of its life (UTC).
  type: dict
  returned: when the cryptography library is installed
"""

import datetime
import ipaddress
import os
import tempfile
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_cluster, pki_x509
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

try:
    import cryptography  # noqa: F401  # pylint: disable=unused-import

    CRYPTOGRAPHY_ERROR = ""
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def names_of(wanted: dict[str, Any]) -> pki_cluster.ClusterNames:
    """What the module's parameters mean for certificates."""
    endpoints: list[str] = wanted["endpoints"]
    if not endpoints:
        raise UnifleetError("endpoints: at least one address or name is needed")
    try:
        ipaddress.ip_network(wanted["service_cidr"])
    except ValueError as error:
        raise UnifleetError(f"service_cidr: {error}") from error
    return pki_cluster.ClusterNames(
        node_name=wanted["node_name"],
        addresses=tuple(item for item in endpoints if is_address(item)),
        names=tuple(item for item in endpoints if not is_address(item)),
        port=wanted["port"],
        service_cidr=wanted["service_cidr"],
        cluster_domain=wanted["cluster_domain"],
        cluster_name=wanted["cluster_name"],
        endpoint=endpoints[0],
    )


def write(path: Path, content: bytes, mode: int) -> None:
    """Atomically, and never readable to others in between."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).chmod(mode)
    Path(temporary).replace(path)


def keep(module: AnsibleModule) -> dict[str, Any]:
    """Read, decide, write; the result for exit_json."""
    directory = Path(module.params["directory"])
    existing = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()} if directory.is_dir() else {}
    authority, certificate = (datetime.timedelta(days=module.params[f"{name}_days"]) for name in ("authority", "certificate"))
    now = datetime.datetime.now(datetime.timezone.utc)
    outcome = pki_cluster.complete(existing, names_of(module.params), pki_cluster.Lifetimes(authority, certificate), now)
    modes = {name: pki_cluster.file_mode(name) for name in outcome.everything if name in outcome.known}
    loose = [name for name in modes if name in existing and (directory / name).stat().st_mode & 0o777 != modes[name]]
    made = {**outcome.reasons, **{name: f"mode is not {modes[name]:04o}" for name in loose}}
    if not module.check_mode:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name, content in outcome.files.items():
            write(directory / name, content, modes[name])
        for name in loose:
            (directory / name).chmod(modes[name])
    expires = {
        name[:-4]: f"{pki_x509.read_certificate(content).not_after:%Y-%m-%dT%H:%M:%SZ}"
        for name, content in outcome.everything.items()
        if name.endswith(".crt") and name in outcome.known
    }
    return {
        "changed": bool(outcome.files or loose),
        "made": made,
        "expires": expires,
        "fingerprints": {program: outcome.fingerprint(program) for program in pki_cluster.USED_BY},
        "diff": {"before": "", "after": "".join(f"{name}: made, {reason}\n" for name, reason in sorted(made.items()))},
    }


def main() -> None:
    """Read the parameters, keep the files, answer."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/kubernetes/pki"},
            "node_name": {"type": "str", "required": True},
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "port": {"type": "int", "default": 6443},
            "service_cidr": {"type": "str", "default": "10.96.0.0/16"},
            "cluster_name": {"type": "str", "default": "unifleet"},
            "cluster_domain": {"type": "str", "default": "cluster.local"},
            "authority_days": {"type": "int", "default": 3650},
            "certificate_days": {"type": "int", "default": 365},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR:
        if module.check_mode:
            module.exit_json(changed=True, made={"everything": "python3-cryptography is still to be installed"})
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    try:
        result = keep(module)
    except UnifleetError as error:
        module.fail_json(msg=f"{module.params['directory']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
