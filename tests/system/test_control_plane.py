# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real control plane, on loopback: who gets in, what joins, what is approved, what is sealed, and where its programs come from."""

from __future__ import annotations

import base64
import datetime
import functools
import http.server
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_objects as objects
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ApiRefusedError, ClusterApi
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_sources import COMPONENTS, sha256_of
from tests.system.local_cluster import LocalCluster, find_programs

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as running:
        yield running


def connect(cluster: LocalCluster, token: str = "", certificate: bytes = b"", key: bytes = b"", directory: Path = Path()) -> ClusterApi:
    context = ssl.create_default_context(cafile=str(cluster.ca))
    if certificate:
        (directory / "client.pem").write_bytes(certificate + key)
        context.load_cert_chain(str(directory / "client.pem"))
    where = urlsplit(cluster.server)
    return ClusterApi(where.hostname or "", where.port or 0, context, token)


def make_request(node: str, names: list[x509.GeneralName]) -> tuple[bytes, bytes]:
    """(key, certificate request) of a node, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def ask(api: ClusterApi, name: str, signer: str, usage: str, content: bytes) -> None:
    spec = {
        "signerName": f"kubernetes.io/{signer}",
        "usages": ["digital signature", "key encipherment", usage],
        "request": base64.b64encode(content).decode(),
    }
    body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}
    api.create(REQUESTS, body)


def issued(api: ClusterApi, name: str, seconds: float = 20) -> bytes:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        certificate = api.get(f"{REQUESTS}/{name}").get("status", {}).get("certificate")
        if certificate:
            return base64.b64decode(certificate)
        time.sleep(0.2)
    raise AssertionError(f"{name} was not signed in {seconds} s")


def join(cluster: LocalCluster, node: str, directory: Path) -> ClusterApi:
    """As an agent does: by a bootstrap token to the node's own identity."""
    key, content = make_request(node, [])
    with connect(cluster, cluster.bootstrap_token()) as api:
        ask(api, f"client-{node}", "kube-apiserver-client-kubelet", "client auth", content)
        return connect(cluster, certificate=issued(api, f"client-{node}"), key=key, directory=directory)


