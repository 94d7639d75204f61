# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in the machine's control groups a host lives, and how that host sees them.

An ordinary Debian machine runs systemd and version 2 with all controllers; containers and micro-VMs often still have version 1
hierarchies that cannot be moved to version 2 without disturbing the machine. A host gets what the machine has:
version 2 as it is, or version 1 in systemd's hybrid layout with all its controllers. Pure: from /proc/self/{mountinfo,cgroup}.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_PASSED_ON = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
"""The version 1 controllers that a host gets; the others (net_cls, perf_event, hugetlb) are of no use to it."""


class Layout(enum.Enum):
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class Plan:
    """The layout a host sees and the directories that hold it, one a hierarchy; no directories when systemd is asked to make them."""

    layout: Layout
    directories: tuple[str, ...]
    cpusets: tuple[str, ...] = ()
    """Those of the directories that need their CPUs and memory nodes set before a process may enter (version 1 cpuset)."""
    unified: str = ""
    """Where version 2 is mounted, when the host sees version 2."""

    def environment(self) -> dict[str, str]:
        return {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if self.layout is Layout.V2 else {}


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: where, and what it controls (empty: version 2)."""

    mount: str
    controllers: frozenset[str]

    @property
    def version2(self) -> bool:
        return not self.controllers


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The control group file systems in the text of /proc/self/mountinfo (proc(5))."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _dash, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 5 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:
            continue
        options = frozenset(tail[2].split(",")) - {"rw", "ro", "xattr", "clone_children"} if tail[0] == "cgroup" else frozenset()
        options = frozenset(o for o in options if not o.startswith("release_agent="))
        found[fields[4]] = Hierarchy(fields[4], options)
    return tuple(found.values())


def own_group(cgroup: str, hierarchy: Hierarchy) -> str:
    """The calling process's group in a hierarchy, from the text of /proc/self/cgroup: "" for the root, else /below/it."""
    for line in cgroup.splitlines():
        number, _colon, rest = line.partition(":")
        controllers, _colon, path = rest.partition(":")
        if (number == "0" and hierarchy.version2) or (controllers and frozenset(controllers.split(",")) == hierarchy.controllers):
            return "" if path == "/" else path.rstrip("/")
    return ""


def plan(mountinfo: str, cgroup: str, unit: str, systemd: bool, wanted: Layout | None = None) -> Plan:
    """Where the host called `unit` is to live. With systemd it is a service of that name; else groups below the caller's own.

    Below the caller's own: whoever started us with limits, or watches us through a group, keeps doing so for the hosts.
    `wanted` asks for a layout that is not the machine's usual one: version 2 beside version 1 exists, but has few controllers.
    """
    mounted = hierarchies(mountinfo)
    if not mounted:
        raise UnifleetError(
            "no control groups are mounted on this machine", "mount them at /sys/fs/cgroup (mount -t cgroup2 cgroup2 /sys/fs/cgroup)"
        )
    version1 = tuple(h for h in mounted if not h.version2 and h.controllers & set(_PASSED_ON))
    named = tuple(h for h in mounted if "name=systemd" in h.controllers)
    unified = tuple(h for h in mounted if h.version2)
    layout = wanted or (Layout.V1 if version1 else Layout.V2)
    if (layout is Layout.V1 and not version1) or (layout is Layout.V2 and not unified):
        raise UnifleetError(f"this machine has no control groups of version {layout.value[1]}", "leave lab_host_cgroups at auto")
    seen = unified[0].mount if layout is Layout.V2 else ""
    if systemd:
        return Plan(layout, (), unified=seen)
    if version1 and not named:
        raise UnifleetError(
            "the machine has version 1 control groups but no name=systemd hierarchy, so no systemd can run in a host",
            "mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd",
        )
    used = (*version1, *named, *unified) if layout is Layout.V1 else (*named, *unified)
    place = {h.mount: f"{h.mount}{own_group(cgroup, h)}/{unit}" for h in used}
    return Plan(layout, tuple(place.values()), tuple(place[h.mount] for h in used if "cpuset" in h.controllers), seen)
