# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of host_app: pack the programs, ask the host whether it has them, and hand them over when it has not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible import constants as C  # noqa: N812 - its usual name
from ansible.plugins.action import ActionBase

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import App, pack

COLLECTION_ROOT = Path(os.path.realpath(__file__)).parents[2]
INSTALL_MODULE = "unifleet.hybrid.host_app_install"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "programs": {"type": "dict", "required": True},
    "files": {"type": "dict", "default": {}},
    "directory": {"type": "path", "default": "/usr/local/lib/unifleet"},
    "bin_directory": {"type": "path", "default": "/usr/local/bin"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "keep": {"type": "int", "default": 3},
}


class ActionModule(ActionBase):
    """One module call for a host that has the version, two and one transfer for a host that has not."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Returns what host_app_install returned."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            files = {str(inside): Path(str(source)) for inside, source in wanted["files"].items()}
            app = pack(COLLECTION_ROOT, {str(k): str(v) for k, v in wanted["programs"].items()}, files, wanted["python"])
        except UnifleetError as error:
            return {**result, "failed": True, "msg": str(error)}
        arguments = {
            "version": app.version,
            "programs": list(app.programs),
            "manifest": app.manifest,
            **{key: wanted[key] for key in ("directory", "bin_directory", "python", "keep")},
        }
        answer = self._execute_module(module_name=INSTALL_MODULE, module_args=arguments, task_vars=task_vars)
        if answer.get("needs_archive"):
            remote = self._transfer(app)
            answer = self._execute_module(module_name=INSTALL_MODULE, module_args={**arguments, "archive": remote}, task_vars=task_vars)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return {**result, **answer}

    def _transfer(self, app: App) -> str:
        """Put the archive into the host's temporary directory; the path there."""
        directory = self._make_tmp_path() if self._connection._shell.tmpdir is None else self._connection._shell.tmpdir
        remote: str = self._connection._shell.join_path(directory, "programs.tar.gz")
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP, suffix=".tar.gz") as local:
            local.write(app.archive())
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((directory, remote))
        return remote
