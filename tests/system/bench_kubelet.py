# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods through the stock kubelet, runc and runu side by side: created -> Running -> first HTTP answer -> ended -> gone, and memory.

    tests/system/bench_kubelet.py [--pods N ...] [--rounds N] [--keep DIRECTORY] [--json FILE]

The same program in both: the sensor as a process, and the sensor as a unikernel. On a lab of its own, a control plane and a worker, which
goes afterwards. Running is when the API says so; an answer is what the worker itself gets from a pod's address once the API tells that.
Part `kubelet` of `make bench` (tools/bench/kubelet.py), with the project's Python, as root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "system")]

import urllib3
import yaml
from cluster import Cluster, lab_beside
from kubernetes import client, watch
from runu_host import build, wait_for

from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, pack, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

THIRD = 43
"""Of the lab's network, 10.77.43.0/24."""
REGISTRY = f"10.77.{THIRD}.11:5000"
KINDS = {"runc": "process/amd64", "runu": "kvm/amd64"}
SECONDS = 300.0
SELECTOR = "app=bench"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def lab(directory: Path, *, keep: bool) -> Iterator[Cluster]:
    """A cluster of one worker, and the two images in its registry. keep: one that is there is used, and stays."""
    there = (directory / ".lab").exists()
    made = lab_beside(directory, "kubebench", THIRD)
    hosts = made.inventory / "hosts.yml"
    document = yaml.safe_load(hosts.read_text(encoding="utf-8"))
    document.pop("virtual_kubelets", None)
    hosts.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    try:
        if not there:
            tell("a lab of a control plane and a worker")
            made.playbook("lab_up")
            made.playbook("site")
            push(directory)
        yield made
    finally:
        if not keep:
            made.playbook("lab_down")


def push(directory: Path) -> None:
    """The sensor for both runtimes."""
    guests = build()
    for kind, target in KINDS.items():
        files = {"boot/kernel": ((guests / f"sensor-{target.replace('/', '-')}").read_bytes(), True)}
        profile = Profile("plain", {target: "/boot/kernel"}, memory_bytes=8 << 20, network=True)
        write(pack(ImageContent(profile, files)), directory / kind, "1")
        name = f"{REGISTRY}/bench-{kind}:1"
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{directory / kind}:1", f"docker://{name}"], check=True
        )


