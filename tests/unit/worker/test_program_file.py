# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pod-router as one file: it runs by itself, is the same each time, and needs neither the collection nor a Debian package on the host."""

from __future__ import annotations

import base64
import io
import subprocess
import zipfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.filter.program_file import program_file


def test_the_file_runs_where_nothing_else_of_ours_is(tmp_path: Path) -> None:
    program = tmp_path / "pod-router"
    program.write_bytes(base64.b64decode(program_file("router")))
    program.chmod(0o755)
    done = subprocess.run([str(program)], cwd=tmp_path, env={"PYTHONPATH": "/nowhere"}, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("pod-router: --kubeconfig is missing")


def test_the_same_sources_give_the_same_file_without_what_it_does_not_import() -> None:
    content = base64.b64decode(program_file("router"))
    assert content == base64.b64decode(program_file("router"))
    assert content.startswith(b"#!/usr/bin/python3 -IS\n")
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert "ansible_collections/unifleet/hybrid/plugins/host/router/main.py" in names
    assert not [name for name in names if "/kubelet/" in name or "/runu/" in name or name.endswith("kube/client.py")]


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="plugins/host/nothing/main.py"):
        program_file("nothing")
