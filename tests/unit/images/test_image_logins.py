# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which login fits an image: kubelet's own table (pkg/credentialprovider/keyring_test.go) and what a default registry changes."""

from __future__ import annotations

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.logins import fitting
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference


def names(image: str, *registries: str, default_registry: str = "docker.io") -> list[str]:
    known = [RegistryCredentials("u", "p", registry) for registry in registries]
    return [login.registry for login in fitting(parse_reference(image, default_registry), known)]


@pytest.mark.parametrize(
    ("registry", "image", "fits"),
    [
        ("kubernetes.io", "kubernetes.io/x", True),
        ("*.kubernetes.io", "prefix.kubernetes.io/x", True),
        ("prefix.*.io", "prefix.kubernetes.io/x", True),
        ("prefix*.kubernetes.io", "prefixandmore.kubernetes.io/x", True),
        ("*kubernetes.io", "prefixkubernetes.io/x", True),
        ("*.kubernetes.io", "kubernetes.io/x", False),
        ("*.*.kubernetes.io", "prefix.kubernetes.io/x", False),
        ("*kubernetes.io", "a.kubernetes.io/x", False),
        ("kubernetes.io", "kubernetes.com/x", False),
        ("r.example:5000", "r.example:5000/x", True),
        ("r.example:5000", "r.example/x", False),
        ("r.example", "r.example:5000/x", False),
        ("*.example:5000", "r.example:5000/x", True),
        ("r.example/team", "r.example/team/x", True),
        ("r.example/team", "r.example/other/x", False),
        ("https://r.example/v1/", "r.example/x", True),
        ("http://r.example/v2/team", "r.example/team/x", True),
        ("https://index.docker.io/v1/", "alpine", True),
        ("docker.io", "sensors/humidity", True),
        ("r.example", "alpine", False),
        ("[ab].example", "a.example/x", True),
        ("[^ab].example", "a.example/x", False),
    ],
)
def test_a_registry_fits_as_kubelet_says(registry: str, image: str, fits: bool) -> None:
    assert names(image, registry) == ([registry] if fits else [])


def test_the_most_specific_comes_first_and_equals_keep_their_order() -> None:
    assert names("r.example/team/x", "*.example", "r.example", "r.example/team") == ["r.example/team", "r.example", "*.example"]
    same = [RegistryCredentials(user, "p", "r.example") for user in ("old", "new")]
    assert [login.username for login in fitting(parse_reference("r.example/x"), same)] == ["old", "new"]


def test_a_login_for_docker_hub_never_goes_to_another_default_registry() -> None:
    hub = "https://index.docker.io/v1/"
    assert names("humidity-daemon", hub, "lab:5000", default_registry="lab:5000") == ["lab:5000"]
