# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which logins fit an image: kubelet's keyring (kubernetes pkg/credentialprovider/keyring.go), pure.

A login's registry is HOST[:PORT][/PATH]. Each part of HOST between dots may be a glob; ports must be equal; PATH is a prefix of the image's
repository. Of the logins that fit, those of the longest patterns come first, and each is tried in turn. The image's name is the one
that the default registry was filled into, so that a login for Docker Hub never goes to another default registry.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import DOCKER_HUB, ImageReference

_HUB_HOSTS = frozenset({"index.docker.io", "registry-1.docker.io"})


def fitting(reference: ImageReference, credentials: Sequence[RegistryCredentials]) -> tuple[RegistryCredentials, ...]:
    """The logins for this repository, the most specific pattern first; one without a registry fits everything and comes last."""
    found = [login for login in credentials if not login.registry or _fits(normal_pattern(login.registry), reference)]
    found.sort(key=lambda login: normal_pattern(login.registry), reverse=True)
    return tuple(dict.fromkeys(found))


def normal_pattern(registry: str) -> str:
    """A pattern without scheme, /v1/ and /v2/, as docker's configuration has them; Docker Hub under one name."""
    bare = registry.partition("://")[2] if "://" in registry else registry
    host, _slash, path = bare.partition("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(version + "/"):
            path = path[len(version) + 1 :]
    host = DOCKER_HUB if host in _HUB_HOSTS else host
    path = path.strip("/")
    return f"{host}/{path}" if path else host


def _fits(pattern: str, reference: ImageReference) -> bool:
    host, _slash, path = pattern.partition("/")
    host, _colon, port = host.partition(":")
    domain, _colon, wanted_port = reference.domain.partition(":")
    parts, wanted = host.split("."), domain.split(".")
    return (
        port == wanted_port
        and len(parts) == len(wanted)
        and reference.path.startswith(path)
        and all(fnmatch.fnmatchcase(word, part.replace("[^", "[!")) for word, part in zip(wanted, parts))
    )
