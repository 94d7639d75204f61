# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How kraft and mirage are told to build, and when a kernel is built again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_toolchains import build_of, find_result, fingerprint


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's directory with one source."""
    source = tmp_path / "project"
    source.mkdir()
    (source / "main.c").write_text("int main;")
    return source


@pytest.mark.parametrize(
    ("toolchain", "target", "solo5", "said"),
    [
        ("kraft", "process/amd64", "", "kraft builds nothing for 'process/amd64'.*kvm/amd64"),
        ("kraft", "kvm", "", "kraft builds nothing for 'kvm'"),
        ("mirage", "kvm/riscv64", "", "mirage builds nothing for 'kvm/riscv64'"),
        ("mirage", "kvm/amd64", "spt", "does not run under solo5-spt"),
        ("nix", "kvm/amd64", "", "toolchain 'nix' is not known"),
    ],
)
def test_what_a_toolchain_cannot_build_is_said(toolchain: str, target: str, solo5: str, said: str) -> None:
    with pytest.raises(UnifleetError, match=said):
        build_of(toolchain, target, (), solo5)


def test_solo5_kernels_are_built_for_their_tender() -> None:
    build = build_of("mirage", "process/arm64", ("--net", "direct"), "hvt")
    assert (build.commands[0], build.result) == (("mirage", "configure", "-t", "hvt", "--net", "direct"), "dist/*.hvt")


def test_what_a_kernel_is_made_of_is_its_sources_commands_and_toolchain_and_not_what_was_made(project: Path) -> None:
    build = build_of("kraft", "kvm/amd64")
    first = fingerprint(project, build, "1")
    for made in (".unikraft", "dist", ".git"):
        (project / made).mkdir()
        (project / made / "x").write_text("made")
    assert fingerprint(project, build, "1") == first
    seen = {first, fingerprint(project, build, "2"), fingerprint(project, build_of("kraft", "xen/amd64"), "1")}
    (project / "sub/dist").mkdir(parents=True)
    (project / "sub/dist/y").write_text("source")
    seen.add(fingerprint(project, build, "1"))
    (project / "sub/dist/y").chmod(0o755)
    seen.add(fingerprint(project, build, "1"))
    (project / "link").symlink_to("/nowhere")
    seen.add(fingerprint(project, build, "1"))
    assert len(seen) == 6
    with pytest.raises(UnifleetError, match="not a directory"):
        fingerprint(project / "none", build, "1")


@pytest.mark.parametrize("left", [[], ["a_qemu-x86_64", "b_qemu-x86_64"]])
def test_a_build_that_leaves_no_kernel_or_two_is_an_error_that_names_them(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / ".unikraft/build").mkdir(parents=True)
    for name in left:
        (tmp_path / ".unikraft/build" / name).touch()
    with pytest.raises(UnifleetError, match=", ".join(f".unikraft/build/{name}" for name in left) or "left nothing"):
        find_result(tmp_path, build_of("kraft", "kvm/amd64").result)
