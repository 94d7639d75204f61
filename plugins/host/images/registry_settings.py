# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is told of registries, as its configuration file has it; the agent and the command unikernel-image read it alike. Pure.

[images.registries."docker.io"]
mirrors = ["mirror.example:5000/hub", "other.example"]   # asked in this order before docker.io
[images.registries."mirror.example:5000"]
ca = "-----BEGIN CERTIFICATE-----..."                    # or the absolute path of a PEM file
insecure = true                                          # plain HTTP, or a certificate that is not checked
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistrySettings
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference

_KEYS = ("mirrors", "ca", "insecure")


def registry_settings(table: Any, where: str = "[images.registries]") -> dict[str, RegistrySettings]:
    """Registry -> settings. where names the table in messages. Raises UnifleetError that names the registry and the key."""
    if not isinstance(table, Mapping):
        raise UnifleetError(f"{where} is not a table", 'write [images.registries."HOST:PORT"]')
    return {_registry(domain, where): _settings(entry, f"{where} {domain!r}") for domain, entry in table.items()}


def _settings(entry: Any, where: str) -> RegistrySettings:
    if not isinstance(entry, Mapping):
        raise UnifleetError(f"{where} is not a table", "its keys are mirrors, ca and insecure")
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        raise UnifleetError(f"{where}: unknown key {unknown[0]!r}", f"known are {', '.join(_KEYS)}")
    mirrors, ca, insecure = entry.get("mirrors", []), entry.get("ca", ""), entry.get("insecure", False)
    if not isinstance(mirrors, (list, tuple)):
        raise UnifleetError(f"{where}: mirrors must be a list, not {mirrors!r}")
    if not isinstance(insecure, bool):
        raise UnifleetError(f"{where}: insecure must be true or false, not {insecure!r}")
    if not isinstance(ca, str):
        raise UnifleetError(f"{where}: ca must be PEM text or the path of a file, not {ca!r}")
    return RegistrySettings(tuple(_mirror(mirror, where) for mirror in mirrors), _pem(ca, where), insecure)


def _registry(domain: Any, where: str) -> str:
    if not isinstance(domain, str) or _parsed_domain(f"{domain}/x") != domain:
        raise UnifleetError(f"{where}: {domain!r} is not a registry", "write HOST, HOST:PORT or localhost")
    return domain


def _mirror(mirror: Any, where: str) -> str:
    domain = mirror.partition("/")[0] if isinstance(mirror, str) else ""
    if not domain or _parsed_domain(f"{mirror}/x") != domain:
        raise UnifleetError(f"{where}: {mirror!r} is not a mirror", "write HOST[:PORT][/PREFIX], without https://")
    return str(mirror)


def _parsed_domain(reference: str) -> str:
    try:
        return parse_reference(reference, "default.invalid").domain
    except UnifleetError:
        return ""


def _pem(ca: str, where: str) -> str:
    if not ca:
        return ""
    if ca.startswith("/"):
        try:
            ca = Path(ca).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnifleetError(f"{where}: ca cannot be read: {error}", "name a PEM file that the agent may read") from error
    if "-----BEGIN CERTIFICATE-----" not in ca:
        raise UnifleetError(f"{where}: ca holds no certificate in PEM form", "it begins with -----BEGIN CERTIFICATE-----")
    return ca
