# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What iptables is told for pods' packets, from what it says; that it does it is tests/system/test_pod_router.py's matter."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.machines.pod_forwarding import accepting, missing

CIDR = "10.244.0.0/16"
DROPS = ["-P INPUT ACCEPT", "-P FORWARD DROP", "-P OUTPUT ACCEPT"]
WHOLE = [*DROPS, "-N UNIFLEET-PODS", "-A FORWARD -j DOCKER-USER", "-A FORWARD -j UNIFLEET-PODS", *accepting(CIDR)]


def carried_out(rules: list[str], text: str) -> list[str]:
    """What iptables-restore --noflush makes of the rules."""
    after = list(rules)
    for line in text.splitlines():
        if line.startswith(":"):
            chain = line[1:].split()[0]
            after = [rule for rule in after if not rule.startswith(f"-A {chain} ")]
            after += [] if f"-N {chain}" in after else [f"-N {chain}"]
        elif line.startswith("-A"):
            after.append(line)
    return after


def test_a_host_that_forwards_by_default_is_left_alone() -> None:
    assert missing(["-P FORWARD ACCEPT", "-A FORWARD -j DROP"], CIDR) == ""


@pytest.mark.parametrize("gone", [set(each) for n in range(4) for each in itertools.combinations([3, 5, 6, 7], n)], ids=str)
def test_whatever_is_missing_is_there_afterwards_just_once_and_last(gone: set[int]) -> None:
    rules = [rule for index, rule in enumerate(WHOLE) if index not in gone]
    text = missing(rules, CIDR)
    assert bool(text) is bool(gone - {3})
    after = carried_out(rules, text)
    assert [rule for rule in after if "FORWARD -j" in rule] == WHOLE[4:6]
    assert [rule for rule in after if rule.startswith("-A UNIFLEET-PODS")] == accepting(CIDR)
    assert missing(after, CIDR) == ""


def test_another_range_takes_the_place_of_the_old_one() -> None:
    after = carried_out(WHOLE, missing(WHOLE, "10.9.0.0/16"))
    assert [rule for rule in after if rule.startswith("-A UNIFLEET-PODS")] == accepting("10.9.0.0/16")
