# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: what is asked for, how an answer is read, when the next one is due; and the other small parts around the node."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ansible_collections.unifleet.hybrid.plugins.host.daemon.notify import Notifier
from ansible_collections.unifleet.hybrid.plugins.host.kube.errors import ApiError
from ansible_collections.unifleet.hybrid.plugins.host.kubelet import keys
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.certificates import (
    CLIENT_SIGNER,
    SERVING_SIGNER,
    CertificateFile,
    CertificateInfo,
    DeniedError,
    Identity,
    LostError,
    ask_keys,
    inspect,
    keep,
    read_answer,
    request_body,
    request_name,
    self_sign,
)
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import Config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.credentials import bootstrap_credentials, cluster, node_identity
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.health import ProviderHealth
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.version import KUBELET_VERSION, UNIFLEET_VERSION
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Capacity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

ROOT = Path(__file__).resolve().parents[3]
NODE = Identity("system:node:pi1", ("pi1",), ("10.0.0.7", "fd00::1"))


def condition(kind: str) -> dict[str, Any]:
    return {"metadata": {"name": "r"}, "status": {"conditions": [{"type": kind, "status": "True", "message": "no way"}]}}


async def test_a_request_says_who_and_where_with_a_p256_key() -> None:
    made = await ask_keys(do="request", common_name=NODE.common_name, organization="system:nodes", dns=["pi1"], ips=["10.0.0.7"])
    request = x509.load_pem_x509_csr(made["request"].encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=system:node:pi1,O=system:nodes"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pi1"]
    assert keys.load_key(made["key"].encode()).curve.name == "secp256r1"


async def test_a_self_signed_certificate_is_for_the_whole_identity() -> None:
    info = await inspect(await self_sign(NODE))
    assert info.serves(NODE)
    assert not info.serves(replace(NODE, ips=("10.0.0.8",)))
    assert not info.serves(replace(NODE, common_name="system:node:pi2"))


async def test_what_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(UnifleetError, match="cannot inspect a certificate"):
        await inspect("nonsense")


@pytest.mark.parametrize(("signer", "usage"), [(CLIENT_SIGNER, "client auth"), (SERVING_SIGNER, "server auth")])
def test_the_usages_are_those_that_the_signer_accepts(signer: str, usage: str) -> None:
    assert request_body("n", signer, "pem")["spec"]["usages"] == ["digital signature", "key encipherment", usage]


def test_asking_the_same_twice_has_the_same_name() -> None:
    assert request_name("csr", "a") == request_name("csr", "a") != request_name("csr", "b")


def test_an_answer_is_a_certificate_or_waiting_or_denied() -> None:
    assert read_answer({"metadata": {"name": "r"}}) is None
    assert read_answer(condition("Approved")) is None
    assert read_answer({"metadata": {}, "status": {"certificate": base64.b64encode(b"PEM").decode()}}) == "PEM"
    for kind in ("Denied", "Failed"):
        with pytest.raises(DeniedError, match="no way"):
            read_answer(condition(kind))


def test_renewal_is_due_at_four_fifths_of_the_life_that_was_left_when_it_came() -> None:
    info = CertificateInfo(0.0, 1000.0, NODE)
    assert [info.renew_at(chance) for chance in (0.0, 0.5, 1.0)] == [750.0, 800.0, 850.0]
    assert replace(info, since=900.0).renew_at(0.5) == 980.0
    assert replace(info, since=5000.0).renew_at(0.5) == 1000.0


