# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether virtual machines on this host run better under KVM or under QEMU's own translation (TCG), found out by booting one.

A device file /dev/kvm proves nothing: nested and paravirtual KVMs have it and stop at a guest's first vector instruction, or emulate
each instruction slower than TCG translates them. So the project's own guest is booted under both, as the user that QEMU will run as,
and the answer is kept until the next boot, another QEMU or another guest.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import pwd
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_PROBE_SECONDS = 3.0
_ROUNDS = 2
_TOLERANCE = 1.5
"""KVM may take so many times as long as TCG to boot the probe and still count as no slower: below that it is noise."""
_ANSWER = b"unikernel: exit 0"
QBOOT = Path("/usr/share/qemu/qboot.rom")
"""A boot ROM that jumps straight into a kernel; SeaBIOS takes 9 s where KVM emulates."""


@dataclass(frozen=True)
class Accelerator:
    """kind: kvm or tcg. cpu: the QEMU processor model that goes with it. why: a sentence for people."""

    kind: str
    cpu: str
    why: str


def choose(wanted: str, probe_kernel: Optional[Path], cache: Path, user: str = "libvirt-qemu") -> Accelerator:
    """The accelerator for this host; wanted: auto, kvm or tcg. Raises UnifleetError for another word, or for kvm without /dev/kvm."""
    if wanted not in ("auto", "kvm", "tcg"):
        raise UnifleetError(f"there is no accelerator {wanted!r}", "use auto, kvm or tcg")
    if wanted == "tcg":
        return Accelerator("tcg", "max", "the configuration says tcg")
    if not Path("/dev/kvm").exists():
        if wanted == "kvm":
            raise UnifleetError("the configuration says accelerator kvm, and there is no /dev/kvm", "load the kvm module, or say auto")
        return Accelerator("tcg", "max", "there is no /dev/kvm")
    if probe_kernel is None or not probe_kernel.is_file():
        if wanted == "kvm":
            return Accelerator("kvm", "host", "the configuration says kvm")
        return Accelerator("tcg", "max", f"KVM cannot be tried: there is no probe kernel {probe_kernel or ''}".rstrip())
    key = f"{wanted} {_boot_id()} {hashlib.sha256(probe_kernel.read_bytes()).hexdigest()} {_qemu_version()}"
    kept = _kept(cache, key)
    if kept is None:
        kept = _probe(wanted, probe_kernel, user)
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(cache.name + ".tmp")
        temporary.write_text(json.dumps({"key": key, **asdict(kept)}))
        temporary.replace(cache)
    return kept


def decide(wanted: str, kvm: dict[str, Optional[float]], tcg: Optional[float]) -> Accelerator:
    """kvm: seconds that the probe took by processor model, None where it did not work; tcg: the same under TCG. First model wins."""
    for cpu, seconds in kvm.items():
        if seconds is None:
            continue
        if wanted == "kvm" or tcg is None or seconds <= tcg * _TOLERANCE:
            return Accelerator("kvm", cpu, f"the probe guest ran under KVM in {seconds:.2f} s" + (f", TCG {tcg:.2f} s" if tcg else ""))
        return Accelerator("tcg", "max", f"the probe guest took {seconds:.2f} s under KVM and {tcg:.2f} s under TCG")
    if wanted == "kvm":
        raise UnifleetError("the configuration says accelerator kvm, and the probe guest does not run under KVM", "say auto or tcg")
    return Accelerator("tcg", "max", "the probe guest does not run under KVM here")


def _probe(wanted: str, kernel: Path, user: str) -> Accelerator:
    tcg = _best("tcg", "max", kernel, user)
    kvm: dict[str, Optional[float]] = {}
    for cpu in ("host", "qemu64"):
        kvm[cpu] = _best("kvm", cpu, kernel, user)
        if kvm[cpu] is not None:
            break
    return decide(wanted, kvm, tcg)


def _best(accelerator: str, cpu: str, kernel: Path, user: str) -> Optional[float]:
    times: list[float] = []
    for _number in range(_ROUNDS):
        seconds = _boot(accelerator, cpu, kernel, user)
        if seconds is None:
            return None
        times.append(seconds)
    return min(times)


def _boot(accelerator: str, cpu: str, kernel: Path, user: str) -> Optional[float]:
    """Seconds from QEMU's start to the guest's power-off, or None when that did not come within _PROBE_SECONDS."""
    command = [f"qemu-system-{platform.machine()}", "-machine", f"pc,accel={accelerator}", "-cpu", cpu, "-m", "16", "-nodefaults"]
    command += ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel)]
    command += ["-append", "-- --sensor probe --period 0.01 --source value:1 --count 1", "-sandbox", "on"]
    command += ["-bios", str(QBOOT)] if QBOOT.is_file() else []
    number, group, groups = _identity(user)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
            user=number,
            group=group,
            extra_groups=groups,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return time.monotonic() - begun if done.returncode == 0 and _ANSWER in done.stdout else None


def _identity(user: str) -> tuple[Optional[int], Optional[int], Optional[list[int]]]:
    """The user, group and groups to run QEMU with; none where that user is not there or may not be become."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None, None, None
    if os.geteuid() != 0:
        return None, None, None
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid)


def _kept(cache: Path, key: str) -> Optional[Accelerator]:
    try:
        loaded = json.loads(cache.read_text())
        return Accelerator(loaded["kind"], loaded["cpu"], loaded["why"]) if loaded["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _qemu_version() -> str:
    try:
        done = subprocess.run([f"qemu-system-{platform.machine()}", "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnifleetError(f"QEMU does not run: {error}", "install qemu-system-x86 (role hypervisor)") from error
    return done.stdout.decode(errors="replace").splitlines()[0] if done.stdout else ""
