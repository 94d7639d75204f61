# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How generated examples are run: a busy machine is no failure, and a failure is the same one tomorrow.

hypothesis's own profile fails an example that took over 200 ms, which on a machine that builds something beside the tests says
nothing about the code. Its example database would be a second thing to keep; what it found belongs in a test.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unifleet", deadline=None, max_examples=60, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unifleet")
