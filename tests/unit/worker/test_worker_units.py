# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubelet and kube-proxy get flags and settings that their version knows, and registries the files that containerd reads."""

from __future__ import annotations

import pytest
import tomlkit
from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.filter.containerd_hosts import containerd_hosts
from ansible_collections.unifleet.hybrid.plugins.filter.worker_unit import worker_unit
from ansible_collections.unifleet.hybrid.plugins.host.router.main import forwarding_of, parse_arguments
from ansible_collections.unifleet.hybrid.plugins.module_utils import worker_units
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.worker_units import Worker

WORKER = Worker("worker1", sandbox_image="localhost/p:1")


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("1.20.2", {"container-runtime", "container-runtime-endpoint", "pod-infra-container-image"}, set()),
        ("1.26.0", {"container-runtime-endpoint", "pod-infra-container-image"}, {"container-runtime"}),
        ("1.27.0", set(), {"container-runtime", "container-runtime-endpoint", "pod-infra-container-image"}),
        ("1.35.1", {"node-labels", "bootstrap-kubeconfig"}, {"container-runtime-endpoint"}),
    ],
)
def test_flags_come_and_go_with_versions(version: str, has: set[str], lacks: set[str]) -> None:
    names = {argument.partition("=")[0][2:] for argument in worker_units.arguments("kubelet", version, WORKER)}
    assert has <= names
    assert not lacks & names


def test_new_kubelets_are_told_of_the_runtime_in_their_file() -> None:
    assert "containerRuntimeEndpoint" not in worker_units.configuration("kubelet", "1.26.1", WORKER)
    assert worker_units.configuration("kubelet", "1.33.1", WORKER)["containerRuntimeEndpoint"].startswith("unix://")


def test_an_old_kubelet_may_ask_the_api_server_as_often_as_a_new_one_does_by_itself() -> None:
    old = worker_units.configuration("kubelet", "1.26.1", WORKER)
    assert [old[key] for key in ("kubeAPIQPS", "kubeAPIBurst", "eventRecordQPS", "eventBurst")] == [50, 100, 50, 100]
    assert "kubeAPIQPS" not in worker_units.configuration("kubelet", "1.27.0", WORKER)


def test_the_kubelet_lets_nobody_in_unasked() -> None:
    config = worker_units.configuration("kubelet", "1.33.1", WORKER)
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["readOnlyPort"] == 0
    assert config["serverTLSBootstrap"] is True


def test_own_settings_are_laid_over_at_every_depth_and_null_removes() -> None:
    worker = Worker("w", kubelet={"authentication": {"webhook": {"cacheTTL": "1m"}, "x509": None}, "maxPods": 50})
    config = worker_units.configuration("kubelet", "1.33.1", worker)
    assert config["authentication"] == {"anonymous": {"enabled": False}, "webhook": {"enabled": True, "cacheTTL": "1m"}}
    assert config["maxPods"] == 50
    assert worker_units.configuration("kube-proxy", "1.33.1", Worker("w", proxy={"mode": "nftables"}))["mode"] == "nftables"


def test_pod_router_is_the_node_itself_and_forwards_for_all_pods() -> None:
    worker = Worker("worker1", pod_cidr="10.9.0.0/16")
    arguments = worker_units.arguments("pod-router", "1.33.1", worker)
    options = parse_arguments(arguments)
    assert (options.node, options.pods) == ("worker1", "10.9.0.0/16")
    assert str(options.kubeconfig) == worker_units.configuration("kube-proxy", "1.33.1", worker)["clientConnection"]["kubeconfig"]
    assert forwarding_of(options) is not None


def test_labels_and_taints_are_the_environment_so_that_a_change_of_them_is_none_of_the_unit() -> None:
    worker = Worker("w", labels={"b": "2", "a": ""}, taints={"dedicated:NoSchedule": "iot", "x/y:NoExecute": ""})
    assert worker_units.registration(worker) == {"NODE_LABELS": "a=,b=2", "NODE_TAINTS": "dedicated=iot:NoSchedule,x/y=:NoExecute"}
    unit = worker_unit("kubelet", "1.20.2", {"node_name": "w", "labels": {"a": "1"}})
    assert '"--node-labels=${NODE_LABELS}"' in unit["arguments"]
    assert unit["arguments"] == worker_unit("kubelet", "1.20.2", {"node_name": "w", "labels": {"a": "2"}})["arguments"]


def test_what_systemd_would_expand_is_quoted() -> None:
    arguments = worker_unit("kubelet", "1.20.2", {"node_name": "w", "node_ip": '1%n"$HOME'})["arguments"]
    assert '"--node-ip=1%%n\\"$$HOME"' in arguments


@pytest.mark.parametrize(
    ("program", "version", "settings"),
    [("etcd", "1.33.1", {"node_name": "w"}), ("kubelet", "1.2", {"node_name": "w"}), ("kubelet", "1.33.1", {"name": "w"})],
)
def test_an_unknown_program_version_or_setting_is_told(program: str, version: str, settings: dict[str, str]) -> None:
    with pytest.raises(AnsibleFilterError):
        worker_unit(program, version, settings)


def test_an_unknown_program_has_no_configuration() -> None:
    with pytest.raises(UnifleetError, match="no program|not a program"):
        worker_units.configuration("etcd", "1.33.1", WORKER)


def test_a_registry_without_tls_gets_a_hosts_file_that_says_so() -> None:
    (file,) = containerd_hosts({"192.0.2.7:5000": {"plain_http": True}}, "/etc/containerd/certs.d")
    assert file["path"] == "/etc/containerd/certs.d/192.0.2.7:5000/hosts.toml"
    assert tomlkit.parse(file["content"]).unwrap() == {
        "server": "http://192.0.2.7:5000",
        "host": {"http://192.0.2.7:5000": {"capabilities": ["pull", "resolve"]}},
    }


def test_mirrors_are_asked_first_and_docker_hub_has_its_own_address() -> None:
    (file,) = containerd_hosts({"docker.io": {"mirrors": ["https://mirror.example"], "ca": "/ca.pem"}}, "/d")
    document = tomlkit.parse(file["content"]).unwrap()
    assert document["server"] == "https://registry-1.docker.io"
    assert list(document["host"]) == ["https://mirror.example", "https://registry-1.docker.io"]


@pytest.mark.parametrize("registries", [{"../x": {}}, {"a/b": {}}, {"x": {"plainhttp": True}}, {"x:port": {}}])
def test_a_registry_that_cannot_be_is_named(registries: dict[str, dict[str, bool]]) -> None:
    with pytest.raises(AnsibleFilterError, match="registry"):
        containerd_hosts(registries, "/d")
