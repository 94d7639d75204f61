# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the agent comes by its certificates and keeps them: tokens, requests, renewal. Nearly all of the time is spent waiting."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from tests.system.agent_process import Launcher, cluster, launch, wait_for
from tests.system.local_cluster import LocalCluster

__all__ = ["cluster", "launch"]

pytestmark = pytest.mark.system


def test_an_agent_killed_at_once_after_its_start_joins_without_littering_requests(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("littering", start=False)
    for moment in (0.6, 0.8, 1.0, 1.2):
        agent.start()
        time.sleep(moment)
        agent.end(signal.SIGKILL)
    agent.start()
    wait_for(agent.ready)
    pending = agent.directory / "state" / "pki" / "client.pem.pending"
    assert not pending.exists()
    requests = json.loads(cluster.kubectl("get", "csr", "-o", "json"))["items"]
    serving = [item for item in requests if item["spec"]["username"] == "system:node:littering"]
    assert len(serving) <= 1


def test_the_serving_certificate_replaces_the_self_signed_one_once_it_is_approved(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("serves")
    wait_for(agent.ready)

    def waiting() -> list[str]:
        items = json.loads(cluster.kubectl("get", "csr", "-o", "json"))["items"]
        return [item["metadata"]["name"] for item in items if item["spec"]["username"] == "system:node:serves"]

    names = wait_for(waiting)
    own = agent.directory / "state" / "pki" / "serving-self-signed.pem"
    issued = agent.directory / "state" / "pki" / "serving.pem"
    assert own.exists()
    assert not issued.exists()
    agent.end(signal.SIGKILL)
    agent.start()
    time.sleep(2)
    assert waiting() == names
    cluster.kubectl("certificate", "approve", names[0])
    wait_for(issued.exists)
    text = subprocess.run(["openssl", "x509", "-in", str(issued), "-noout", "-text"], capture_output=True, text=True, check=True).stdout
    assert "DNS:serves" in text
    assert "IP Address:127.0.0.1" in text


def test_the_client_certificate_is_renewed_by_itself_and_taken_over_without_a_break(launch: Launcher, cluster: LocalCluster) -> None:
    # Kubernetes 1.20 dates every certificate back by 5 minutes: of 375 seconds 75 are left.
    controller = cluster._programs["kube-controller-manager"]
    before = list(controller.argv)
    controller.argv.append("--cluster-signing-duration=375s")
    cluster.kill("kube-controller-manager")
    cluster.restart("kube-controller-manager")
    try:
        agent = launch("renews", labels={"sensor": "temperature"})
        wait_for(agent.ready)
        first = agent.certificate.read_text()
        wait_for(lambda: agent.certificate.read_text() != first, 120, 0.5)
        time.sleep(30)
        agent.write_labels({"sensor": "humidity"})
        wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "humidity")
        assert "401" not in agent.log
        agent.end(signal.SIGKILL)
        agent.directory.joinpath("token").write_text("gone")
        agent.start()
        agent.write_labels({"sensor": "pressure"})
        wait_for(lambda: agent.node()["metadata"]["labels"]["sensor"] == "pressure")
    finally:
        controller.argv[:] = before
        cluster.kill("kube-controller-manager")
        cluster.restart("kube-controller-manager")


def test_a_token_that_the_api_server_refuses_is_said_and_a_fresh_one_taken_over(launch: Launcher, cluster: LocalCluster) -> None:
    agent = launch("token", start=False)
    token = agent.directory / "token"
    good = token.read_text()
    token.write_text("abcdef.0123456789abcdef")
    agent.start()
    wait_for(lambda: "does not accept the bootstrap token" in agent.log)
    token.write_text(good)
    wait_for(agent.ready)
