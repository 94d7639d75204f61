# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's configuration file on a host: read it, have the program itself judge the new one, swap it, keep the old one.

Shared by the modules containerd_runtime and containerd_config. `run` is AnsibleModule.run_command, so that nothing is started here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

Runner = Callable[..., Any]
ASSUMED = (1, 6)
"""The program's version where it is not installed yet, as in check mode on a bare host: Debian 12's."""


class ContainerdFile:
    """One configuration file and the program that reads it."""

    def __init__(self, path: Path, run: Runner, program: Optional[str]) -> None:
        self.path = path
        self._run = run
        self._program = program
        self.text = self._read()

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise UnifleetError(f"{self.path} cannot be read: {error}") from error

    def beside(self, path: Path) -> ContainerdFile:
        """Another file of the same program."""
        return ContainerdFile(path, self._run, self._program)

    def program_version(self) -> tuple[int, int]:
        """(major, minor) of the installed containerd."""
        if self._program is None:
            return ASSUMED
        code, out, err = self._run([self._program, "--version"])
        if code != 0:
            raise UnifleetError(f"{self._program} --version fails: {err.strip() or out.strip()}")
        return containerd_settings.program_version(out)

    def judge(self, text: str) -> None:
        """Have containerd read the text as the content of the file. Raises UnifleetError with what it says."""
        with tempfile.TemporaryDirectory(prefix="unifleet-containerd-") as scratch:
            candidate = Path(scratch) / self.path.name
            candidate.write_text(text, encoding="utf-8")
            self._dump(candidate, f"containerd refuses the new {self.path}, which was not written")

    def judge_all(self) -> None:
        """Have containerd read the file as it is now, with all that it imports."""
        if self.path.exists():
            self._dump(self.path, f"containerd refuses {self.path} with what it imports, so what it was before is back")

    def _dump(self, path: Path, trouble: str) -> None:
        if self._program is None:
            return
        code, out, err = self._run([self._program, "--config", str(path), "config", "dump"])
        if code != 0:
            said = (err.strip() or out.strip()).splitlines() or ["nothing"]
            raise UnifleetError(f"{trouble}: {said[-1]}")

    def replace(self, text: str, keep: bool = True) -> Optional[str]:
        """Swap the file atomically, with its owner and mode; the path of the copy of what was there, if one was made."""
        target = self.path
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        backup = None
        status = None
        if target.exists():
            status = target.stat()
            if keep:
                backup = f"{target}.before-unifleet"
                shutil.copy2(target, backup)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), status.st_mode & 0o7777 if status else 0o644)
                os.fchown(file.fileno(), status.st_uid if status else -1, status.st_gid if status else -1)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink()
            raise
        return backup
