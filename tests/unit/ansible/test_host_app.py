# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packing host programs on the controller and installing them on a host."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import App, Entry, collection_version, manifest_of, pack
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_install import Installation, unpack

NAME = "ansible_collections.unifleet.hybrid.plugins"
TAG = str(sys.implementation.cache_tag)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small collection with one program, a module that it uses and one that it does not."""
    files = {
        "galaxy.yml": "namespace: unifleet\nversion: 1.2.3\n",
        "plugins/host/hello/main.py": f"from {NAME}.module_utils.used import WORD\ndef main() -> int:\n    print(WORD)\n    return 7\n",
        "plugins/module_utils/used.py": "WORD = 'hello'\n",
        "plugins/module_utils/unused.py": "WORD = 'nobody reads this'\n",
    }
    for name, text in files.items():
        write(tmp_path / "collection" / name, text)
    return tmp_path / "collection"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def packed(root: Path, **files: Path) -> App:
    return pack(root, {"hello": "hello"}, files, sys.executable)


def paths(app: App) -> set[str]:
    return {entry.path for entry in app.entries}


def compile_here(staging: Path, final: Path) -> None:
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(staging), "-p", str(final)]
    subprocess.run([*command, str(staging)], check=True)


def installed(host: Installation, app: App, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(app.archive())
    host.install(app.version, app.manifest, archive, compile_here)
    host.activate(app.version)
    host.link(app.programs)


@pytest.fixture
def host(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "lib", tmp_path / "bin")


def test_only_what_the_program_imports_is_packed(root: Path) -> None:
    assert "lib/ansible_collections/unifleet/hybrid/plugins/module_utils/used.py" in paths(packed(root))
    assert "lib/ansible_collections/unifleet/hybrid/plugins/module_utils/unused.py" not in paths(packed(root))


def test_a_change_in_what_the_program_does_not_import_changes_no_version(root: Path) -> None:
    before = packed(root).version
    write(root / "plugins/module_utils/unused.py", "WORD = 'still nobody'\n")
    assert packed(root).version == before
    write(root / "plugins/module_utils/used.py", "WORD = 'changed'\n")
    assert packed(root).version != before


def test_the_same_sources_give_the_same_bytes(root: Path) -> None:
    first = packed(root).archive()
    os.utime(root / "plugins/host/hello/main.py", (1, 1))
    assert packed(root).archive() == first


def test_the_version_starts_with_the_collections(root: Path) -> None:
    assert packed(root).version.startswith("1.2.3+")
    write(root / "MANIFEST.json", '{"collection_info": {"version": "2.0.0"}}')
    assert collection_version(root) == "2.0.0"


@pytest.mark.parametrize(
    "statement",
    [
        f"from {NAME}.module_utils import used",
        f"import {NAME}.module_utils.used as used",
        f"def later():\n    from {NAME}.module_utils.used import WORD",
        f"import importlib\nimportlib.import_module('{NAME}.module_utils.used')",
        "from ...module_utils.used import WORD",
        f"try:\n    from {NAME}.module_utils.used import WORD\nexcept ImportError:\n    WORD = ''",
    ],
)
def test_every_way_to_import_is_seen(root: Path, statement: str) -> None:
    write(root / "plugins/host/hello/main.py", f"{statement}\ndef main(): ...\n")
    assert "lib/ansible_collections/unifleet/hybrid/plugins/module_utils/used.py" in paths(packed(root))


@pytest.mark.parametrize(
    "statement",
    [
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {NAME}.module_utils import missing",
        f"try:\n    from {NAME}.host.coming import thing\nexcept ImportError:\n    thing = None",
        f"'{NAME}.module_utils.not_a_module'",
    ],
)
def test_what_is_not_needed_at_run_time_may_be_missing(root: Path, statement: str) -> None:
    write(root / "plugins/host/hello/main.py", f"{statement}\ndef main(): ...\n")
    assert packed(root)


def test_an_import_that_leads_nowhere_is_named_with_file_and_line(root: Path) -> None:
    write(root / "plugins/module_utils/used.py", f"WORD = 1\nimport {NAME}.module_utils.gone\n")
    with pytest.raises(UnifleetError, match=r"plugins/module_utils/used.py:2 wants .*module_utils\.gone"):
        packed(root)


def test_a_source_that_does_not_parse_is_named(root: Path) -> None:
    write(root / "plugins/module_utils/used.py", "WORD = = 1\n")
    with pytest.raises(UnifleetError, match=r"module_utils/used.py is not Python"):
        packed(root)


def test_modules_that_import_each_other_end(root: Path) -> None:
    write(root / "plugins/module_utils/used.py", f"import {NAME}.host.hello.main\nWORD = 1\n")
    assert packed(root)


@pytest.mark.parametrize("destination", ["/etc/passwd", "../x", "a/../../x", "bin/hello", "lib/x", "x", ""])
def test_a_file_may_not_leave_its_version_or_hide_a_program(root: Path, destination: str) -> None:
    with pytest.raises(UnifleetError, match="destination"):
        pack(root, {"hello": "hello"}, {destination: root / "galaxy.yml"})


@pytest.mark.parametrize(("name", "package"), [("../x", "hello"), ("hello", "../x"), ("hello", "a.b"), ("", "hello"), ("a b", "hello")])
def test_odd_program_names_are_refused(root: Path, name: str, package: str) -> None:
    with pytest.raises(UnifleetError, match="NAME: PACKAGE"):
        pack(root, {name: package}, {})


def test_the_installed_program_runs_isolated_and_from_its_own_bytecode(root: Path, host: Installation, tmp_path: Path) -> None:
    installed(host, packed(root), tmp_path)
    write(tmp_path / "shadow/ansible_collections/__init__.py", "raise SystemExit('shadowed')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "shadow")}
    for source in (host.directory / "current").rglob("used.py"):
        source.write_text("WORD = 'from source'\n")
    done = subprocess.run([tmp_path / "bin/hello"], check=False, capture_output=True, text=True, cwd=tmp_path / "shadow", env=environment)
    assert (done.returncode, done.stdout) == (7, "hello\n")


def test_an_installed_version_is_whole_until_somebody_touches_it(root: Path, host: Installation, tmp_path: Path) -> None:
    app = packed(root)
    assert host.fault(app.version, app.manifest, TAG) == "not installed"
    installed(host, app, tmp_path)
    assert host.fault(app.version, app.manifest, TAG) is None
    assert host.fault(app.version, None, TAG) is None
    assert host.fault(app.version, app.manifest, "cpython-39") == "not compiled for cpython-39"
    used = next((host.directory / "current").rglob("used.py"))
    used.chmod(0o600)
    assert "another mode" in str(host.fault(app.version, app.manifest, TAG))
    used.chmod(0o644)
    used.write_text("WORD = 'bad'\n")
    assert "was changed" in str(host.fault(app.version, app.manifest, TAG))
    used.unlink()
    assert "is missing" in str(host.fault(app.version, app.manifest, TAG))
    installed(host, app, tmp_path)
    assert host.fault(app.version, app.manifest, TAG) is None


def test_an_install_that_breaks_leaves_current_and_no_litter(root: Path, host: Installation, tmp_path: Path) -> None:
    first = packed(root)
    installed(host, first, tmp_path)
    write(root / "plugins/module_utils/used.py", "WORD = 'second'\n")
    second = packed(root)
    archive = tmp_path / "torn.tar.gz"
    archive.write_bytes(second.archive()[:-40])
    with pytest.raises(UnifleetError, match="cannot unpack"):
        host.install(second.version, second.manifest, archive, compile_here)
    archive.write_bytes(first.archive())
    with pytest.raises(UnifleetError, match="manifest says"):
        host.install(second.version, second.manifest, archive, compile_here)

    def no_compiler(_staging: Path, _final: Path) -> None:
        raise UnifleetError("python cannot compile")

    archive.write_bytes(second.archive())
    with pytest.raises(UnifleetError, match="cannot compile"):
        host.install(second.version, second.manifest, archive, no_compiler)
    assert host.current == first.version
    assert sorted(p.name for p in host.directory.iterdir()) == sorted([first.version, "current"])


def test_previous_names_what_was_current_and_going_back_is_one_link(root: Path, host: Installation, tmp_path: Path) -> None:
    first = packed(root)
    installed(host, first, tmp_path)
    write(root / "plugins/module_utils/used.py", "WORD = 'second'\n")
    second = packed(root)
    installed(host, second, tmp_path)
    assert (host.current, host.previous) == (second.version, first.version)
    host.activate(first.version)
    assert (host.current, host.previous) == (first.version, second.version)
    done = subprocess.run([tmp_path / "bin/hello"], check=False, capture_output=True, text=True)
    assert done.stdout == "hello\n"


def test_pruning_keeps_the_newest_and_what_the_links_name(root: Path, host: Installation, tmp_path: Path) -> None:
    versions = []
    for number in range(5):
        write(root / "plugins/module_utils/used.py", f"WORD = '{number}'\n")
        app = packed(root)
        installed(host, app, tmp_path)
        os.utime(host.path(app.version), (number + 1, number + 1))
        versions.append(app.version)
    host.activate(versions[0])
    assert host.prune(2) == [versions[2], versions[1]]
    assert set(host.versions()) == {versions[4], versions[3], versions[0]}


def test_a_program_that_is_dropped_loses_its_link_and_a_foreign_file_is_kept(root: Path, host: Installation, tmp_path: Path) -> None:
    app = packed(root)
    installed(host, app, tmp_path)
    (tmp_path / "bin/other").symlink_to("/bin/true")
    host.link([])
    assert not (tmp_path / "bin/hello").is_symlink()
    assert (tmp_path / "bin/other").is_symlink()
    (tmp_path / "bin/hello").write_text("mine")
    with pytest.raises(UnifleetError, match="is not a link of this installation"):
        host.link(["hello"])
    assert (tmp_path / "bin/hello").read_text() == "mine"


@pytest.mark.parametrize("version", ["../x", "", ".new-1", "current", "a/b"])
def test_odd_versions_are_refused(host: Installation, version: str) -> None:
    with pytest.raises(UnifleetError, match="is no version"):
        host.path(version)


def hostile(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "/etc/passwd"
        tar.addfile(member, io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "archive",
    [hostile("../x"), hostile("/x"), hostile("a/../../x"), hostile("x", tarfile.SYMTYPE), hostile("x", tarfile.LNKTYPE), b"no archive"],
    ids=["above", "absolute", "above by a detour", "symlink", "hard link", "no archive"],
)
def test_a_hostile_archive_writes_nothing_outside(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "inner/archive"
    path.parent.mkdir()
    path.write_bytes(archive)
    with pytest.raises(UnifleetError):
        unpack(path, tmp_path / "inner")
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]
    assert [p.name for p in (tmp_path / "inner").iterdir()] == ["archive"]


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}/[a-z0-9._-]{1,8}[a-z]", fullmatch=True), st.tuples(st.binary(max_size=64), st.booleans()))
)
def test_any_files_survive_packing_and_unpacking(tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[bytes, bool]]) -> None:
    directory = tmp_path_factory.mktemp("app")
    app = App("1", (), tuple(Entry(path, content, executable) for path, (content, executable) in files.items()))
    (directory / "archive").write_bytes(app.archive())
    unpack(directory / "archive", directory / "out")
    out = directory / "out"
    found = {
        str(p.relative_to(out)): (p.read_bytes(), bool(p.stat().st_mode & 0o100))
        for p in (out.rglob("*") if out.exists() else ())
        if p.is_file()
    }
    assert found == files
    assert len(manifest_of(app.entries).splitlines()) == len(files)