class Worker:
    """pod_answers.py on the worker."""

    def __init__(self, cluster: Cluster) -> None:
        keys = cluster.directory / "ssh"
        options = ["-i", str(keys / "id_ed25519"), "-o", f"UserKnownHostsFile={keys / 'known_hosts'}", "-o", "BatchMode=yes"]
        program = Path(__file__).with_name("pod_answers.py").read_text(encoding="utf-8")
        command = ["ssh", *options, f"root@10.77.{THIRD}.14", f"exec python3 -c {shlex.quote(program)}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.answers: dict[str, float] = {}
        self.said: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            word, rest = line.split(" ", 1)
            if word == "answer":
                address, when = rest.split()
                self.answers[address] = float(when)
            else:
                self.said.put(json.loads(rest))

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")

    def memory(self) -> dict[str, list[int]]:
        """Command -> processes and KiB."""
        self.tell("memory")
        found: dict[str, list[int]] = self.said.get(timeout=SECONDS)
        return found

    def ended(self) -> float:
        """Wait until nothing runs in any pod; when that was."""
        self.tell("until-ended")
        return float(self.said.get(timeout=SECONDS))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(SECONDS)


class Pods:
    """The benchmark's pods as the API tells of them, in a thread. running, gone: name -> when (monotonic seconds)."""

    def __init__(self, api: client.CoreV1Api, worker: Worker) -> None:
        self.api = api
        self.worker = worker
        self.running: dict[str, float] = {}
        self.addresses: dict[str, str] = {}
        self.gone: dict[str, float] = {}
        self.ended = threading.Event()
        self.watch = watch.Watch()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        try:
            self._events()
        except urllib3.exceptions.ProtocolError:
            if not self.ended.is_set():  # else it is close() that cut the connection
                raise

    def _events(self) -> None:
        while not self.ended.is_set():
            for event in self.watch.stream(self.api.list_namespaced_pod, "default", label_selector=SELECTOR):
                now, pod = time.monotonic(), event["raw_object"]
                name, status = pod["metadata"]["name"], pod["status"]
                if event["type"] == "DELETED":
                    self.gone[name] = now
                elif status.get("phase") == "Running" and status.get("podIP") and name not in self.running:
                    self.running[name], self.addresses[name] = now, status["podIP"]
                    self.worker.tell(f"ask {status['podIP']}")
                if self.ended.is_set():
                    return

    def close(self) -> None:
        self.ended.set()
        self.watch.stop()


def manifest(kind: str, pods: int) -> dict[str, Any]:
    """A Deployment on the worker."""
    container: dict[str, Any] = {
        "name": "sensor",
        "image": f"{REGISTRY}/bench-{kind}:1",
        "imagePullPolicy": "IfNotPresent",
        "args": ["--period", "1", "--source", "simulated", "--port", "80"],
        "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "32Mi"}},
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
        **({"runtimeClassName": "runu"} if kind == "runu" else {"nodeSelector": {"type": "worker"}}),
    }
    labels = {"app": "bench"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    wanted = {"replicas": pods, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bench"}, "spec": wanted}


def measure(cluster: Cluster, worker: Worker, kind: str, count: int) -> dict[str, Any]:
    """Seconds from asking for a Deployment until each pod ran and had answered, from deleting it until all had ended, and memory."""
    apps = client.AppsV1Api(cluster.api.api_client)
    worker.answers.clear()
    pods = Pods(cluster.api, worker)
    try:
        begun = time.monotonic()
        apps.create_namespaced_deployment("default", manifest(kind, count))
        wait_for(f"{count} pods of {kind} to run", lambda: len(pods.running) == count, SECONDS)
        wait_for(f"{count} pods of {kind} to answer", lambda: len(worker.answers) == count, SECONDS)
        running = sorted(when - begun for when in pods.running.values())
        answered = sorted(when - begun for when in worker.answers.values())
        memory = worker.memory()
        deleted = time.monotonic()
        apps.delete_namespaced_deployment("bench", "default", propagation_policy="Foreground")
        ended = worker.ended() - deleted
        wait_for(f"{count} pods of {kind} to go", lambda: len(pods.gone) == count, SECONDS)
        gone = max(pods.gone.values()) - deleted
        wait_for("the Deployment to go", lambda: not apps.list_namespaced_deployment("default").items, SECONDS)
    finally:
        pods.close()
    left = worker.memory()
    assert "runu-qemu" not in left, left
    return {"kind": kind, "pods": count, "running": running, "answered": answered, "ended": ended, "gone": gone, "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure pods through the stock kubelet, runc and runu side by side")
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 10, 30, 50])
    parser.add_argument("--rounds", type=int, default=3, help="of up to 10 pods; more are measured once")
    parser.add_argument("--keep", type=Path, help="a directory for the lab, which stays up, for the next run to use")
    parser.add_argument("--json", type=Path, help="write every measurement to this file, for tools/bench")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        directory: Path = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(lab(directory, keep=options.keep is not None))
        worker = Worker(cluster)
        stack.callback(worker.close)
        for kind in KINDS:
            measure(cluster, worker, kind, 1)  # fetches the image
        for count in options.pods:
            for number in range(options.rounds if count <= 10 else 1):
                for kind in KINDS:
                    found.append(measure(cluster, worker, kind, count))
                    tell(f"{count} pods, round {number + 1}: {line_of(found[-1])}")
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")
    return 0


def line_of(one: dict[str, Any]) -> str:
    """For people who watch."""
    memory = sum(size for _count, size in one["memory"].values()) / one["pods"] / 1024
    up = f"all Running {one['running'][-1]:.1f} s, answered {one['answered'][-1]:.1f} s"
    return f"{one['kind']}: {up}, ended {one['ended']:.1f} s, gone {one['gone']:.1f} s, {memory:.1f} MiB a pod"


if __name__ == "__main__":
    sys.exit(main())
