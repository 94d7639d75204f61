# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods through the stock kubelet, runc and runu side by side: created -> all running -> all answer HTTP -> all gone, and memory a pod.

    python tests/system/bench_kubelet.py --kubeconfig .lab/admin.kubeconfig --registry 10.77.0.11:5000 --ssh "ssh ... root@10.77.0.14"

Needs a lab that is up (`make lab`, `site`, `demo_image`) with busybox in its registry (worker_pods.push_busybox). The memory is the
proportional share (PSS) of all processes below the pods' control groups, shims included.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import worker_pods

KUBECTL = str(Path(sys.executable).parent / "kubectl")
LOOK = """
import concurrent.futures, glob, sys, time, urllib.request
addresses, deadline = sys.argv[1].split(","), time.monotonic() + 120
def first(address):
    while time.monotonic() < deadline:
        try:
            return urllib.request.urlopen(f"http://{address}/", timeout=2).status
        except OSError:
            time.sleep(0.05)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    assert all(status == 200 for status in pool.map(first, addresses)), "no answer"
total = 0
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        words = open(path, "rb").read()
        if any(word in words for word in (b"qemu-system", b"runu", b"containerd-shim", b"/pause", b"httpd")):
            total += sum(int(line.split()[1]) for line in open(path.replace("cmdline", "smaps_rollup")) if line.startswith("Pss:"))
    except OSError:
        pass
print(total)
"""


class Bench:
    """One cluster's worker."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        command = [KUBECTL, "--kubeconfig", self.options.kubeconfig, *arguments]
        return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout

    def measure(self, kind: str, pods: int) -> dict[str, float]:
        """Seconds of each step, and KiB of PSS a pod."""
        small = {"resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "32Mi"}}}
        if kind == "runu":
            containers, runtime_class = [{**worker_pods.unikernel(self.options.registry), **small}], "runu"
        else:
            containers, runtime_class = [{**worker_pods.container(f"{self.options.registry}/busybox:1"), **small}], ""
        started = time.monotonic()
        self.kubectl("apply", "-f", "-", stdin=worker_pods.deployment("bench", pods, containers, runtime_class))
        while True:
            items = json.loads(self.kubectl("get", "pods", "-l", "app=bench", "-o", "json"))["items"]
            addresses = [pod["status"].get("podIP") for pod in items if pod["status"].get("phase") == "Running"]
            if len(addresses) == pods and all(addresses):
                break
            time.sleep(0.2)
        running = time.monotonic() - started
        look = f"python3 -c {shlex.quote(LOOK)} {','.join(addresses)}"
        memory = int(subprocess.run([*shlex.split(self.options.ssh), look], check=True, capture_output=True, text=True).stdout)
        answered = time.monotonic() - started
        gone = time.monotonic()
        self.kubectl("delete", "deployment", "bench", "--wait=false")
        while json.loads(self.kubectl("get", "pods", "-l", "app=bench", "-o", "json"))["items"]:
            time.sleep(0.2)
        return {"running": running, "answered": answered, "gone": time.monotonic() - gone, "KiB/pod": memory / pods}


def main() -> int:
    parser = argparse.ArgumentParser(description="Pods through the stock kubelet, runc and runu side by side.")
    for name in ("--kubeconfig", "--registry", "--ssh"):
        parser.add_argument(name, required=True)
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 10, 30, 50])
    bench = Bench(parser.parse_args())
    print("| runtime | pods | all running s | all answered s | all gone s | PSS MiB/pod |\n|---|---|---|---|---|---|")
    for pods in bench.options.pods:
        for kind in ("runc", "runu"):
            found = bench.measure(kind, pods)
            cells = (f"{found[name]:.1f}" for name in ("running", "answered", "gone"))
            print(f"| {kind} | {pods} | {' | '.join(cells)} | {found['KiB/pod'] / 1024:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
