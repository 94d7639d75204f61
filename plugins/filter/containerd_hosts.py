# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter containerd_hosts: the files that tell containerd how to reach registries."""

from __future__ import annotations

DOCUMENTATION = r"""
name: containerd_hosts
short_description: Files that tell containerd how to reach registries
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Gives one C(hosts.toml) for each registry (containerd docs/hosts.md), in the form that M(unifleet.hybrid.host_files) takes.
positional: directory
options:
  _input:
    description:
      - Registry (C(HOST) or C(HOST:PORT)) to a mapping of C(plain_http), C(skip_verify), C(ca) (path of a file on the host) and C(mirrors)
        (URLs that are asked first), all optional.
    type: dict
    required: true
  directory:
    description: The directory that the CRI plugin's C(registry.config_path) names.
    type: str
    required: true
"""

EXAMPLES = r"""
files: "{{ {'192.0.2.7:5000': {'plain_http': true}} | unifleet.hybrid.containerd_hosts('/etc/containerd/certs.d') }}"
"""

RETURN = r"""
_value:
  description: The files, each with C(path) and C(content).
  type: list
  elements: dict
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import to_toml

KEYS = frozenset({"plain_http", "skip_verify", "ca", "mirrors"})
REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


def containerd_hosts(registries: Mapping[str, Mapping[str, Any]], directory: str) -> list[dict[str, str]]:
    """The files, sorted by registry; AnsibleFilterError that names the registry and what is wrong with it."""
    files = []
    for registry, settings in sorted(registries.items()):
        unknown = sorted(set(settings or {}) - KEYS)
        if not REGISTRY.fullmatch(registry) or unknown:
            what = f"{', '.join(unknown)} is none of {', '.join(sorted(KEYS))}" if unknown else "it is not HOST or HOST:PORT"
            raise AnsibleFilterError(f"containerd_hosts: registry {registry!r}: {what}")
        try:
            content = to_toml(hosts_document(registry, settings or {}))
        except UnifleetError as error:
            raise AnsibleFilterError(f"containerd_hosts: registry {registry}: {error}") from error
        files.append({"path": f"{directory}/{registry}/hosts.toml", "content": content})
    return files


def hosts_document(registry: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of one hosts.toml."""
    server = f"{'http' if settings.get('plain_http') else 'https'}://{'registry-1.docker.io' if registry == 'docker.io' else registry}"
    own: dict[str, Any] = {"capabilities": ["pull", "resolve"]}
    if settings.get("skip_verify"):
        own["skip_verify"] = True
    if settings.get("ca"):
        own["ca"] = settings["ca"]
    mirrors = {str(url): {"capabilities": ["pull", "resolve"]} for url in settings.get("mirrors") or []}
    return {"server": server, "host": {**mirrors, server: own}}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"containerd_hosts": containerd_hosts}
