# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as a pod's owner sees them: a real API server, the agent with its real image store, a real registry that may send anything.

Only the machines are simulated, so that what is seen is the pull and nothing else.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import Curve
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import digest_of
from tests.system.agent import SimulatedAgent
from tests.system.local_cluster import LocalCluster
from tests.system.loopback_registry import LoopbackRegistry
from tests.system.test_agent_pods import Cluster, local, until
from tests.system.test_image_pulls import Proxy, proxy, push
from tests.system.test_image_registry import registry

__all__ = ["local", "registry"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@pytest.fixture
def front(registry: LoopbackRegistry) -> Iterator[Proxy]:
    with proxy(registry.address) as made:
        yield made


@pytest.fixture
def cluster(local: LocalCluster, front: Proxy, tmp_path: Path) -> Iterator[Cluster]:
    images: Any = ImageStore(tmp_path / "store", front.address, (front.address,), "amd64", hypervisor="simulated")
    settings = PodSettings(log_directory=tmp_path / "logs", token_directory=tmp_path / "tokens", retry=Curve(2.0, 4.0))
    agent = SimulatedAgent(local, tmp_path / "agent", images=images, settings=settings).start()
    try:
        yield Cluster(local, agent)
    finally:
        agent.stop()
        local.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
        local.kubectl("delete", "node", agent.name)


def push_hostile(address: str, directory: Path) -> None:
    """An image whose only layer climbs out, pushed by hand; every digest in it is right."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("../../../../evil")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    body = layer.getvalue()
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(body)]}}).encode()
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": {"mediaType": f"{kind}config.v1+json", "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": f"{kind}layer.v1.tar", "digest": digest_of(body), "size": len(body)}],
    }
    folder = directory / "hostile"
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    for content in (body, config):
        (folder / digest_of(content)[7:]).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
    subprocess.run([*command, f"dir:{folder}", f"docker://{address}/hostile:1"], check=True)


def waiting(cluster: Cluster, name: str) -> dict[str, str]:
    found: dict[str, str] = cluster.state(name).get("state", {}).get("waiting") or {}
    return found


def told(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    listed = cluster.cluster.get("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={name}")
    return [(event["reason"], event["message"]) for event in listed["items"]]


def test_what_is_wrong_with_an_image_reaches_the_pods_owner_and_mends_itself(cluster: Cluster, front: Proxy, tmp_path: Path) -> None:
    push_hostile(front.upstream, tmp_path)
    push(front.upstream, tmp_path)
    cluster.apply("hostile", container={"image": "hostile:1"})
    until(lambda: waiting(cluster, "hostile").get("reason") == "ImagePullBackOff")
    message = waiting(cluster, "hostile")["message"]
    print(message)
    assert message.startswith('Back-off pulling image "hostile:1": ErrImagePull: image ')
    assert "'../../../../evil', which leads out of the image" in message
    reasons = told(cluster, "hostile")
    assert {"Pulling", "Failed", "BackOff"} <= {reason for reason, _message in reasons}
    assert ("Failed", "Error: ErrImagePull") in reasons
    assert any(reason == "Failed" and "leads out of the image" in text for reason, text in reasons)
    assert not list(tmp_path.rglob("evil"))
    assert list((tmp_path / "store/images").iterdir()) == []

    front.spoil = lambda body: body[:-9] + b"corrupt!!"
    cluster.apply("p", container={"image": "humidity-daemon"})
    until(lambda: waiting(cluster, "p").get("reason") in {"ErrImagePull", "ImagePullBackOff"})
    assert "Digest did not match" in waiting(cluster, "p")["message"]
    front.spoil = lambda body: body
    until(lambda: cluster.phase("p") == "Running")
    said = cluster.state("p")
    assert said["image"] == f"{front.address}/humidity-daemon:latest"
    assert cluster.pod("p")["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    pulled = dict(told(cluster, "p"))["Pulled"]
    print(pulled)
    assert pulled.startswith('Successfully pulled image "humidity-daemon" in ')
    assert "Image size: " in pulled

    cluster.apply("never", container={"image": "absent:1", "imagePullPolicy": "Never"})
    until(lambda: waiting(cluster, "never").get("reason") == "ErrImageNeverPull")
    assert ("ErrImageNeverPull", 'Container image "absent:1" is not present with pull policy of Never') in told(cluster, "never")
    cluster.apply("bad", container={"image": "Bad/Name:1"})
    until(lambda: waiting(cluster, "bad").get("reason") == "InvalidImageName")
    assert "InspectFailed" in {reason for reason, _text in told(cluster, "bad")}


def test_a_login_from_a_pull_secret_opens_the_default_registry(cluster: Cluster, front: Proxy, tmp_path: Path) -> None:
    push(front.upstream, tmp_path)
    front.login = "joe:right"
    for name, password in (("old", "wrong"), ("new", "right")):
        kubectl = cluster.cluster.kubectl
        kubectl(
            "create",
            "secret",
            "docker-registry",
            name,
            f"--docker-server={front.address}",
            "--docker-username=joe",
            f"--docker-password={password}",
        )
    cluster.apply(
        "p", container={"image": "humidity-daemon:latest"}, imagePullSecrets=[{"name": "missing"}, {"name": "old"}, {"name": "new"}]
    )
    until(lambda: cluster.phase("p") == "Running")
    reasons = told(cluster, "p")
    assert any(reason == "FailedToRetrieveImagePullSecret" and "missing" in text for reason, text in reasons)
    cluster.apply("stranger", container={"image": "humidity-daemon:latest", "imagePullPolicy": "Always"})
    until(lambda: "imagePullSecrets" in waiting(cluster, "stranger").get("message", ""))
    cluster.apply("again", container={"image": "humidity-daemon:latest", "imagePullPolicy": "IfNotPresent"})
    until(lambda: cluster.phase("again") == "Running")
    assert dict(told(cluster, "again"))["Pulled"].startswith('Container image "humidity-daemon:latest" already present on machine')
