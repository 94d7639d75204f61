# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds of machines the contract is tested on: UNIFLEET_CONTRACT_KINDS, which must all be there.

A kind that the host lacks fails its tests; nothing is skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bench import Bench, KvmBench, ProcessBench, SimulatedBench

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Machines
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

BENCHES = {"simulated": SimulatedBench, "process": ProcessBench, "kvm": KvmBench}
KINDS = os.environ.get("UNIFLEET_CONTRACT_KINDS", "simulated").split(",")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs on every kind; one marked only(...) on those of its kinds that were asked for."""
    if "bench" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only")
        metafunc.parametrize("bench", [kind for kind in KINDS if only is None or kind in only.args], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests about kinds that were not asked for are left out, so that a skip in the summary always means trouble."""
    markers = [(item, item.get_closest_marker("only")) for item in items]
    dropped = [item for item, only in markers if only is not None and not set(only.args) & set(KINDS)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of this suite."""
    config.addinivalue_line("markers", "only(*kinds): the kinds of machines that a test is about")


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench whose machines are gone afterwards."""
    # Not below pytest's own directory, which QEMU's user may not enter.
    directory = Path(tempfile.mkdtemp(prefix="unifleet-contract-", dir="/var/tmp"))
    directory.chmod(0o755)
    made = BENCHES[request.param](directory)
    yield made
    machines = made.open()
    for key in made.keys:
        with contextlib.suppress(UnifleetError):
            machines.remove(key)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def machines(bench: Bench) -> Machines:
    """The kind's machines, alive."""
    opened = bench.open()
    opened.health()
    return opened
