# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a host lacks, by what dpkg-query prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.modules.host_packages import PACKAGE, missing

NAMES = st.from_regex(PACKAGE, fullmatch=True)
STATES = st.sampled_from(["not-installed", "config-files", "half-installed", "unpacked", "half-configured", "installed"])


@given(st.dictionaries(NAMES, STATES), st.lists(NAMES))
def test_what_is_not_wholly_installed_is_missing_and_named_once(states: dict[str, str], unknown: list[str]) -> None:
    listing = "".join(f"{name} {state}\n" for name, state in states.items())
    wanted = [*states, *unknown, *states]
    lacking = missing(wanted, listing)
    assert set(lacking) == {name for name in wanted if states.get(name) != "installed"}
    assert len(lacking) == len(set(lacking))


def test_a_package_installed_for_one_of_two_architectures_is_there() -> None:
    assert missing(["libc6", "iptables=1.8", "none"], "libc6 installed\nlibc6 not-installed\n") == ["iptables=1.8", "none"]