def module(name: str, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run one module of the collection through Ansible on the controller; its result."""
    argv = [
        str(Path(sys.executable).parent / "ansible"),
        "localhost",
        "-i",
        "x,",
        "-m",
        f"unifleet.hybrid.{name}",
        "-a",
        json.dumps(arguments),
    ]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    output = subprocess.run([*argv, *options], check=False, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240).stdout
    result: dict[str, Any] = json.loads(output[output.index("=> ") + 3 :])
    return result


@pytest.mark.parametrize("path", ["/version", "/healthz", "/readyz", "/api", "/api/v1/nodes", "/metrics", "/openapi/v2"])
def test_nobody_is_anonymous(cluster: LocalCluster, path: str) -> None:
    with connect(cluster) as api, pytest.raises(ApiRefusedError) as refused:
        api.get(path)
    assert refused.value.status == 401


def test_a_joining_host_may_ask_for_its_certificate_and_for_nothing_else(cluster: LocalCluster) -> None:
    with connect(cluster, cluster.bootstrap_token()) as api:
        for path in ("/api/v1/nodes", "/api/v1/secrets", SECRETS, "/api/v1/pods"):
            with pytest.raises(ApiRefusedError) as refused:
                api.get(path)
            assert refused.value.status == 403
        _key, content = make_request("greedy", [])
        ask(api, "greedy", "kube-apiserver-client", "client auth", content)
        time.sleep(2)
        assert not api.get(f"{REQUESTS}/greedy").get("status")


def test_an_expired_token_opens_nothing(cluster: LocalCluster) -> None:
    long_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=2)
    token, secret = objects.bootstrap_token(datetime.timedelta(minutes=5), long_ago, "expired")
    with cluster.api() as api:
        api.create(SECRETS, secret)
    with connect(cluster, token) as stranger, pytest.raises(ApiRefusedError) as refused:
        stranger.get("/api")
    assert refused.value.status == 401


def test_a_joined_node_is_itself_and_no_other(cluster: LocalCluster, tmp_path: Path) -> None:
    with join(cluster, "n1", tmp_path) as node:
        node.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"sensor": "humidity"}}})
        with pytest.raises(ApiRefusedError, match="is not allowed to modify node|cannot"):
            node.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}})
        with pytest.raises(ApiRefusedError, match=r"node-restriction|not allowed to modify labels"):
            node.patch("/api/v1/nodes/n1", {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})
        with pytest.raises(ApiRefusedError) as refused:
            node.get(SECRETS)
        assert refused.value.status == 403
    assert '"sensor":"humidity"' in cluster.kubectl("get", "node", "n1", "-o", "jsonpath={.metadata.labels}")


def test_serving_certificates_are_approved_for_the_inventorys_names_and_refused_for_others(cluster: LocalCluster, tmp_path: Path) -> None:
    arguments = {"kubeconfig": str(cluster.kubeconfig), "nodes": {"pi1": ["10.77.0.13"], "ghost": []}}
    honest = [x509.DNSName("pi1"), x509.IPAddress(ipaddress.ip_address("10.77.0.13"))]
    with join(cluster, "pi1", tmp_path) as node:
        ask(node, "good", "kubelet-serving", "server auth", make_request("pi1", honest)[1])
        ask(node, "bad", "kubelet-serving", "server auth", make_request("pi1", [*honest, x509.DNSName("kubernetes.default.svc")])[1])
        promised = module("serving_certificates", arguments, "--check")
        assert (promised["changed"], promised["approved"]) == (True, ["pi1"])
        assert not node.get(f"{REQUESTS}/good").get("status")
        done = module("serving_certificates", arguments)
        assert done["approved"] == ["pi1"]
        assert [item["request"] for item in done["refused"]] == ["bad"]
        assert "kubernetes.default.svc" in done["refused"][0]["why"]
        served = x509.load_pem_x509_certificate(issued(node, "good"))
        served.verify_directly_issued_by(x509.load_pem_x509_certificate(cluster.ca.read_bytes()))
        assert not node.get(f"{REQUESTS}/bad").get("status")
    assert module("serving_certificates", arguments)["changed"] is False
    missing = module("serving_certificates", {**arguments, "wait_for": ["ghost"], "wait": 1})
    assert "no request for a serving certificate came from ghost" in missing["msg"]


def test_a_token_is_made_only_for_hosts_that_have_not_joined(cluster: LocalCluster) -> None:
    arguments = {"kubeconfig": str(cluster.kubeconfig)}
    assert module("bootstrap_token", {**arguments, "nodes": []})["changed"] is False
    assert module("bootstrap_token", {**arguments, "nodes": ["pi9"]}, "--check")["token"] == ""
    made = module("bootstrap_token", {**arguments, "nodes": ["pi9"], "minutes": 5})
    with connect(cluster, made["token"]) as api:
        assert api.get("/api")["kind"] == "APIVersions"
    assert "between one minute and one hour" in module("bootstrap_token", {**arguments, "nodes": ["pi9"], "minutes": 600})["msg"]


def test_objects_are_applied_once_and_drift_is_mended(cluster: LocalCluster) -> None:
    wanted = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "runu", "labels": {"a": "b"}}, "handler": "runu"}
    arguments = {"kubeconfig": str(cluster.kubeconfig), "objects": [wanted], "cluster_roles": True}
    assert module("kubernetes_objects", arguments, "--check")["applied"] == ["RuntimeClass/runu"]
    assert module("kubernetes_objects", arguments)["applied"] == ["RuntimeClass/runu"]
    assert module("kubernetes_objects", arguments)["changed"] is False
    cluster.kubectl("label", "--overwrite", "runtimeclass", "runu", "a=other", "theirs=stays")
    cluster.kubectl("delete", "clusterrolebinding", "unifleet:bootstrap")
    cluster.kubectl("create", "clusterrolebinding", "unifleet:bootstrap", "--clusterrole=view", "--user=somebody")
    assert sorted(module("kubernetes_objects", arguments)["applied"]) == ["ClusterRoleBinding/unifleet:bootstrap", "RuntimeClass/runu"]
    assert json.loads(cluster.kubectl("get", "runtimeclass", "runu", "-o", "jsonpath={.metadata.labels}")) == {"a": "b", "theirs": "stays"}
    assert "system:node-bootstrapper" in cluster.kubectl("get", "clusterrolebinding", "unifleet:bootstrap", "-o", "yaml")
    assert "no kind Nonsense" in module("kubernetes_objects", {**arguments, "objects": [{**wanted, "kind": "Nonsense"}]})["msg"]


def test_secrets_are_sealed_in_etcd_and_other_things_are_not(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "secret", "generic", "sealed", "--from-literal=word=swordfish-in-a-secret")
    cluster.kubectl("create", "configmap", "plain", "--from-literal=word=swordfish-in-a-configmap")
    stored = b"".join(path.read_bytes() for path in (cluster.directory / "etcd").rglob("*") if path.is_file())
    assert b"swordfish-in-a-configmap" in stored
    assert b"swordfish-in-a-secret" not in stored
    assert b"k8s:enc:secretbox:v1:key1:" in stored
    assert cluster.kubectl("get", "secret", "sealed", "-o", "jsonpath={.data.word}") == base64.b64encode(b"swordfish-in-a-secret").decode()


def test_etcd_answers_nobody_without_a_certificate_of_its_own_authority(cluster: LocalCluster) -> None:
    command = Path(f"/proc/{cluster.pids()['etcd']}/cmdline").read_text().split("\0")
    where = urlsplit(next(item.split("=", 1)[1] for item in command if item.startswith("--listen-client-urls=")))
    context = ssl.create_default_context(cafile=str(cluster.directory / "pki/etcd-ca.crt"))
    for pair in ((), ("admin.crt", "admin.key")):
        if pair:
            context.load_cert_chain(*(str(cluster.directory / "pki" / name) for name in pair))
        with (
            ClusterApi(where.hostname or "", where.port or 0, context) as api,
            pytest.raises(UnifleetError, match=r"(?i)alert|certificate|eof|reset|closed"),
        ):
            api.get("/version")
    context.load_cert_chain(*(str(cluster.directory / "pki" / f"apiserver-etcd-client.{end}") for end in ("crt", "key")))
    with ClusterApi(where.hostname or "", where.port or 0, context) as api:
        assert api.get("/version")["etcdserver"].startswith("3.")


def test_the_api_server_comes_back_after_a_crash_with_everything_it_knew(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    cluster.kill("kube-apiserver")
    cluster.restart("kube-apiserver")
    assert cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"


class ReleaseSite(http.server.SimpleHTTPRequestHandler):
    """Serves programs under the layout of a release site; a version 9.9.9 that is cut short, another that is not there."""

    def translate_path(self, path: str) -> str:
        return str(Path(self.directory) / path.rsplit("/", 1)[-1]) if "/v1.20.2/" in path or "/v9.9.9/" in path else "/nonexistent"

    def do_GET(self) -> None:
        if "/v9.9.9/" not in self.path:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"short")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A release site on loopback that serves the programs that are really used."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(ReleaseSite, directory=str(find_programs()))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/release"
        server.shutdown()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    return {name: sha256_of(find_programs() / name) for name in COMPONENTS}


def release(site: str, cache: Path, pins: dict[str, str], **changes: Any) -> dict[str, Any]:
    table = {"1.20.2": {"amd64": pins}}
    arguments = {
        "source": "release",
        "url": site,
        "cache": str(cache),
        "architectures": ["amd64"],
        "components": ["kube-proxy"],
        "checksums": table,
    }
    return module("kubernetes_binaries", {**arguments, **changes})


def test_a_pinned_release_is_fetched_once_and_runs(site: str, pins: dict[str, str], tmp_path: Path) -> None:
    first = release(site, tmp_path, pins)
    program = first["programs"]["amd64"]["kube-proxy"]
    assert (first["changed"], first["version"], program["sha256"]) == (True, "1.20.2", pins["kube-proxy"])
    assert subprocess.run([program["path"], "--version"], check=True, capture_output=True, text=True).stdout == "Kubernetes v1.20.2\n"
    assert release(site, tmp_path, pins)["changed"] is False


def test_auto_takes_the_release_when_the_site_answers_and_says_so(site: str, pins: dict[str, str], tmp_path: Path) -> None:
    result = release(site, tmp_path, pins, source="auto")
    assert result["source"] == "release"
    assert "answers" in result["why"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"checksums": {"1.20.2": {"amd64": {"kube-proxy": "0" * 64}}}}, "SHA-256 is "),
        ({"checksums": {"9.9.9": {"amd64": {"kube-proxy": "0" * 64}}}}, "ended before the file did"),
        ({"checksums": {"8.8.8": {"amd64": {"kube-proxy": "0" * 64}}}}, "answers 404"),
        ({"version": "1.34.0"}, "Kubernetes 1.34.0 is not pinned"),
        ({"architectures": ["amd64", "arm64"]}, "not pinned for arm64"),
        (
            {"components": ["kube-proxy", "kubelet"], "checksums": {"1.20.2": {"amd64": {"kube-proxy": "0" * 64}}}},
            "kubelet of Kubernetes 1.20.2",
        ),
        ({"checksums": {}}, "needs kubernetes_binaries_checksums"),
        ({"checksums": {"1.19.0": {"amd64": {"kube-proxy": "0" * 64}}}}, "older than 1.20"),
    ],
)
def test_a_release_that_cannot_be_trusted_is_refused_by_name(
    site: str, pins: dict[str, str], tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    result = release(site, tmp_path, pins, **changes)
    assert "programs" not in result
    assert named in result["msg"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".part"]


def test_a_directory_is_taken_as_it_is_and_checked_for_its_architecture(tmp_path: Path) -> None:
    arguments = {"source": "directory", "directory": str(find_programs()), "architectures": ["amd64"], "components": ["kubelet"]}
    assert module("kubernetes_binaries", arguments)["version"] == "1.20.2"
    assert "is for amd64, not for arm64" in module("kubernetes_binaries", {**arguments, "architectures": ["arm64"]})["msg"]
    assert "does not exist" in module("kubernetes_binaries", {**arguments, "directory": str(tmp_path)})["msg"]
