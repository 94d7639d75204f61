# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a Xen host until it is interrupted, or run one command on it.

PYTHONPATH=collections .venv/bin/python -m ansible_collections.unifleet.hybrid.tools.xen_host [COMMAND ...]
"""

from __future__ import annotations

import sys

from ansible_collections.unifleet.hybrid.tools.qemu_host.command import main
from ansible_collections.unifleet.hybrid.tools.xen_host.host import KIND

if __name__ == "__main__":
    sys.exit(main(KIND))
