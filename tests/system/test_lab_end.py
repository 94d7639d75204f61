# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After all stories: the cluster is as its inventory says, and when the lab goes the machine is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import Cluster
from footprint import footprint

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.timeout(1200)]

HOSTS = ("cp1", "kvm1", "pi1", "worker1")


def test_verify_finds_nothing_wrong_in_the_end(lab_cluster: Cluster) -> None:
    lab_cluster.playbook("verify")
    print({host: lab_cluster.ssh(host, "systemctl --failed --no-legend --no-pager", check=False).strip() for host in HOSTS})


def test_lab_down_leaves_the_machine_as_it_was(bare_lab: Cluster, before: frozenset[str]) -> None:
    bare_lab.playbook("lab_down")
    left = footprint() - before
    assert not left, f"left behind: {sorted(left)}"
    assert not (Path(bare_lab.directory) / "hosts").exists()
