# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One runtime in containerd's configuration: which file it goes into, what that file says then, and putting it in place, all or nothing.

The module containerd_runtime does this on hosts that Ansible manages, the program runu-node on nodes that it does not.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_file import ContainerdFile
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

MERGES_SINCE = (2, 0)
"""The containerd that merges imported files; older ones lose the rest of the plugin's settings."""

Texts = list[tuple[ContainerdFile, str]]


class Registration:
    """A runtime's name in one configuration file and, where containerd can merge files and imports it, in a drop-in of its own."""

    def __init__(self, main: ContainerdFile, name: str, drop_in_directory: Path) -> None:
        self.main = main
        self.name = name
        self.document = containerd_settings.read(main.text, str(main.path))
        self.version = containerd_settings.file_version(self.document, str(main.path))
        self.drop_in: Optional[ContainerdFile] = None
        target = drop_in_directory / f"50-{name}.toml"
        patterns = [str(main.path.parent / pattern) for pattern in containerd_settings.imports(self.document)]
        if main.program_version() >= MERGES_SINCE and any(fnmatch.fnmatch(str(target), pattern) for pattern in patterns):
            self.drop_in = main.beside(target)

    @property
    def home(self) -> ContainerdFile:
        """The file that has the runtime, or will have it."""
        return self.drop_in or self.main

    def texts(self, runtime: Optional[Runtime]) -> Texts:
        """(file, its new text; empty: it goes) of each file that must change for the runtime to be there, or with None to be gone."""
        where = str(self.main.path)
        if runtime is not None and self.drop_in is None:
            text = self.main.text if self.version else containerd_settings.fresh(self.main.program_version()) + self.main.text
            version = containerd_settings.file_version(containerd_settings.read(text, where), where)
            wanted = [(self.main, containerd_settings.with_runtime(text, version, runtime, where))]
        else:
            # What a drop-in says, or nobody says any more, the main file must not say either.
            wanted = [(self.main, containerd_settings.without_runtime(self.main.text, self.version, self.name, where))]
            if self.drop_in is not None:
                wanted.append((self.drop_in, self._drop_in_text(runtime) if runtime is not None else ""))
        return [(file, text) for file, text in wanted if file.text != text]

    def _drop_in_text(self, runtime: Runtime) -> str:
        """In the main file's version: containerd 2.1 drops the CRI settings of a version 2 file that imports version 3 (measured)."""
        own = containerd_settings.with_runtime("", self.version, runtime, str(self.home.path))
        return f"# Written by Unifleet for its runtime; changes are overwritten.\nversion = {self.version}\n\n{own}"

    def warnings(self) -> list[str]:
        """What is wrong with the runtime as the main file has it now."""
        found = containerd_settings.present_runtime(self.document, self.version, self.name)
        if not found:
            return []
        why = containerd_settings.explain(self.name, str(found.get("runtime_type", "")), found.get("options") or {})
        return [f"{self.main.path} had a runtime that cannot work: {why}"] if why else []

    def apply(self, changes: Texts) -> Optional[str]:
        """Have containerd judge the new texts, put all of them in place or none; the copy of the main file as it was, if it changed."""
        for file, text in changes:
            if text:
                file.judge(text)
        backup = None
        done: list[ContainerdFile] = []
        try:
            for file, text in changes:
                done.append(file)
                if text:
                    backup = file.replace(text) or backup
                else:
                    file.path.unlink(missing_ok=True)
            self.main.judge_all()
        except (UnifleetError, OSError):
            for file in done:
                if file.text:
                    file.replace(file.text, keep=False)
                else:
                    file.path.unlink(missing_ok=True)
            raise
        return backup
