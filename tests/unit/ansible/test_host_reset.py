# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reset may remove, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.modules.host_reset import allowed, mounted_below, without_chains

MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:5 / /var/lib/kubelet rw - ext4 /dev/sdb rw
31 30 0:6 / /var/lib/kubelet/pods/1/volumes/a\\040b rw - tmpfs tmpfs rw
32 31 0:7 / /var/lib/kubelet/pods/1/volumes/a\\040b/below rw - tmpfs tmpfs rw
33 31 0:7 / /var/lib/kubelet/pods/1/volumes/a\\040b/below rw - tmpfs tmpfs rw
34 22 0:8 / /var/lib/kubelet-of-another rw - tmpfs tmpfs rw
"""
RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:MINE-KUBE - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -s 10.0.0.1/32 -m comment --comment "about KUBE-SERVICES" -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN
-A MINE-KUBE -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize(
    "path",
    ["/", "/etc", "/etc/", "/var/lib", "etc/unifleet", "/etc/../home/x", "/home/user/data", "/usr/bin/x", "/var/*/x", "/etc//unifleet"],
)
def test_what_is_not_definite_or_not_a_services_is_never_removed(path: str) -> None:
    with pytest.raises(UnifleetError, match="is not removed"):
        allowed(path)


@pytest.mark.parametrize("path", ["/etc/unifleet", "/var/lib/unifleet", "/run/netns/cni-*", "/usr/local/bin/runu", "/opt/kubernetes"])
def test_a_services_own_paths_are(path: str) -> None:
    assert allowed(path) == Path(path)


def test_mounts_below_go_from_the_deepest_as_often_as_they_are_mounted_and_never_the_path_itself() -> None:
    below = "/var/lib/kubelet/pods/1/volumes/a b"
    assert mounted_below([Path("/var/lib/kubelet")], MOUNTS) == [f"{below}/below", f"{below}/below", below]
    assert mounted_below([Path("/var/lib/none")], MOUNTS) == []


def test_only_our_chains_and_the_rules_that_name_them_leave_the_firewall() -> None:
    assert without_chains(RULES, ("KUBE-", "CNI-")).splitlines() == [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":MINE-KUBE - [0:0]",
        '-A PREROUTING -s 10.0.0.1/32 -m comment --comment "about KUBE-SERVICES" -j ACCEPT',
        "-A MINE-KUBE -j ACCEPT",
        "COMMIT",
    ]
