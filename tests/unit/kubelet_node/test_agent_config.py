# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file: every key known and typed, every mistake told by file and key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import PROVIDER_TAINT, Config, parse_config, read_config
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.main import main, parse_arguments
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import Taint

BASE = 'api_server = "https://h:6443"\ncluster_ca = "/ca.pem"\n'


def read(tmp_path: Path, text: str, **flags: Any) -> Config:
    path = tmp_path / "vk.toml"
    path.write_text(text)
    return read_config(path, flags)


def test_a_whole_file_is_understood(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        BASE
        + 'provider = "kvm"\nnode_name = "Pi1"\nmax_pods = 20\n[server]\nport = 0\n[reserve]\nmemory_bytes = 1\n[timing]\nlease_renew = 5\n'
        + '[taints]\n"dedicated:NoExecute" = "iot"\n[labels]\n"example.com/a" = "b"\n[images]\ninsecure_registries = ["r:5000"]\n'
        + '[machines]\naccelerator = "tcg"\n[pods]\nhold_off = 5\n',
    )
    assert (config.provider, config.node_name, config.max_pods, config.server.port) == ("kvm", "pi1", 20, 0)
    assert config.reserve.memory_bytes == 1
    assert config.timing.lease_renew == 5.0
    assert config.taints == (PROVIDER_TAINT, Taint("dedicated", "NoExecute", "iot"))
    assert config.labels == {"example.com/a": "b"}
    assert config.images.insecure_registries == ("r:5000",)
    assert config.machines.accelerator == "tcg"
    assert config.pods == {"hold_off": 5}


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    text = BASE + 'provider = "kvm"\nnode_ip = "10.0.0.1"\n[server]\nport = 1\n'
    config = read(tmp_path, text, provider="simulated", port=2, node_name=None)
    assert (config.provider, config.server.port, config.node_ip, config.max_pods) == ("simulated", 2, "10.0.0.1", 110)


def test_the_pod_network_is_there_unless_it_is_refused(tmp_path: Path) -> None:
    assert (read(tmp_path, BASE).network.bridge, read(tmp_path, BASE).network.routes) == ("unifleet0", True)
    network = read(tmp_path, BASE + "[network]\nbridge = ''\nroutes = false\ncluster_dns = ['10.96.0.10']\n").network
    assert (network.bridge, network.routes, network.cluster_dns) == ("", False, ("10.96.0.10",))


def test_the_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "vk.json"
    path.write_text('{"api_server": "https://h", "cluster_ca": "/ca", "node_name": "a"}')
    assert read_config(path).node_name == "a"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("provder = 'kvm'\n", "unknown key 'provder'"),
        ("provider = 'docker'\n", "provider is 'docker'"),
        ("provider = 5\n", "provider must be a string"),
        ("max_pods = 'many'\n", "max_pods must be a number"),
        ("max_pods = true\n", "max_pods must be a number"),
        ("max_pods = -1\n", "max_pods is -1, out of range"),
        ("log_level = 'loud'\n", "log_level is 'loud'"),
        ("node_name = 'a b'\n", "node_name 'a b'"),
        ("node_ip = '1.2.3'\n", "not an IP address"),
        ("state_directory = 5\n", "state_directory must be the path"),
        ("server = 5\n", r"\[server\] is not a table"),
        ("[server]\nprot = 1\n", r"\[server\]: unknown key 'prot'"),
        ("[server]\nport = 70000\n", "port is 70000"),
        ("[timing]\nlease_renew = 30\n", "lease_renew is more than half"),
        ("[taints]\n'a:Never' = ''\n", "'a:Never'"),
        ("[images]\ninsecure_registries = 'r'\n", "insecure_registries must be a list"),
        ("[machines]\naccelerator = 'hax'\n", "accelerator is 'hax'"),
        ("[network]\nbridge = 'a/b'\n", "bridge 'a/b' is no name of a network interface"),
        ("[network]\nbridge = 'sixteen-letters.'\n", "no name of a network interface"),
        ("[network]\nroutes = 1\n", "routes must be true or false"),
        ("[network]\ncluster_dns = ['dns.example']\n", "cluster_dns must be a list of IPv4 addresses"),
        ("labels = 5\n", "'labels' is not a table"),
        ("a = \n", "not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UnifleetError, match=why) as caught:
        read(tmp_path, BASE + text)
    assert "vk.toml" in str(caught.value)


def test_without_a_way_to_the_cluster_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="api_server and cluster_ca not set"):
        read(tmp_path, "")
    assert read(tmp_path, "", kubeconfig="/k").kubeconfig == Path("/k")


def test_a_file_that_is_not_there_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="does not exist"):
        read_config(tmp_path / "none.toml")


def test_an_empty_document_is_all_defaults() -> None:
    assert parse_config({}, "x") == Config()


def test_check_config_names_every_refused_label_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vk.toml"
    path.write_text(BASE)
    code = main(["--config", str(path), "--check-config", "--node-labels", "kubernetes.io/role=x,a b=c", "--node-labels", "ok=1"])
    lines = capsys.readouterr().err.splitlines()
    assert code == 78
    assert len([line for line in lines if "the flag --node-labels: label" in line]) == 2


def test_a_host_whose_python_has_no_toml_of_its_own_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vk.toml"
    path.write_text(BASE)
    expected = read_config(path)
    for newer in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, newer, None)
    assert read_config(path) == expected
    path.write_text("a = [")
    with pytest.raises(UnifleetError, match=r"vk\.toml"):
        read_config(path)


def test_check_config_says_ok_and_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vk.toml"
    path.write_text(BASE + 'provider = "kvm"\n')
    assert main(["--config", str(path), "--check-config"]) == 0
    assert "provider kvm" in capsys.readouterr().out


def test_check_config_reads_the_pods_table_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vk.toml"
    path.write_text(BASE + "[pods]\nnonsense = 1\n")
    assert main(["--config", str(path), "--check-config"]) == 78
    assert "nonsense" in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--provider", "--node-labels", "--config", "--labels-file", "--check-config", "UNIFLEET_NODE_LABELS"):
        assert flag in text


def test_images_are_configured_whole(tmp_path: Path) -> None:
    text = '[images]\nprefetch = ["humidity-daemon"]\ngc_high_bytes = 100\ngc_maximum_age = 3600\n'
    text += '[images.registries."r:5000"]\ninsecure = true\n'
    images = read(tmp_path, BASE + text).images
    assert (images.prefetch, images.registries["r:5000"].insecure) == (("humidity-daemon",), True)
    assert (images.limits.high_percent, images.limits.low_percent, images.limits.minimum_age) == (85.0, 80.0, 120.0)
    assert (images.limits.high_bytes, images.limits.maximum_age) == (100, 3600.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gc_high_percent = 50", "gc_low_percent 80 and gc_high_percent 50"),
        ("gc_high_percent = 101", "do not fit together"),
        ("gc_high_bytes = 5\ngc_low_bytes = 6", "gc_low_bytes 6 is more"),
        ("gc_maximum_age = 5", "gc_maximum_age 5 is less"),
        ("gc_period = 0", "gc_period"),
        ("prefetch = ['Bad Name']", "prefetch: image reference"),
        ("prefetch = 'a'", "list of image references"),
        ("registries = 1", "registries is not a table"),
        ("gc_high = 1", "unknown key 'gc_high'"),
    ],
)
def test_wrong_image_settings_are_told_by_key(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UnifleetError, match=why):
        read(tmp_path, BASE + "[images]\n" + text + "\n")
