# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each command imports: Python's start is most of what a command costs, and one import too many doubles it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
ROOM = "ansible_collections.unifleet.hybrid.plugins.host.runu"
HEAVY = {
    "re",
    "json",
    "enum",
    "typing",
    "dataclasses",
    "pathlib",
    "subprocess",
    "socket",
    "signal",
    "argparse",
    "logging",
    "ctypes",
    "tempfile",
    "inspect",
}


def imported_by(*modules: str) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'collections')!r})\n"
    code += "".join(f"import {ROOM}.{module}\n" for module in modules) + "print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-ISE", "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [("main", "lifecycle", "state"), ("main", "config", "bundle", "unikernel", "create"), ("monitor",)],
    ids=["start, kill, delete", "create until it forks", "the monitor"],
)
def test_nothing_heavy_is_imported(modules: tuple[str, ...]) -> None:
    assert not imported_by(*modules) & HEAVY


def bundle(directory: Path, kernel: bool) -> Path:
    """A bundle that runu decides on: of a unikernel of both architectures, or of an ordinary container."""
    (directory / "rootfs/boot").mkdir(parents=True)
    (directory / "rootfs/boot/kernel").write_bytes(b"kernel")
    if kernel:
        kernels = {"kvm/amd64": "/boot/kernel", "kvm/arm64": "/boot/kernel"}
        (directory / "rootfs/unikernel.json").write_text(json.dumps({"version": 1, "family": "plain", "kernels": kernels, "memory": "8Mi"}))
    process = {"cwd": "/", "args": ["/boot/kernel"], "env": ["PATH=/bin"]}
    (directory / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": process}))
    return directory


@pytest.mark.parametrize(("kernel", "said"), [(False, "this is no unikernel"), (True, "Not a directory")], ids=["runc's", "a unikernel's"])
def test_a_create_imports_nothing_heavy_on_its_way(tmp_path: Path, kernel: bool, said: str) -> None:
    """As far as a create comes that finds no runc, or no room for its state: everything that it does before it forks."""
    (tmp_path / "runu.json").write_text(json.dumps({"runc": str(tmp_path / "missing")}))
    (tmp_path / "file").touch()
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'collections')!r})\nfrom {ROOM}.main import run\n"
    code += "code = run(sys.argv[1:])\nprint(*sorted(sys.modules))\nsys.exit(code)"
    argv = ["--root", str(tmp_path / "file/state"), "create", "--bundle", str(bundle(tmp_path / "b", kernel)), "c"]
    environment = {**os.environ, "UNIFLEET_RUNU_CONFIG": str(tmp_path / "runu.json")}
    done = subprocess.run([sys.executable, "-ISE", "-c", code, *argv], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert not set(done.stdout.split()) & HEAVY


def test_a_module_that_was_put_off_comes_when_it_is_asked_for() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'collections')!r})\nfrom {ROOM}.later import postpone\npostpone()\n"
    code += "import dataclasses, hashlib\nassert type(sys.modules['inspect']).__name__ == '_StandIn'\n"
    code += "assert hashlib.sha256(b'').hexdigest().startswith('e3b0')\nimport hashlib as again\nassert again.sha256 is hashlib.sha256\n"
    code += "import inspect\nprint(inspect.signature(lambda a, b: 0), type(sys.modules['inspect']).__name__)"
    done = subprocess.run([sys.executable, "-ISE", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "(a, b) module"
