# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python3 -m ...images is unikernel-image."""

from __future__ import annotations

import sys

from ansible_collections.unifleet.hybrid.plugins.host.images.main import main

if __name__ == "__main__":
    sys.exit(main())
