# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real control plane as plain processes on free loopback ports: etcd, API server, controller manager, scheduler, no nodes.

For tests that need Kubernetes' own answers (admission, RBAC, watches) without hosts. It is made of the same certificates, flags
and objects as the role `control_plane`, so a test against it is a test of those too.

    with LocalCluster() as cluster:
        cluster.kubeconfig, cluster.server, cluster.ca, cluster.bootstrap_token(), cluster.kubectl("get", "nodes")

By hand: `python -m tests.system.local_cluster [--directory DIR]` runs one until Ctrl-C. Programs are looked for in
UNIFLEET_KUBERNETES_BIN, then in the newest build of the cache.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_objects, kubernetes_units, pki_cluster
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi

PROGRAMS = kubernetes_units.PROGRAMS


def find_programs() -> Path:
    """Directory with kube-apiserver and its siblings."""
    named = os.environ.get("UNIFLEET_KUBERNETES_BIN")
    cache = Path(os.environ.get("UNIFLEET_CACHE", Path.home() / ".cache/unifleet")) / "kubernetes"
    found = (
        [Path(named)]
        if named
        else sorted((path.parent for path in cache.glob("*/**/kube-apiserver")), key=lambda path: path.stat().st_mtime)
    )
    if not found or not (found[-1] / "kube-apiserver").exists():
        raise UnifleetError("no kube-apiserver found", "build it with the role kubernetes_binaries, or set UNIFLEET_KUBERNETES_BIN")
    return found[-1]


@dataclass
class _Program:
    name: str
    argv: list[str]
    process: subprocess.Popen[bytes]


