# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a kubeconfig from a host to the controller, private from its first byte, in one task and without a trace of it in any output.

ansible.builtin.fetch leaves files readable to everybody, and slurp puts the content into results.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Reads with slurp on the host, writes on the controller."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, wanted = self.validate_argument_spec(
            argument_spec={"src": {"type": "path", "required": True}, "dest": {"type": "path", "required": True}}
        )
        destination = Path(wanted["dest"]).expanduser()
        read = self._execute_module("ansible.builtin.slurp", {"src": wanted["src"]}, task_vars=task_vars)
        if read.get("failed"):
            if self._task.check_mode and "content" not in read and "not found" in str(read.get("msg", "")):
                return {**result, "changed": True, "dest": str(destination)}
            return {**result, "failed": True, "msg": f"{wanted['src']}: {read.get('msg')}"}
        content = base64.b64decode(read["content"])
        same = destination.is_file() and destination.read_bytes() == content and destination.stat().st_mode & 0o077 == 0
        if not same and not self._task.check_mode:
            try:
                write_private(destination, content)
            except OSError as error:
                return {**result, "failed": True, "msg": f"{destination} on the controller: {error.strerror}"}
        return {**result, "changed": not same, "dest": str(destination)}


def write_private(path: Path, content: bytes) -> None:
    """Atomically, mode 0600; makes a missing directory, private as well."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)
