# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules write is what Debian's own containerd 1.6, 1.7 and 2.x understand, with all that was in the file before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from cluster import ROOT
from stock_containerd import SUITES, packages

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

FOREIGN = """\
# kept by hand
version = {version}
imports = ["{directory}/conf.d/*.toml"]

[plugins."{plugin}".containerd.runtimes.kata]  # another's
  runtime_type = "io.containerd.kata.v2"
"""
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}


class Stock:
    """A configuration file and the containerd of a Debian suite that reads it."""

    def __init__(self, suite: str, version: int, directory: Path) -> None:
        self.programs = packages(suite) / "usr/bin"
        self.version = version
        self.directory = directory
        self.config = directory / "config.toml"
        self.config.write_text(FOREIGN.format(version=version, directory=directory, plugin=PLUGINS[version]), encoding="utf-8")

    def module(self, module: str, /, **arguments: Any) -> dict[str, Any]:
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "collections")}
        done = subprocess.run(
            [sys.executable, str(ROOT / "plugins/modules" / f"{module}.py")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(self.config), **arguments}}),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        assert not answer.get("failed"), answer
        return answer

    def understood(self) -> dict[str, Any]:
        """The plugins' settings as containerd itself understands the file with all that it imports."""
        command = [str(self.programs / "containerd"), "--config", str(self.config), "config", "dump"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        plugins: dict[str, Any] = tomlkit.parse(done.stdout).unwrap()["plugins"]
        return plugins


@pytest.fixture(params=[("bookworm", 2), ("trixie", 2), ("sid", 2), ("sid", 3)], ids=lambda p: f"containerd {SUITES[p[0]]} version {p[1]}")
def stock(request: pytest.FixtureRequest, tmp_path: Path) -> Stock:
    return Stock(*request.param, tmp_path)


def cri(plugins: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plugins.get(PLUGINS[3]) or plugins[PLUGINS[2]]
    return found


def plugin_directories(plugins: dict[str, Any]) -> list[str]:
    """Where CNI plugins are looked for: 2.1 turned bin_dir into a list."""
    cni = cri(plugins)["cni"]
    return [cni["bin_dir"], *(cni.get("bin_dirs") or [])]


def test_a_runtime_and_the_settings_are_understood_and_nothing_of_others_is_lost(stock: Stock) -> None:
    settings = {
        "cni_bin_dir": "/own/cni",
        "cni_conf_template": "/t",
        "registry_config_path": "/own/certs.d",
        "sandbox_image": "localhost/p:1",
    }
    assert stock.module("containerd_config", systemd_cgroup=True, restrict_oom_score_adj=True, **settings)["changed"]
    runu = {
        "name": "runu",
        "binary": "/usr/local/bin/runu",
        "pod_annotations": ["io.unifleet.*"],
        "drop_in_directory": f"{stock.directory}/conf.d",
    }
    assert stock.module("containerd_runtime", **runu)["changed"]
    plugins = stock.understood()
    runtimes = cri(plugins)["containerd"]["runtimes"]
    assert runtimes["runu"]["runtime_type"] == "io.containerd.runc.v2"
    assert runtimes["runu"]["options"]["BinaryName"] == "/usr/local/bin/runu"
    assert runtimes["runu"]["pod_annotations"] == ["io.unifleet.*"]
    assert runtimes["kata"]["runtime_type"] == "io.containerd.kata.v2"
    assert runtimes["runc"]["options"]["SystemdCgroup"] is True
    assert "/own/cni" in plugin_directories(plugins)
    assert cri(plugins)["restrict_oom_score_adj"] is True
    images = plugins.get("io.containerd.cri.v1.images") or cri(plugins)
    assert images["registry"]["config_path"] == "/own/certs.d"
    assert (images.get("pinned_images", {}).get("sandbox") or images.get("sandbox_image")) == "localhost/p:1"
    assert stock.config.read_text(encoding="utf-8").startswith("# kept by hand\n")
    assert "# another's" in stock.config.read_text(encoding="utf-8")

    assert not stock.module("containerd_config", systemd_cgroup=True, restrict_oom_score_adj=True, **settings)["changed"]
    assert not stock.module("containerd_runtime", **runu)["changed"]
    assert stock.module("containerd_runtime", state="absent", **runu)["changed"]
    plugins = stock.understood()
    left = cri(plugins)
    assert "runu" not in left["containerd"]["runtimes"]
    assert "kata" in left["containerd"]["runtimes"]
    assert "/own/cni" in plugin_directories(plugins)


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_old_containerd_would_lose_everything_else_by_a_drop_in(suite: str, tmp_path: Path) -> None:
    """Why there is an editor at all: the day this fails, drop-ins are enough for that version."""
    stock = Stock(suite, 2, tmp_path)
    (tmp_path / "conf.d").mkdir()
    drop_in = f'version = 2\n[plugins."{PLUGINS[2]}".containerd.runtimes.runu]\n  runtime_type = "io.containerd.runc.v2"\n'
    (tmp_path / "conf.d/runu.toml").write_text(drop_in, encoding="utf-8")
    assert "kata" not in cri(stock.understood())["containerd"]["runtimes"]
