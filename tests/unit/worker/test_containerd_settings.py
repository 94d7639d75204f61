# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's configuration gets what Kubernetes and runu need in the tables of its version, and keeps what others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import CriSettings, Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

ROOT = Path(__file__).resolve().parents[3]
RUNU = Runtime("runu", options={"BinaryName": "/usr/local/bin/runu"})
TALK = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runu] # as the talk has it
  runtime_type = "io.containerd.runtime.runu.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runu.options]
    BinaryName = "/usr/local/bin/runu"
"""


def runtimes(text: str) -> dict[str, Any]:
    plugins = tomlkit.parse(text).unwrap()["plugins"]
    cri = plugins.get("io.containerd.cri.v1.runtime") or plugins["io.containerd.grpc.v1.cri"]
    return dict(cri["containerd"]["runtimes"])


@pytest.mark.parametrize(("version", "plugin"), [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")])
def test_a_runtime_is_put_into_the_table_that_the_version_of_the_file_wants(version: int, plugin: str) -> None:
    text = containerd_settings.with_runtime(f"version = {version}\n", version, RUNU, "config.toml")
    assert f'[plugins."{plugin}".containerd.runtimes.runu]' in text
    assert runtimes(text)["runu"] == {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/local/bin/runu"}}


def test_a_runtime_that_is_there_already_changes_no_byte_however_it_is_written() -> None:
    text = (
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes]\n'
        'runu = {runtime_type = "io.containerd.runc.v2", options = {BinaryName = "/usr/local/bin/runu"}}\n'
    )
    assert containerd_settings.with_runtime(text, 2, RUNU, "config.toml") == text


def test_a_runtime_written_inline_that_must_change_is_refused_and_not_written_twice() -> None:
    text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes]\nrunu = {runtime_type = "other.v2"}\n'
    with pytest.raises(UnifleetError, match="cannot be changed in place"):
        containerd_settings.with_runtime(text, 2, RUNU, "config.toml")


def test_the_snippet_of_tutorials_is_recognised_and_explained() -> None:
    why = containerd_settings.explain("runu", "io.containerd.runtime.runu.v2", {"BinaryName": "/usr/local/bin/runu"})
    assert "containerd-shim-runu-v2" in why
    assert 'runtime_type = "io.containerd.runc.v2"' in why


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("io.containerd.runc.v2", {"BinaryName": "/b"}),
        ("io.containerd.kata.v2", {"ConfigPath": "/etc/kata.toml"}),
        ("/opt/bin/containerd-shim-own-v1", {"BinaryName": "/b"}),
    ],
)
def test_types_that_can_work_need_no_explanation(kind: str, options: dict[str, str]) -> None:
    assert containerd_settings.explain("x", kind, options) == ""


def test_settings_keep_the_tables_of_others() -> None:
    before = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  # mine\n  sandbox_image = "old"\n  stats_collect_period = 10\n'
    text = containerd_settings.with_settings(before, 2, CriSettings(sandbox_image="localhost/p:1", systemd_cgroup=True), "config.toml")
    assert text.startswith(before.replace('"old"', '"localhost/p:1"'))
    assert runtimes(text)["runc"] == {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}
    assert (
        containerd_settings.with_settings(text, 2, CriSettings(sandbox_image="localhost/p:1", systemd_cgroup=True), "config.toml") == text
    )


def test_settings_of_version_3_are_parted_between_its_two_plugins() -> None:
    settings = CriSettings(sandbox_image="p", cni_bin_dir="/b", registry_config_path="/c", disable_cgroup=True)
    plugins = tomlkit.parse(containerd_settings.with_settings("version = 3\n", 3, settings, "f")).unwrap()["plugins"]
    assert plugins == {
        "io.containerd.cri.v1.images": {"registry": {"config_path": "/c"}, "pinned_images": {"sandbox": "p"}},
        "io.containerd.cri.v1.runtime": {"cni": {"bin_dir": "/b"}},
    }


@pytest.mark.parametrize("text", ["[plugins.cri]\nx = 1\n", "version = 4\n", 'version = "2"\n', "version = true\n"])
def test_a_file_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError, match="version"):
        containerd_settings.file_version(containerd_settings.read(text, "f"), "f")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", (1, 6)),
        ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", (2, 1)),
        ("containerd containerd.io v1.7.24 abcdef", (1, 7)),
    ],
)
def test_the_programs_version_is_read(said: str, version: tuple[int, int]) -> None:
    assert containerd_settings.program_version(said) == version


# --- the modules, on this very machine, with a stand-in for the program that can be old or new, content or not

PROGRAM = """#!/bin/sh
case "$*" in
  --version) echo "containerd github.com/containerd/containerd {version}";;
  *"config dump") ! grep -q forbidden "$2" || {{ echo "containerd: forbidden" >&2; exit 1; }};;
