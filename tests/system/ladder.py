# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For files whose tests are the rungs of one story on a lab of their own: fixtures to import.

Each rung starts from what the one before left, so after a rung that failed the rest do not run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cluster import ROOT, Cluster
from footprint import footprint


def lab_beside(directory: Path, name: str, third: int) -> Cluster:
    """The repository's lab inventory, copied, for a lab of another name on the network 10.77.THIRD.0/24; it is not up yet."""
    inventory = directory / "inventories" / "lab"
    shutil.copytree(ROOT / "inventories/lab", inventory)
    for file in inventory.rglob("*.yml"):
        file.write_text(file.read_text(encoding="utf-8").replace("10.77.0.", f"10.77.{third}."), encoding="utf-8")
    return Cluster(directory / ".lab", inventory, {"lab_host_name": name, "lab_host_network": f"10.77.{third}.0/24"})


@pytest.fixture(scope="module")
def before() -> frozenset[str]:
    """What the machine had before the lab came."""
    return footprint()


@pytest.fixture(scope="module")
def failed_elsewhere(request: pytest.FixtureRequest) -> int:
    """How many tests of other files had failed before the first rung."""
    return request.session.testsfailed


@pytest.fixture(autouse=True)
def rungs_below_held(request: pytest.FixtureRequest, failed_elsewhere: int) -> None:
    """Fail at once where an earlier rung failed."""
    if request.session.testsfailed > failed_elsewhere:
        pytest.fail("an earlier rung failed", pytrace=False)