class LocalCluster:
    """One cluster; a context manager. Nothing of it is left afterwards, unless a directory was given: that one is kept."""

    def __init__(
        self,
        directory: Optional[Path] = None,
        address: str = "127.0.0.1",
        signing_hours: int = 24,
        pod_networks: bool = False,
        **settings: Any,
    ) -> None:
        """pod_networks: nodes get a podCIDR. Kubernetes 1.20 waits ten seconds before that, with all its controllers."""
        self._given = directory
        self.address = address
        if not pod_networks:
            settings["extra"] = {"kube-controller-manager": {"allocate-node-cidrs": "false"}}
        self._settings = settings
        self._signing_hours = signing_hours
        self._programs: dict[str, _Program] = {}
        self._stack = contextlib.ExitStack()
        self.directory = Path()
        self.port = 0

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "pki" / "admin.kubeconfig"

    @property
    def ca(self) -> Path:
        """Certificate of the cluster's authority, PEM."""
        return self.directory / "pki" / "cluster-ca.crt"

    def __enter__(self) -> LocalCluster:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self._stop()

    def api(self) -> ClusterApi:
        """A connection as administrator."""
        return ClusterApi.from_kubeconfig(str(self.kubeconfig))

    def bootstrap_token(self, minutes: int = 30) -> str:
        """A fresh bootstrap token that the API server already accepts."""
        life, now = datetime.timedelta(minutes=minutes), datetime.datetime.now(datetime.timezone.utc)
        token, secret = kubernetes_objects.bootstrap_token(life, now, "tests")
        with self.api() as api:
            api.create("/api/v1/namespaces/kube-system/secrets", secret)
            time.sleep(0.2)
        return token

    def bootstrap_kubeconfig(self, path: Path, minutes: int = 30) -> Path:
        """Write a kubeconfig that holds nothing but a fresh bootstrap token."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.server, "certificate-authority-data": _b64(self.ca.read_bytes())}}],
            "users": [{"name": "bootstrap", "user": {"token": self.bootstrap_token(minutes)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "bootstrap"}}],
            "current-context": "c",
        }
        path.touch(0o600)
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """What the API server answers the administrator: for what is asked again and again, as a kubectl takes a tenth of a second each."""
        with self.api() as api:
            return api.get(path, **query)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Output of kubectl as administrator; CalledProcessError when it fails."""
        program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}") or "kubectl"
        argv = [program, f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(argv, input=stdin, check=True, capture_output=True, text=True, timeout=60).stdout

    def kill(self, program: str) -> None:
        """End one program with SIGKILL, as a crash would."""
        self._programs[program].process.kill()
        self._programs[program].process.wait()

    def restart(self, program: str) -> None:
        """Start a killed program again on the same state, and wait for the API server to be ready."""
        self._launch(program, self._programs[program].argv)
        self._wait_ready()

    def pids(self) -> dict[str, int]:
        return {name: program.process.pid for name, program in self._programs.items()}

    def _start(self) -> None:
        binaries = find_programs()
        etcd = shutil.which("etcd") or "/usr/bin/etcd"
        if self._given:
            self.directory = self._given
            self.directory.mkdir(parents=True, exist_ok=True)
        else:
            self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="unifleet-cluster-")))
        ports = _free_ports(self.address, 5)
        self.port = ports[0]
        credentials = self.directory / "pki"
        credentials.mkdir(exist_ok=True)
        names = pki_cluster.ClusterNames("local", (self.address,), port=self.port)
        existing = {path.name: path.read_bytes() for path in credentials.iterdir()}
        outcome = pki_cluster.complete(existing, names, pki_cluster.Lifetimes(), datetime.datetime.now(datetime.timezone.utc))
        for name, content in outcome.files.items():
            path = credentials / name
            path.touch(pki_cluster.file_mode(name))
            path.write_bytes(content.replace(f"https://127.0.0.1:{self.port}".encode(), self.server.encode()))
        plane = kubernetes_units.ControlPlane(
            address=self.address,
            bind_address=self.address,
            credentials=str(credentials),
            port=self.port,
            etcd_data=str(self.directory / "etcd"),
            etcd_port=ports[1],
            etcd_peer_port=ports[2],
            controller_manager_port=ports[3],
            scheduler_port=ports[4],
            client_certificate_hours=self._signing_hours,
            **self._settings,
        )
        version = subprocess.run([binaries / "kube-apiserver", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
        for program in PROGRAMS:
            executable = etcd if program == "etcd" else str(binaries / program)
            self._launch(program, [executable, *kubernetes_units.command_line(program, version, plane)])
            if program == "kube-apiserver":
                self._wait_ready()
                with self.api() as api:
                    for change in kubernetes_objects.pending_changes(api, kubernetes_objects.cluster_roles()):
                        kubernetes_objects.apply(api, change)

    def _launch(self, program: str, argv: list[str]) -> None:
        environment = {**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"} if os.uname().machine == "aarch64" else dict(os.environ)
        with (self.directory / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        self._programs[program] = _Program(program, argv, process)

    def _wait_ready(self, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while True:
            for program in self._programs.values():
                if program.process.poll() is not None:
                    tail = (self.directory / f"{program.name}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise UnifleetError(f"{program.name} ended with {program.process.returncode}: {tail}")
            try:
                with self.api() as api:
                    api.wait_ready(1)
            except UnifleetError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def _stop(self) -> None:
        for program in reversed(list(self._programs.values())):
            program.process.kill()
            program.process.wait()
        self._programs.clear()
        self._stack.close()


def _free_ports(address: str, count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _number in range(count)]
        for item in sockets:
            item.bind((address, 0))
        return [item.getsockname()[1] for item in sockets]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a Kubernetes control plane on loopback until Ctrl-C or SIGTERM.")
    parser.add_argument("--directory", type=Path, help="keep the cluster's state here (default: a directory that goes with it)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--pod-networks", action="store_true", help="give nodes a podCIDR")
    parser.add_argument("--signing-hours", type=int, default=24, help="life of the certificates that nodes get (default: %(default)s)")
    options = parser.parse_args()
    with LocalCluster(options.directory, options.address, options.signing_hours, options.pod_networks) as cluster:
        facts = {"kubeconfig": str(cluster.kubeconfig), "ca": str(cluster.ca), "server": cluster.server, "token": cluster.bootstrap_token()}
        print(json.dumps({**facts, "pids": cluster.pids()}), flush=True)
        with _until_interrupted():
            signal.pause()


if __name__ == "__main__":
    main()
