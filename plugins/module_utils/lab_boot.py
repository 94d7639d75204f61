# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a lab host boots: the cable, the root file system and the systemd-nspawn command, as data for the supervisor.

Each odd option was a failure first; the comments name it. Pure: what the machine offers comes in as a Machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_cgroups import Plan
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import Host

REBOOT_STATUS = 133
"""Exit status of systemd-nspawn --keep-unit when the host asked to be rebooted (nspawn.c, EXIT_FORCE_RESTART)."""

DEVICES = ("/dev/net/tun", "/dev/fuse", "/dev/vhost-net", "/dev/vhost-vsock")
"""Devices of the machine that a host gets when the machine has them: taps, FUSE snapshotters."""

KVM = "/dev/kvm"
"""A host has a node of its own for this one: the machine's belongs to a group that has another number in the host."""

DATA = ("/var/lib/containerd", "/var/lib/kubelet")
"""Directories that need a real file system below them: an overlay cannot be stacked on the host's overlay root."""


@dataclass(frozen=True)
class Machine:
    """What the machine offers: its devices among DEVICES, the directory to show as /lib/modules, its control groups, and KVM."""

    devices: tuple[str, ...]
    modules: str
    cgroups: Plan
    kvm: bool = False


def cable(host: Host) -> list[list[str]]:
    """Commands that give the host a fresh network namespace with its address, as a real boot gives a fresh network stack.

    The old ones go first (they may be missing: the supervisor lets commands that start with "-" fail).
    """
    inside = ["ip", "-n", host.unique]
    return [
        ["-", "ip", "link", "del", host.interface],
        ["-", "ip", "netns", "del", host.unique],
        ["ip", "netns", "add", host.unique],
        ["ip", "link", "add", host.interface, "type", "veth", "peer", "name", "eth0", "address", host.mac, "netns", host.unique],
        ["ip", "link", "set", host.interface, "master", host.lab.bridge, "up"],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "addr", "add", f"{host.address}/{host.lab.network.prefixlen}", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*inside, "route", "add", "default", "via", str(host.lab.gateway)],
    ]


def overlay(host: Host, base: str) -> list[str]:
    """The command that mounts the host's root: the shared base below, the host's own changes above."""
    directory = host.directory
    options = f"lowerdir={base},upperdir={directory / 'upper'},workdir={directory / 'work'}"
    return ["mount", "-t", "overlay", host.unique, "-o", options, str(host.root)]


def kvm_node(host: Host) -> Path:
    """Where the host's own node for KVM is kept."""
    return host.directory / "kvm"


def nspawn(host: Host, machine: Machine) -> list[str]:
    """The command that boots the host and runs until it is off."""
    return [
        # A host must not outlive its supervisor, or nobody could stop it or answer its reboots.
        "setpriv",
        "--pdeathsig=KILL",
        "systemd-nspawn",
        "--quiet",
        f"--machine={host.unique}",
        f"--hostname={host.name}",
        f"--directory={host.root}",
        "--boot",
        # No machined to register with; and with --keep-unit a reboot ends nspawn with REBOOT_STATUS, so that we boot afresh.
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        f"--network-namespace-path={host.namespace}",
        "--resolv-conf=off",
        "--timezone=off",
        # A host with a namespace made by others gets no CAP_NET_ADMIN otherwise. The clock and the kernel are the machine's.
        "--capability=all",
        "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE",
        # runc needs the key ring, bpf and more than the default filter has.
        "--system-call-filter=add_key keyctl request_key bpf perf_event_open @privileged",
        *(f"--bind={device}" for device in machine.devices),
        *([f"--bind={kvm_node(host)}:{KVM}"] if machine.kvm else []),
        # The kubelet refuses to start without /dev/kmsg, and the kernel's log is the machine's.
        "--bind=/dev/null:/dev/kmsg",
        f"--bind-ro={machine.modules}:/lib/modules",
        *(f"--bind={host.directory / 'data' / path.rsplit('/', 1)[1]}:{path}" for path in DATA),
    ]


def run_file(host: Host, machine: Machine) -> dict[str, object]:
    """What the supervisor (roles/lab_host/files/supervise.py) reads; its keys are explained there."""
    # Else /proc/sys/net is read-only in a host whose namespace was made by others.
    environment = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", **machine.cgroups.environment()}
    return {
        "cgroups": list(machine.cgroups.directories),
        "unified": machine.cgroups.unified,
        "before": cable(host),
        "command": nspawn(host, machine),
        "environment": environment,
        "reboot_status": REBOOT_STATUS,
        "console": str(host.console),
        "pid_file": str(host.pid_file),
    }


KERNEL_SETTINGS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
"""What a kubelet insists on (k/k pkg/util/sysctl/sysctl.go), and the machine's kernel, not the host's to set, may have otherwise."""


def kernel_files() -> dict[str, str]:
    """Files below the root by which a host shows its programs the kernel settings that a kubelet wants to see."""
    commands = ["mkdir -p /run/unifleet-lab"]
    for name, value in KERNEL_SETTINGS.items():
        shown = f"/run/unifleet-lab/{name.replace('/', '.')}"
        commands += [f"echo {value} >{shown}", f"mount --bind {shown} /proc/sys/{name}"]
    unit = f"""\
# The kernel is the machine's; a kubelet ends when it can neither find it as it wants nor make it so.
[Unit]
Before=kubelet.service
ConditionPathIsReadWrite=!/proc/sys/vm/overcommit_memory

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec '{"; ".join(commands)}'
"""
    return {
        "etc/systemd/system/unifleet-lab-kernel.service": unit,
        "etc/systemd/system/multi-user.target.d/10-unifleet-lab.conf": "[Unit]\nWants=unifleet-lab-kernel.service\n",
    }


def hosts_file(host: Host) -> str:
    return f"127.0.0.1 localhost\n{host.address} {host.name}\n"


def name_servers(resolv: str, uplink: str | None) -> str:
    """The resolv.conf for a host: the machine's, or the one systemd-resolved keeps of its uplinks when the machine's is a local stub."""
    servers = re.findall(r"(?m)^\s*nameserver\s+(\S+)", resolv)
    local = all(server.startswith("127.") or server == "::1" for server in servers)
    return uplink if local and uplink is not None else resolv


BUILT_IN = (
    "fs/overlayfs/overlay",
    "fs/fuse/fuse",
    "net/bridge/bridge",
    "net/bridge/br_netfilter",
    "net/netfilter/nf_conntrack",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/vxlan",
    "arch/x86/kvm/kvm",
)
"""Drivers that a kernel without loadable modules has built in but cannot say so: modprobe looks them up in modules.builtin."""


def builtin_modules() -> str:
    return "".join(f"kernel/{path}.ko\n" for path in BUILT_IN)