class Signer:
    """The certificates API: keeps requests, and signs them itself once approved."""

    def __init__(self) -> None:
        self.requests: dict[str, dict[str, Any]] = {}
        self.approves = True
        self.fails: list[ApiError] = []
        self.looks = 0

    async def get(self, path: str) -> dict[str, Any]:
        self.looks += 1
        if self.fails:
            raise self.fails.pop(0)
        name = path.rpartition("/")[2]
        if name not in self.requests:
            raise ApiError("none", 404, "NotFound")
        found = self.requests[name]
        if self.approves and "certificate" not in found.get("status", {}):
            pem = (await self_sign(NODE)).partition("-----BEGIN PRIVATE")[0]
            found["status"] = {"certificate": base64.b64encode(pem.encode()).decode()}
        return found

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.requests:
            raise ApiError("there", 409, "AlreadyExists")
        self.requests[name] = body
        return body


async def test_a_certificate_comes_with_its_key_in_one_private_file(tmp_path: Path) -> None:
    file, api = CertificateFile(tmp_path / "pki" / "client.pem", CLIENT_SIGNER), Signer()
    assert await file.current(NODE) is None
    await file.obtain(api, NODE, patience=0.01)  # type: ignore[arg-type]
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert "BEGIN CERTIFICATE" in file.path.read_text()
    assert "PRIVATE KEY" in file.path.read_text()
    assert await file.current(NODE) is not None
    assert not file.path.with_name("client.pem.pending").exists()


async def test_a_restart_takes_up_the_pending_request_instead_of_making_another(tmp_path: Path) -> None:
    api = Signer()
    api.approves = False
    for start in range(1, 4):
        file = CertificateFile(tmp_path / "c.pem", CLIENT_SIGNER)
        task = asyncio.ensure_future(file.obtain(api, NODE, 0.01))  # type: ignore[arg-type]
        while api.looks < 3 * start:
            await asyncio.sleep(0.01)
        task.cancel()
    assert len(api.requests) == 1
    api.approves = True
    await CertificateFile(tmp_path / "c.pem", CLIENT_SIGNER).obtain(api, NODE, 0.01)  # type: ignore[arg-type]
    assert len(api.requests) == 1


async def test_another_identity_asks_anew(tmp_path: Path) -> None:
    api = Signer()
    file = CertificateFile(tmp_path / "c.pem", SERVING_SIGNER)
    await file.obtain(api, NODE, 0.01)  # type: ignore[arg-type]
    assert await file.current(replace(NODE, ips=("10.9.9.9",))) is None
    await file.obtain(api, replace(NODE, ips=("10.9.9.9",)), 0.01)  # type: ignore[arg-type]
    assert len(api.requests) == 2


async def test_an_api_server_that_hiccups_is_asked_again_and_one_that_refuses_is_told(tmp_path: Path) -> None:
    api = Signer()
    api.fails = [ApiError("away", 0, "Unreachable"), ApiError("boom", 500, "InternalError")]
    await CertificateFile(tmp_path / "c.pem", CLIENT_SIGNER).obtain(api, NODE, 0.01)  # type: ignore[arg-type]
    api.fails = [ApiError("no", 401, "Unauthorized")]
    with pytest.raises(ApiError):
        await CertificateFile(tmp_path / "d.pem", CLIENT_SIGNER).obtain(api, NODE, 0.01)  # type: ignore[arg-type]


async def test_a_certificate_that_ended_is_no_certificate(tmp_path: Path) -> None:
    file = CertificateFile(tmp_path / "c.pem", CLIENT_SIGNER, clock=lambda: time.time() + 400 * 86400)
    (tmp_path / "c.pem").write_text(await self_sign(NODE))
    assert await file.current(NODE) is None


async def test_a_client_certificate_that_ended_ends_the_keeping(tmp_path: Path) -> None:
    file = CertificateFile(tmp_path / "c.pem", CLIENT_SIGNER)
    with pytest.raises(LostError):
        await keep(file, Signer(), lambda: NODE, lambda: None, needs_itself=True)  # type: ignore[arg-type]


async def test_a_missing_serving_certificate_is_asked_for_and_told(tmp_path: Path) -> None:
    told = asyncio.Event()
    task = asyncio.ensure_future(keep(CertificateFile(tmp_path / "c.pem", SERVING_SIGNER), Signer(), lambda: NODE, told.set))  # type: ignore[arg-type]
    await asyncio.wait_for(told.wait(), 20)
    task.cancel()


