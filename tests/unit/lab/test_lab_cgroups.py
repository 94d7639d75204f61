# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host's control groups go: on an ordinary Debian machine, on a version 1 machine, and in a container."""

from __future__ import annotations

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_cgroups import Layout, hierarchies, own_group, plan

DEBIAN12 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"

VERSION1 = """\
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 30 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
34 30 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
36 30 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
37 30 0:33 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
"""

OWN = "4:memory:/jobs/17\n3:cpuset:/\n1:cpu:/\n9:name=systemd:/\n0::/\n"


def test_with_systemd_a_host_is_a_service_and_no_directory_is_made_by_hand() -> None:
    made = plan(DEBIAN12, "0::/user.slice/session-1.scope\n", "unifleet-cp1", systemd=True)
    assert (made.layout, made.directories) == (Layout.V2, ())
    assert made.environment() == {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def test_version_2_without_systemd_stays_below_the_callers_group() -> None:
    assert plan(DEBIAN12, "0::/box\n", "unifleet-cp1", systemd=False).directories == ("/sys/fs/cgroup/box/unifleet-cp1",)


def test_version_1_gives_every_controller_and_the_hybrid_layout() -> None:
    made = plan(VERSION1, OWN, "unifleet-cp1", systemd=False)
    assert made.layout is Layout.V1
    assert made.environment() == {}
    assert made.directories == (
        "/sys/fs/cgroup/cpu/unifleet-cp1",
        "/sys/fs/cgroup/cpuset/unifleet-cp1",
        "/sys/fs/cgroup/memory/jobs/17/unifleet-cp1",
        "/sys/fs/cgroup/systemd/unifleet-cp1",
        "/sys/fs/cgroup/unified/unifleet-cp1",
    )
    assert made.cpusets == ("/sys/fs/cgroup/cpuset/unifleet-cp1",)


def test_version_1_without_a_systemd_hierarchy_is_refused_with_the_cure() -> None:
    text = "".join(line + "\n" for line in VERSION1.splitlines() if "systemd" not in line)
    with pytest.raises(UnifleetError, match="name=systemd"):
        plan(text, OWN, "unifleet-cp1", systemd=False)


def test_a_machine_without_control_groups_is_told_so() -> None:
    with pytest.raises(UnifleetError, match="no control groups"):
        plan("22 1 254:0 / / rw - ext4 /dev/vda rw\n", OWN, "unifleet-cp1", systemd=False)


def test_joined_controllers_are_found_in_any_order() -> None:
    both = hierarchies("31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n")[0]
    assert own_group("4:cpuacct,cpu:/mine\n", both) == "/mine"


def test_garbled_mount_lines_are_passed_over() -> None:
    assert hierarchies("\nnonsense\n1 2 - cgroup\n - \n") == ()


def test_version_2_beside_version_1_can_be_asked_for() -> None:
    made = plan(VERSION1, OWN, "unifleet-cp1", systemd=False, wanted=Layout.V2)
    assert made.directories == ("/sys/fs/cgroup/systemd/unifleet-cp1", "/sys/fs/cgroup/unified/unifleet-cp1")
    assert made.unified == "/sys/fs/cgroup/unified"


def test_a_layout_that_the_machine_lacks_is_refused() -> None:
    with pytest.raises(UnifleetError, match="no control groups of version 1"):
        plan(DEBIAN12, "0::/\n", "unifleet-cp1", systemd=False, wanted=Layout.V1)