esac
"""


class Host:
    """A directory with a configuration file and a containerd that answers as a version does."""

    def __init__(self, directory: Path, version: str) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        program = directory / "bin" / "containerd"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(version=version), encoding="utf-8")
        program.chmod(0o755)

    def run(self, module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        options = {"path": str(self.config), "_ansible_check_mode": check, "_ansible_diff": True, **arguments}
        if module == "containerd_runtime":
            options.setdefault("drop_in_directory", str(self.directory / "conf.d"))
        environment = {**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "collections")}
        done = subprocess.run(
            [sys.executable, str(ROOT / "plugins/modules" / f"{module}.py")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": options}),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer


@pytest.fixture
def old(tmp_path: Path) -> Host:
    return Host(tmp_path, "1.6.20~ds1")


@pytest.fixture
def new(tmp_path: Path) -> Host:
    return Host(tmp_path, "2.1.9")


def test_a_runtime_is_registered_once_and_forgotten_again(old: Host) -> None:
    old.config.write_text("# mine\nversion = 2\n", encoding="utf-8")
    would = old.run("containerd_runtime", check=True, name="runu", binary="/usr/local/bin/runu")
    assert would["changed"]
    assert old.config.read_text(encoding="utf-8") == "# mine\nversion = 2\n"
    done = old.run("containerd_runtime", name="runu", binary="/usr/local/bin/runu")
    assert done["restart_needed"]
    assert done["diff"] == would["diff"]
    assert Path(done["backup"]).read_text(encoding="utf-8") == "# mine\nversion = 2\n"
    assert not old.run("containerd_runtime", name="runu", binary="/usr/local/bin/runu")["changed"]
    assert old.run("containerd_runtime", name="runu", state="absent")["changed"]
    assert old.config.read_text(encoding="utf-8").strip() == "# mine\nversion = 2"


def test_old_containerd_gets_no_drop_in_because_it_would_lose_all_else(old: Host) -> None:
    old.config.write_text(f'version = 2\nimports = ["{old.directory}/conf.d/*.toml"]\n', encoding="utf-8")
    assert old.run("containerd_runtime", name="runu", binary="/b")["path"] == str(old.config)
    assert not (old.directory / "conf.d").exists()


def test_new_containerd_that_imports_gets_a_drop_in_and_the_main_file_no_longer_says_it(new: Host) -> None:
    main = f'version = 3\nimports = ["{new.directory}/conf.d/*.toml"]\n'
    new.config.write_text(containerd_settings.with_runtime(main, 3, RUNU, "f"), encoding="utf-8")
    done = new.run("containerd_runtime", name="runu", binary="/usr/local/bin/other")
    drop_in = new.directory / "conf.d" / "50-runu.toml"
    assert done["path"] == str(drop_in)
    assert runtimes(drop_in.read_text(encoding="utf-8"))["runu"]["options"] == {"BinaryName": "/usr/local/bin/other"}
    assert new.config.read_text(encoding="utf-8") == main
    assert not new.run("containerd_runtime", name="runu", binary="/usr/local/bin/other")["changed"]
    assert new.run("containerd_runtime", name="runu", state="absent")["changed"]
    assert not drop_in.exists()


def test_what_containerd_refuses_is_not_written(old: Host) -> None:
    old.config.write_text("version = 2\n", encoding="utf-8")
    answer = old.run("containerd_runtime", name="runu", binary="/forbidden")
    assert "containerd: forbidden" in answer["msg"]
    assert old.config.read_text(encoding="utf-8") == "version = 2\n"
    assert "forbidden" in old.run("containerd_config", sandbox_image="forbidden")["msg"]


def test_the_tutorials_runtime_is_refused_as_parameter_and_replaced_with_a_warning_in_a_file(old: Host) -> None:
    assert (
        "containerd-shim-runu-v2"
        in old.run("containerd_runtime", name="runu", runtime_type="io.containerd.runtime.runu.v2", binary="/b")["msg"]
    )
    old.config.write_text(TALK, encoding="utf-8")
    answer = old.run("containerd_runtime", name="runu", binary="/usr/local/bin/runu")
    assert "containerd-shim-runu-v2" in str(answer["warnings"])
    assert runtimes(old.config.read_text(encoding="utf-8")) == {"runu": RUNU.table()}


@pytest.mark.parametrize("name", ["", "a b", "../x", "[x]"])
def test_a_name_that_is_none_is_refused(old: Host, name: str) -> None:
    assert "no name for a runtime" in old.run("containerd_runtime", name=name, binary="/b")["msg"]


def test_a_missing_file_is_made_in_the_version_of_the_program(old: Host) -> None:
    assert old.run("containerd_config", sandbox_image="p")["changed"]
    assert old.config.read_text(encoding="utf-8").startswith("version = 2\n")


def test_a_missing_file_is_made_in_version_3_for_new_containerd(new: Host) -> None:
    assert new.run("containerd_runtime", name="runu", binary="/b")["changed"]
    assert new.config.read_text(encoding="utf-8").startswith("version = 3\n")
