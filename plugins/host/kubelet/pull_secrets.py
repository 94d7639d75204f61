# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which logins of a pod's imagePullSecrets fit an image: kubelet's keyring (pkg/credentialprovider), pure.

A secret's content is not trusted: what cannot be read is an error that names the secret, never its content.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

DOCKER_HUB = "docker.io"


def logins(secret: Mapping[str, Any]) -> dict[str, RegistryCredentials]:
    """A Secret of type dockerconfigjson or dockercfg as pattern ("registry.example:5000/team", "*.example") -> login."""
    name = (secret.get("metadata") or {}).get("name", "?")
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            entries = json.loads(base64.b64decode(data[".dockerconfigjson"], validate=True))["auths"]
        else:
            entries = json.loads(base64.b64decode(data[".dockercfg"], validate=True))
        return {_pattern(server): _login(entry) for server, entry in entries.items()}
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise UnifleetError(
            f"secret {name}: it holds no registry logins", "create it with kubectl create secret docker-registry"
        ) from error


def fitting(image: str, known: Mapping[str, RegistryCredentials]) -> tuple[RegistryCredentials, ...]:
    """The logins for an image's registry, the most specific pattern first."""
    first, slash, rest = image.partition("/")
    explicit = slash and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if explicit else (DOCKER_HUB, image)
    found = []
    for pattern, login in known.items():
        pattern_host, _separator, pattern_path = pattern.partition("/")
        if _same_host(pattern_host, host) and path.startswith(pattern_path):
            found.append((len(pattern), login))
    return tuple(login for _length, login in sorted(found, key=lambda entry: -entry[0]))


def _same_host(pattern: str, host: str) -> bool:
    parts, wanted = pattern.split("."), host.split(".")
    return len(parts) == len(wanted) and all(fnmatch.fnmatchcase(word, part) for word, part in zip(wanted, parts))


def _pattern(server: str) -> str:
    bare = server.rsplit("://", maxsplit=1)[-1].rstrip("/")
    host, _separator, path = bare.partition("/")
    if host in {"index.docker.io", "registry-1.docker.io"}:
        host = DOCKER_HUB
    if path in {"v1", "v2"}:
        path = ""
    return f"{host}/{path}" if path else host


def _login(entry: Mapping[str, Any]) -> RegistryCredentials:
    if entry.get("username") or not entry.get("auth"):
        return RegistryCredentials(str(entry.get("username") or ""), str(entry.get("password") or ""))
    user, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
    if not colon:
        raise ValueError("auth is not USER:PASSWORD")
    return RegistryCredentials(user, password)
