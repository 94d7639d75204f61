#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin Ansible face of kubernetes_sources, kubernetes_release and kubernetes_debian."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_binaries
short_description: Provide Kubernetes' programs on the controller
version_added: 0.1.0
description:
  - Fetches or builds C(kube-apiserver), C(kube-controller-manager), C(kube-scheduler), C(kubelet) and C(kube-proxy) into a cache and
    says where they are and what their checksums are. It installs nothing; the role P(unifleet.hybrid.kubernetes_binaries#role) does.
  - Runs on the controller, once for all hosts.
author:
  - Unifleet developers (@unifleet)
options:
  source:
    description:
      - V(release) fetches release files by URL; only such whose checksum is pinned in O(checksums).
      - V(directory) takes files that are in O(directory).
      - V(debian_source) builds them from Debian 12's source package with Debian's Go. Needs nothing but Debian's archive.
        The build takes five to six minutes on two cores, the first time.
      - V(auto) is V(release) when O(checksums) pins a version and O(url) answers, else V(debian_source). The result says which and why.
    type: str
    choices: [auto, release, directory, debian_source]
    default: auto
  version:
    description: Version without C(v). The default is the newest pinned one for V(release), and the only one there is for the others.
    type: str
    default: ''
  architectures:
    description: Architectures in Kubernetes' words.
    type: list
    elements: str
    required: true
    choices: [amd64, arm64, arm, ppc64le, s390x]
  components:
    description: Programs that are needed.
    type: list
    elements: str
    required: true
    choices: [kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy]
  url:
    description: Root of a release site.
    type: str
    default: https://dl.k8s.io/release
  checksums:
    description: Pinned SHA-256 by version, architecture and component.
    type: dict
    default: {}
  directory:
    description: Directory with the programs, or with one directory for each architecture. For O(source=directory).
    type: path
  cache:
    description: Where downloads and builds are kept. The default is C($UNIFLEET_CACHE), else C(~/.cache/unifleet).
    type: path
attributes:
  check_mode:
    description: Says what would be fetched or built. The index of Debian's source packages in the cache is refreshed even so.
    support: full
  diff_mode:
    description: There is nothing to compare, programs are binary files.
    support: none
"""

EXAMPLES = r"""
- name: Provide what a control plane host runs
  unifleet.hybrid.kubernetes_binaries:
    architectures: [amd64]
    components: [kube-apiserver, kube-controller-manager, kube-scheduler]
  delegate_to: localhost
  run_once: true
  register: provided

- name: Provide a pinned release
  unifleet.hybrid.kubernetes_binaries:
    source: release
    version: 1.33.1
    architectures: [arm64]
    components: [kubelet]
    checksums:
      1.33.1:
        arm64:
          kubelet: "{{ kubelet_sha256 }}"
  delegate_to: localhost
"""

RETURN = r"""
source:
  description: The source that was used.
  type: str
  returned: success
  sample: debian_source
why:
  description: Why that source was used.
  type: str
  returned: success
version:
  description: Version of Kubernetes, without C(v).
  type: str
  returned: success
  sample: 1.20.2
programs:
  description: By architecture and component, the path on the controller and the SHA-256 (empty in check mode for what is not there yet).
  type: dict
  returned: success
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_release, kubernetes_sources
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_debian import DebianBuild
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_sources import Program, Provision
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_units import parse_version


def provide(module: AnsibleModule) -> Provision:
    """Decide for a source and let it do its work."""
    wanted: dict[str, Any] = module.params
    table = kubernetes_sources.check_table(wanted["checksums"])
    source, why = wanted["source"], f"kubernetes_binaries_source is {wanted['source']}"
    if source == "auto":
        source, why = choose(wanted, table)
    if source == "release":
        return from_release(module, table, why)
    if source == "directory":
        return from_directory(module, why)
    build = DebianBuild(cache_root(wanted) / "kubernetes", module.run_command)
    provision = build.provide(wanted["architectures"], wanted["components"], module.check_mode, why)
    if wanted["version"] and wanted["version"] != provision.version:
        message = f"Kubernetes {wanted['version']} is wanted, but Debian's source is {provision.version} (used because {why})"
        raise UnifleetError(message, "pin the version's checksums for source release, or leave kubernetes_binaries_version empty")
    return provision


def choose(wanted: dict[str, Any], table: kubernetes_sources.Checksums) -> tuple[str, str]:
    """The source that `auto` means here and now, and why."""
    version = wanted["version"] or kubernetes_sources.newest(table)
    if not version or version not in table:
        return "debian_source", f"no checksums are pinned for {'version ' + version if version else 'any version'}"
    url = kubernetes_sources.release_url(wanted["url"], version, wanted["architectures"][0], wanted["components"][0])
    problem = kubernetes_release.answers(url)
    return ("debian_source", f"{url}: {problem}") if problem else ("release", f"{version} is pinned and {wanted['url']} answers")


def from_release(module: AnsibleModule, table: kubernetes_sources.Checksums, why: str) -> Provision:
    wanted: dict[str, Any] = module.params
    version = wanted["version"] or kubernetes_sources.newest(table)
    if not version:
        raise UnifleetError("source release needs kubernetes_binaries_checksums", "pin a version's checksums, or use source auto")
    parse_version(version)
    files = [(architecture, component) for architecture in wanted["architectures"] for component in wanted["components"]]
    pins = {pair: kubernetes_sources.pinned(table, version, *pair) for pair in files}
    programs: dict[str, dict[str, Program]] = {}
    made = False
    for (architecture, component), sha256 in pins.items():
        path = cache_root(wanted) / "kubernetes" / f"release-{version}-{architecture}" / component
        if module.check_mode:
            there = path.exists() and kubernetes_sources.sha256_of(path) == sha256
            made = made or not there
        else:
            url = kubernetes_sources.release_url(wanted["url"], version, architecture, component)
            made = kubernetes_release.fetch(url, sha256, path) or made
        programs.setdefault(architecture, {})[component] = Program(path, sha256)
    return Provision("release", version, why, programs, made)


def from_directory(module: AnsibleModule, why: str) -> Provision:
    wanted: dict[str, Any] = module.params
    root = Path(wanted["directory"] or "")
    if not wanted["directory"] or not root.is_dir():
        raise UnifleetError(f"kubernetes_binaries_directory: {wanted['directory']} is not a directory on the controller")
    programs: dict[str, dict[str, Program]] = {}
    for architecture in wanted["architectures"]:
        base = root / architecture if (root / architecture).is_dir() else root
        for component in wanted["components"]:
            path = base / component
            if not path.is_file():
                raise UnifleetError(f"{path} does not exist", f"put {component} for {architecture} there")
            kubernetes_sources.check_architecture(path, architecture)
            programs.setdefault(architecture, {})[component] = Program(path, kubernetes_sources.sha256_of(path))
    return Provision("directory", wanted["version"] or ask_version(module, programs), why, programs)


def ask_version(module: AnsibleModule, programs: dict[str, dict[str, Program]]) -> str:
    """Ask the first program that runs here what it is."""
    for components in programs.values():
        for program in components.values():
            try:
                status, out, _err = module.run_command([str(program.path), "--version"], handle_exceptions=False)
            except OSError:
                continue
            if status == 0 and out.startswith("Kubernetes v"):
                return str(out.split()[1].lstrip("v"))
    raise UnifleetError("none of the programs in kubernetes_binaries_directory tells its version here", "set kubernetes_binaries_version")


def cache_root(wanted: dict[str, Any]) -> Path:
    return Path(wanted["cache"] or os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet")


def main() -> None:
    """Read the parameters, provide, answer."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "choices": list(kubernetes_sources.SOURCES), "default": "auto"},
            "version": {"type": "str", "default": ""},
            "architectures": {"type": "list", "elements": "str", "required": True, "choices": list(kubernetes_sources.ARCHITECTURES)},
            "components": {"type": "list", "elements": "str", "required": True, "choices": list(kubernetes_sources.COMPONENTS)},
            "url": {"type": "str", "default": "https://dl.k8s.io/release"},
            "checksums": {"type": "dict", "default": {}},
            "directory": {"type": "path"},
            "cache": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        provision = provide(module)
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**provision.as_result())


if __name__ == "__main__":
    main()
