# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log that the shim reads: JSON lines with level, msg and time, as runc's --log with --log-format json.

The last line of level error is the reason that people see (containerd's pkg/process/utils.go), so exactly one is written on a failure.
"""

from __future__ import annotations

import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import now


class Log:
    """Where messages go. path: "" for nowhere. as_json: --log-format json."""

    __slots__ = ("as_json", "path")

    def __init__(self, path: str = "", as_json: bool = True) -> None:
        self.path = path
        self.as_json = as_json

    def write(self, level: str, message: str) -> None:
        """Append one line; a log that cannot be written stops nobody."""
        if not self.path:
            return
        quoted = document.dumps(message)
        line = (
            f'{{"level":"{level}","msg":{quoted},"time":"{now()}"}}\n' if self.as_json else f'time="{now()}" level={level} msg={quoted}\n'
        )
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        try:
            os.write(descriptor, line.encode())
        except OSError:
            pass
        finally:
            os.close(descriptor)
