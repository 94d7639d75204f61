# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and manifests for a worker: an ordinary container of busybox, and unikernels beside it. No registry but the lab's is asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import Link

COMMANDS = ("cat", "echo", "hostname", "httpd", "mkdir", "sh", "sleep", "wget")
BUSYBOX = Path("/bin/busybox")
"""Of Debian's busybox-static."""


def busybox(name: str) -> bytes:
    """The machine's static busybox as an OCI archive."""
    files: dict[str, Any] = {"bin/busybox": (BUSYBOX.read_bytes(), True)}
    files.update({f"bin/{command}": Link("/bin/busybox") for command in COMMANDS})
    return archive(ContainerImage(name, "amd64", files, args=("/bin/sh",), env=("PATH=/bin",)))


def push_busybox(registry: str, scratch: Path) -> str:
    """Push it to the lab's registry; the image's name."""
    name = f"{registry}/busybox:1"
    packed = scratch / "busybox.tar"
    packed.write_bytes(busybox(name))
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{packed}", f"docker://{name}"]
    subprocess.run(command, check=True, capture_output=True)
    return name


def container(image: str, name: str = "web", port: int = 80) -> dict[str, Any]:
    """An ordinary container that says a line and serves a page."""
    script = f"mkdir -p /www; echo page of {name} >/www/index.html; echo {name} serves; exec httpd -f -p {port} -h /www"
    return {"name": name, "image": image, "command": ["/bin/sh", "-c", script], "resources": {"limits": {"memory": "32Mi"}}}


def unikernel(registry: str) -> dict[str, Any]:
    """The sensor unikernel, a reading a second."""
    return {
        "name": "sensor",
        "image": f"{registry}/sensor:latest",
        "args": ["--sensor", "humidity", "--period", "1", "--source", "simulated"],
        "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}},
    }


def spec(containers: list[dict[str, Any]], runtime_class: str = "") -> dict[str, Any]:
    """A pod's spec for the worker."""
    wanted = {"runtimeClassName": runtime_class} if runtime_class else {"nodeSelector": {"type": "worker"}}
    return {
        **wanted,
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        "dnsPolicy": "Default",
        "containers": containers,
    }


def pod(name: str, containers: list[dict[str, Any]], runtime_class: str = "") -> str:
    """The manifest of one pod."""
    metadata = {"name": name, "labels": {"app": name}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(containers, runtime_class)})


def deployment(name: str, replicas: int, containers: list[dict[str, Any]], runtime_class: str = "") -> str:
    """The manifest of a Deployment."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec(containers, runtime_class)}
    wanted = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted})


def service(name: str, port: int = 80) -> str:
    """The manifest of a Service in front of the pods with that label."""
    wanted = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted})
