# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks: programs of whoever wrote the bundle, run one after the other with the container's state on their stdin (config.md, Hooks)."""

from __future__ import annotations

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(kind: str, hooks: list[dict[str, Any]], state: dict[str, Any]) -> None:
    """Run the hooks in their order. Raises UnifleetError for the first that fails or takes longer than its timeout."""
    if not hooks:
        return
    import subprocess

    body = document.dumps(state).encode()
    for number, hook in enumerate(hooks):
        what = f"hook {kind}[{number}] {hook['path']}"
        argv = hook.get("args") or [hook["path"]]
        environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
        try:
            done = subprocess.run(
                argv,
                executable=hook["path"],
                input=body,
                env=environment,
                cwd=state["bundle"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=hook.get("timeout"),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnifleetError(f"{what} took longer than its timeout of {hook['timeout']} s", "mend the hook") from error
        except (OSError, ValueError) as error:
            raise UnifleetError(f"{what} cannot be run: {error}", "mend the bundle's hooks") from error
        if done.returncode:
            said = done.stdout[-1000:].decode("utf-8", "replace").strip()
            raise UnifleetError(f"{what} failed with {done.returncode}: {said or 'it said nothing'}", "mend the hook")
