# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the contract tests on hosts, over ssh: run_on_host.py [--lab DIRECTORY] HOST=KIND,KIND[:MANY] ...

The collection's programs and the tests are copied to a directory on each host, what the tests need is installed there from Debian, and the
host's own Python runs them. Hosts are worked on at the same time; each one's output is shown when it is done. The exit status is 0 only
when every test of every kind passed on every host: a host that lacks a kind fails.
"""

from __future__ import annotations

import argparse
import io
import shlex
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "/var/tmp/unifleet-contract"
INSIDE = "ansible_collections/unifleet/hybrid"
PACKAGES = {
    "simulated": ["python3-pytest"],
    "process": ["python3-pytest", "python3-jeepney", "busybox-static"],
    "kvm": ["python3-pytest", "python3-libvirt", "libvirt-daemon-system", "libvirt-clients", "nftables", "iproute2", "qemu-system-x86"],
}
SENSOR = "guest/build/sensor-kvm-amd64"
SETTINGS = "/etc/libvirt/qemu.conf"


def main() -> int:
    """Run all and say how it went."""
    parser = argparse.ArgumentParser(description="Run the contract tests of machines on hosts.")
    parser.add_argument("--lab", type=Path, default=ROOT / ".lab", help="the lab's state directory, which has the ssh key")
    parser.add_argument("--timeout", type=int, default=1500, help="seconds that the tests of one host may take")
    parser.add_argument(
        "hosts",
        nargs="+",
        metavar="ADDRESS=KIND,KIND[:MANY]",
        help="for example 10.77.0.12=simulated,process,kvm; MANY: how many machines at once a slow host is asked for (default: 20)",
    )
    arguments = parser.parse_args()
    archive = pack(with_kernel=any("kvm" in host for host in arguments.hosts))
    pairs = [host.partition("=")[::2] for host in arguments.hosts]
    with ThreadPoolExecutor(len(pairs)) as pool:
        jobs = [pool.submit(run, arguments.lab, address, kinds, archive, arguments.timeout) for address, kinds in pairs]
        failed = []
        for (address, kinds), job in zip(pairs, jobs):
            status, output = job.result()
            print(f"==> Contract on {address}: {kinds}\n{output}", flush=True)
            failed += [address] if status else []
    print(f"contract: FAILED on {', '.join(failed)}" if failed else f"contract: passed on {len(pairs)} hosts")
    return 1 if failed else 0


def pack(with_kernel: bool) -> bytes:
    """The programs under test and the tests, as a tar archive."""
    rooms = (ROOT / "plugins/host/machines", ROOT / "plugins/module_utils")
    files = {path: path.relative_to(ROOT) for room in rooms for path in room.glob("*.py")}
    files.update({path: path.relative_to(ROOT) for path in (ROOT / "tests/contract").iterdir() if path.suffix in (".py", ".ini")})
    if with_kernel:
        files[ROOT / SENSOR] = Path("sensor")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for source, target in files.items():
            archive.add(source, f"{INSIDE}/{target}")
    return buffer.getvalue()


def run(lab: Path, address: str, wanted: str, archive: bytes, timeout: int) -> tuple[int, str]:
    """Copy, install, test on one host what "KIND,KIND:MANY" asks for; its exit status and what it said."""
    words, _colon, many = wanted.partition(":")
    kinds = words.split(",")
    packages = sorted({package for kind in kinds for package in PACKAGES[kind]})
    steps = [
        "set -e",
        f"rm -rf {REMOTE}; mkdir -p {REMOTE}; tar -xzf - -C {REMOTE}; cd {REMOTE}/{INSIDE}",
        f"dpkg-query -W {shlex.join(packages)} >/dev/null 2>&1 || {{ apt-get -q update >/dev/null;"
        f" DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends {shlex.join(packages)}"
        " >/dev/null; }",
    ]
    if "kvm" in kinds:
        # What the role hypervisor sets; a host that has it is left as it is.
        steps.append(
            f"grep -q '^stdio_handler' {SETTINGS} || {{ echo 'stdio_handler = \"file\"' >>{SETTINGS}; systemctl restart libvirtd; }}"
        )
    steps.append(
        f"PYTHONPATH={REMOTE} PYTHONDONTWRITEBYTECODE=1 UNIFLEET_CONTRACT_KINDS={','.join(kinds)} UNIFLEET_CONTRACT_SENSOR=$PWD/sensor"
        f" UNIFLEET_CONTRACT_MANY={int(many or 20)}"
        f" timeout {timeout} python3 -m pytest -c tests/contract/pytest.ini -q -s --durations=5 tests/contract"
    )
    command = ["ssh", "-i", str(lab / "ssh/id_ed25519"), "-o", f"UserKnownHostsFile={lab / 'ssh/known_hosts'}"]
    command += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", f"root@{address}", "\n".join(steps)]
    done = subprocess.run(command, input=archive, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
