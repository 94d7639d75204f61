# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logins in a pod's imagePullSecrets, pure. Which of them fit an image is images/logins.py's to say, once the registry is known.

A secret's content is not trusted: what cannot be read is an error that names the secret, never its content.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


def logins(secret: Mapping[str, Any]) -> tuple[RegistryCredentials, ...]:
    """A Secret of type dockerconfigjson or dockercfg, with registries as they are written there ("*.example", "r:5000/team")."""
    name = (secret.get("metadata") or {}).get("name", "?")
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            entries = json.loads(base64.b64decode(data[".dockerconfigjson"], validate=True))["auths"]
        else:
            entries = json.loads(base64.b64decode(data[".dockercfg"], validate=True))
        return tuple(_login(server, entry) for server, entry in entries.items() if server)
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise UnifleetError(
            f"secret {name}: it holds no registry logins", "create it with kubectl create secret docker-registry"
        ) from error


def _login(server: str, entry: Mapping[str, Any]) -> RegistryCredentials:
    if entry.get("username") or not entry.get("auth"):
        return RegistryCredentials(str(entry.get("username") or ""), str(entry.get("password") or ""), server)
    auth = str(entry["auth"]).strip().rstrip("=")
    user, colon, password = base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode().partition(":")
    if not colon:
        raise ValueError("auth is not USER:PASSWORD")
    return RegistryCredentials(user, password, server)
