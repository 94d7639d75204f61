# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For files whose tests are the rungs of one story: fixtures to import.

Each rung starts from what the one before left, so after a rung that failed the rest do not run.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def failed_elsewhere(request: pytest.FixtureRequest) -> int:
    """How many tests of other files had failed before the first rung."""
    return request.session.testsfailed


@pytest.fixture(autouse=True)
def rungs_below_held(request: pytest.FixtureRequest, failed_elsewhere: int) -> None:
    """Fail at once where an earlier rung failed."""
    if request.session.testsfailed > failed_elsewhere:
        pytest.fail("an earlier rung failed", pytrace=False)
