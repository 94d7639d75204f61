# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for all files that need hosts: a story each, in the order below, which begins with bare hosts and ends with none.

A file that is run alone gets the lab in the state that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, lab_beside
from footprint import footprint

STORIES = ("test_first_path.py", "test_pod_network.py", "test_deploy.py", "test_lab_end.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the stories in their order, behind all else."""
    items.sort(key=lambda item: STORIES.index(item.path.name) if item.path.name in STORIES else -1)


@pytest.fixture(scope="session")
def before() -> frozenset[str]:
    """What the machine had before the lab came."""
    return footprint()


@pytest.fixture(scope="session")
def bare_lab(before: frozenset[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The repository's lab on a network of its own, beside whatever runs on this machine; at first its hosts have nothing on them."""
    lab = lab_beside(tmp_path_factory.mktemp("lab"), "path", 9)
    lab.playbook("lab_up")
    yield lab
    lab.playbook("lab_down")


@pytest.fixture(scope="session")
def lab_cluster(bare_lab: Cluster) -> Cluster:
    """The same lab as a cluster with the project's images in its registry."""
    if not bare_lab.kubeconfig.exists():
        bare_lab.playbook("site")
        bare_lab.playbook("demo_image")
    return bare_lab