def test_a_token_is_needed_only_where_there_is_none(tmp_path: Path) -> None:
    config = Config(node_name="pi1", api_server="https://h:6443/", cluster_ca=Path("/ca"), bootstrap_token_file=tmp_path / "token")
    with pytest.raises(UnifleetError, match="cannot read the bootstrap token .*site playbook"):
        bootstrap_credentials(config)
    (tmp_path / "token").write_text("\n")
    with pytest.raises(UnifleetError, match="is empty"):
        bootstrap_credentials(config)
    (tmp_path / "token").write_text("abc.def\n")
    assert bootstrap_credentials(config).token == "abc.def"
    assert cluster(config).server == "https://h:6443"
    assert node_identity("pi1").common_name == "system:node:pi1"


def test_the_bootstrap_kubeconfig_may_go_after_the_host_has_joined(tmp_path: Path) -> None:
    config = Config(state_directory=tmp_path, bootstrap_kubeconfig=tmp_path / "bootstrap")
    (tmp_path / "pki").mkdir()
    users = [{"name": "u", "user": {}}]
    clusters = [{"name": "c", "cluster": {"server": "https://h:1", "certificate-authority-data": base64.b64encode(b"CA").decode()}}]
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
    document = {"current-context": "x", "contexts": contexts, "clusters": clusters, "users": users}
    (tmp_path / "pki" / "kubeconfig").write_text(json.dumps(document))
    assert cluster(config).ca_data == b"CA"
    with pytest.raises(UnifleetError, match="no valid client certificate and no bootstrap token"):
        bootstrap_credentials(config)


class Provider:
    """Answers as it is told."""

    kind = "scripted"

    def __init__(self, health: Callable[[], None]) -> None:
        self.health = health
        self.asked = 0

    def capacity(self) -> Capacity:
        return Capacity(1, 2, 3)


async def test_a_provider_that_hangs_is_sick_and_asked_only_once() -> None:
    gate, asked = threading.Event(), []

    def hang() -> None:
        asked.append(1)
        gate.wait(10)

    turned: list[bool] = []
    health = ProviderHealth(Provider(hang), 1.0, 0.05, lambda: turned.append(True))  # type: ignore[arg-type]
    assert "has not answered" in (await health.ask()).message
    assert "has not answered" in (await health.ask()).message
    assert len(asked) == 1
    gate.set()
    await asyncio.sleep(0.05)
    assert (await health.ask()).good
    assert health.capacity == Capacity(1, 2, 3)
    assert turned


@pytest.mark.parametrize("error", [UnifleetError("libvirtd is away"), ValueError("surprise")])
async def test_a_provider_that_fails_is_sick_in_its_own_words(error: Exception) -> None:
    def fail() -> None:
        raise error

    health = ProviderHealth(Provider(fail), 1.0, 1.0, lambda: None)  # type: ignore[arg-type]
    assert str(error) in (await health.ask()).message
    assert health.capacity is None


def test_systemd_hears_of_us_over_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())})
        notifier.tell("READY=1", "STATUS=up")
        assert listener.recv(100) == b"READY=1\nSTATUS=up"
        assert notifier.watchdog_seconds == 2.0


def test_without_systemd_or_for_another_process_nothing_is_said() -> None:
    Notifier({}).tell("READY=1")
    Notifier({"NOTIFY_SOCKET": "/nonexistent/socket"}).tell("READY=1")
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_seconds == 0.0


def test_the_version_is_the_collections_own_and_parses_as_kubernetes_does() -> None:
    galaxy = (ROOT / "galaxy.yml").read_text()
    assert f"version: {UNIFLEET_VERSION}\n" in galaxy
    assert KUBELET_VERSION.startswith("v1.20.0+unifleet.")
