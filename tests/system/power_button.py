# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power button of a QEMU that a test started, pressed through its QMP socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path


def press_power_button(control: Path) -> None:
    """Returns once QEMU has taken the request. control: the socket of -qmp unix:PATH,server=on,wait=off."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control))
        stream = connection.makefile("rw")
        stream.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in json.loads(stream.readline()):
                pass  # an event
