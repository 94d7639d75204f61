# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module and role unikernel_build, with programs that stand in for kraft, mirage and make: only Unifleet's own logic is proven.

The stand-ins note how they were called and leave a file where the real ones do.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import LayoutDirectory

pytestmark = [pytest.mark.system, pytest.mark.wide, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
NOTE = 'echo "$(basename "$0") $*" >> "$NOTES"\n'
KRAFT = f"""#!/bin/sh
[ "$1" = version ] && echo "kraft 0.12.${{KRAFT_PATCH:-0}}" && exit 0
{NOTE}[ -e fails ] && echo "ld: undefined reference to main" >&2 && exit 3
mkdir -p .unikraft/build
while [ $# -gt 0 ]; do case $1 in --plat) plat=$2;; --arch) arch=$2;; esac; shift; done
cat main.c > .unikraft/build/app_$plat-$arch
cp main.c .unikraft/build/app_$plat-$arch.dbg
"""
MIRAGE = f"""#!/bin/sh
[ "$1" = --version ] && echo 4.8.0 && exit 0
{NOTE}rm -rf dist; mkdir -p dist; echo "$3" > dist/.kind
"""
MAKE = f"""#!/bin/sh
{NOTE}[ "$1" = depend ] && exit 0
case $(cat dist/.kind) in unix) cat main.c > dist/app;; *) cat main.c > dist/app.$(cat dist/.kind);; esac
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and the stand-ins on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("kraft", KRAFT), ("mirage", MIRAGE), ("make", MAKE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    source = tmp_path / "project"
    source.mkdir()
    (source / "main.c").write_text("int main;")
    return source


def play(project: Path, projects: list[dict[str, Any]], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the role."""
    playbook = project.parent / "play.yml"
    variables = {"unikernel_build_projects": projects, "unikernel_build_directory": str(project.parent / "kernels")}
    role = {"role": "unifleet.hybrid.unikernel_build", "vars": variables}
    playbook.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": [role]}]))
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", "localhost,", "-e", "ansible_python_interpreter={{ ansible_playbook_python }}", str(playbook)]
    return subprocess.run([*command, *flags], capture_output=True, text=True, check=False, env=environment)


def notes(project: Path) -> list[str]:
    path = project.parent / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_the_role_builds_what_changed_and_packs_it_and_does_nothing_the_second_time(project: Path) -> None:
    layout = project.parent / "layout"
    router = {
        "name": "router",
        "toolchain": "kraft",
        "source": str(project),
        "targets": [{"target": "kvm/amd64"}, {"target": "kvm/arm64", "arguments": ["--jobs", "2"]}],
        "image": {"layout": str(layout), "memory": "32Mi", "args": ["-v"]},
    }
    planned = play(project, [router], "--check")
    assert planned.returncode == 0, planned.stdout
    assert "changed=2" in planned.stdout
    assert notes(project) == []
    assert not layout.exists()
    done = play(project, [router])
    assert done.returncode == 0, done.stdout + done.stderr
    start = "kraft build --no-prompt --no-check-updates --log-type basic --plat qemu --arch"
    assert notes(project) == [f"{start} x86_64 .", f"{start} arm64 --jobs 2 ."]
    found = LayoutDirectory(layout)
    profiles = [json.loads(json.loads(found.blob(entry["digest"]))["annotations"]["io.unifleet.unikernel"]) for entry in _entries(found)]
    assert [(profile["family"], list(profile["kernels"]), profile["memory"]) for profile in profiles] == [
        ("unikraft", ["kvm/amd64"], "32Mi"),
        ("unikraft", ["kvm/arm64"], "32Mi"),
    ]
    again = play(project, [router])
    assert "changed=0" in again.stdout, again.stdout
    assert notes(project) == []
    (project / "main.c").write_text("int main2;")
    changed = play(project, [router])
    assert "changed=2" in changed.stdout, changed.stdout
    assert len(notes(project)) == 2
    assert (project.parent / "kernels/router-kvm-amd64").read_text() == "int main2;"
    (project / "fails").touch()
    failed = play(project, [router])
    assert failed.returncode == 2
    assert "ended with 3" in failed.stdout
    assert "ld: undefined reference to main" in failed.stdout
    assert (project.parent / "kernels/router-kvm-amd64").read_text() == "int main2;"


def test_mirage_is_configured_for_each_target_and_its_kernels_are_told_apart(project: Path) -> None:
    resolver = {
        "name": "resolver",
        "toolchain": "mirage",
        "source": str(project),
        "targets": [{"target": "process/amd64"}, {"target": "xen/amd64"}, {"target": "kvm/amd64"}],
    }
    done = play(project, [resolver])
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = ["unix", "xen", "virtio"]
    assert notes(project) == [line for kind in kinds for line in (f"mirage configure -t {kind}", "make depend", "make ")]
    assert sorted(path.name for path in (project.parent / "kernels").iterdir() if not path.name.endswith(".built")) == [
        "resolver-kvm-amd64",
        "resolver-process-amd64",
        "resolver-xen-amd64",
    ]


def _entries(layout: LayoutDirectory) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(layout.blob(layout.digest()))["manifests"]
    return entries
