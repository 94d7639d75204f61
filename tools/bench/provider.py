# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Unifleet adds to a start: its kvm and process machines beside bare QEMU and bare exec, in turns, on one lab host.

The host is a lab of its own (lab.yml), which goes afterwards. on_host.py does the measuring there, with the host's own Python.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.bench.boot import bar_of
from ansible_collections.unifleet.hybrid.tools.bench.chart import Chart, Group
from ansible_collections.unifleet.hybrid.tools.bench.report import (
    Outcome,
    Progress,
    Spread,
    Table,
    memory_text,
    ratio_text,
    seconds_text,
    spread,
    spread_text,
)

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = Path(__file__).with_name("lab.yml")
LAB = ROOT / "build/bench/.lab"
ADDRESS = "10.77.53.12"
ROUNDS = 9
REMOTE = "/var/tmp/unifleet-bench"  # noqa: S108 - on the lab host
INSIDE = "ansible_collections/unifleet/hybrid"
SENT = (
    "plugins/host/machines/*.py",
    "plugins/host/guests/contract.py",
    "plugins/host/guests/plain.py",
    "plugins/module_utils/*.py",
    "tools/bench/__init__.py",
    "tools/bench/on_host.py",
    "tools/bench/stopwatch.py",
    "guest/build/sensor-kvm-amd64",
    "guest/build/sensor-process-amd64",
)
NAMES = {
    "kvm": {"unifleet": "kvm machine of Unifleet", "alone": "libvirt alone", "bare": "bare QEMU"},
    "process": {"unifleet": "process of Unifleet", "alone": "systemd-run alone", "bare": "bare exec"},
}
# What the role hypervisor sets, so that QEMU writes the console's file itself and filters its system calls.
SETTINGS = r"""printf 'stdio_handler = "file"\nseccomp_sandbox = 1\n' >>/etc/libvirt/qemu.conf; systemctl restart libvirtd"""


def measure(progress: Progress) -> Outcome:
    """Bring the host up, measure there, take it away. Raises UnifleetError."""
    progress("a lab host (its base is built once, two minutes, then kept)")
    with lab_host():
        said = json.loads(run_there(progress))
    return outcome(said)


@contextmanager
def lab_host() -> Iterator[None]:
    """The lab host, up."""
    try:
        _play("lab_up")
        yield
    finally:
        _play("lab_down")


def _play(name: str) -> None:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(INVENTORY), "-e", f"lab_host_directory={LAB}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        [*command, str(ROOT / f"playbooks/{name}.yml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise UnifleetError(f"playbook {name} failed:\n{done.stdout[-2000:]}", "see playbooks/lab_up.yml for what a lab needs")


def run_there(progress: Progress) -> str:
    """Copy the programs over, run on_host.py, pass on what it says of its progress; its output."""
    programs = f"{REMOTE}/{INSIDE}"
    steps = [
        "set -e",
        SETTINGS,
        f"rm -rf {REMOTE}; mkdir -p {REMOTE}; tar -xzf - -C {REMOTE}",
        f"PYTHONPATH={REMOTE} PYTHONDONTWRITEBYTECODE=1 timeout 300 python3 {programs}/tools/bench/on_host.py {ROUNDS}"
        f" {programs}/guest/build/sensor-kvm-amd64 {programs}/guest/build/sensor-process-amd64",
    ]
    command = ["ssh", "-i", str(LAB / "ssh/id_ed25519"), "-o", f"UserKnownHostsFile={LAB / 'ssh/known_hosts'}", "-o", "BatchMode=yes"]
    command += ["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=20", f"root@{ADDRESS}", "\n".join(steps)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(_archive())
        process.stdin.close()
        told = []
        for line in process.stderr:
            told.append(line.decode(errors="replace").rstrip())
            progress(f"there: {told[-1]}")
        output = process.stdout.read().decode()
    if process.returncode:
        raise UnifleetError("measuring on the lab host failed: " + "\n".join(told[-15:]), "run it again; if it stays, report it")
    return output


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for pattern in SENT:
            for path in sorted(ROOT.glob(pattern)):
                archive.add(path, f"{INSIDE}/{path.relative_to(ROOT)}")
    return buffer.getvalue()


def outcome(said: Mapping[str, Any]) -> Outcome:
    """Table and chart of what on_host.py wrote."""
    rows: list[tuple[str, ...]] = []
    groups = []
    for kind, names in NAMES.items():
        timings = said["timings"][kind]
        of = {way: {what: _spread(timings[way], what) for what in ("first_line", "first_answer", "called", "rss", "pss")} for way in names}
        for way, name in names.items():
            this, bare = of[way], of["bare"]
            ratios = [ratio_text(this[what].median / bare[what].median) for what in ("first_line", "first_answer", "pss")]
            called = "-" if way == "bare" else seconds_text(this["called"].median)
            times = (called, spread_text(this["first_line"]), ratios[0], spread_text(this["first_answer"]), ratios[1])
            rows.append((name, *times, memory_text(this["rss"].median), memory_text(this["pss"].median), ratios[2]))
            groups.append(Group(name, (bar_of(this["first_line"]), bar_of(this["first_answer"]))))
    accelerator = said["accelerator"]
    count = min(len(found) for timings in said["timings"].values() for found in timings.values())
    note = (
        f"Median and quartiles of {count} starts each, in turns, on one lab host under {accelerator['kind']}"
        f" ({accelerator['why']}; {said['qemu']}). Through Unifleet a start is counted from prepare(), bare from exec. Alone:"
        " what libvirt takes for the very same domain, and systemd for a unit without isolation. Call returned: when those who"
        " start it had come back. Ratios are to the bare start. Memory is that of the QEMU or program process after the first"
        " answer; libvirtd and systemd are the host's and not counted."
    )
    columns = ("machine", "call returned", "first line", "ratio", "first HTTP answer", "ratio", "RSS", "PSS", "PSS ratio")
    chart = Chart(
        "What Unifleet adds to a start",
        f"sensor on one lab host, {accelerator['kind']}; median, thin line: quartiles",
        ("first line", "first HTTP answer"),
        tuple(groups),
        seconds_text,
    )
    table = Table("Through Unifleet beside bare", columns, tuple(rows), note)
    return Outcome(said, (table,), {"provider": chart})


def _spread(timings: Sequence[Mapping[str, float]], what: str) -> Spread:
    return spread(timing[what] for timing in timings)
