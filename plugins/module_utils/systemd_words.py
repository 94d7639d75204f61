# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of a unit file's command lines (systemd.service(5), "Command lines")."""

from __future__ import annotations

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


def exec_start_word(argument: str) -> str:
    """As one word of ExecStart=, with nothing in it that systemd would expand. Raises UnifleetError for more than one line."""
    if "\n" in argument or "\r" in argument:
        raise UnifleetError(f"{argument.partition('=')[0]}: a value of one line is needed")
    return '"' + argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'
