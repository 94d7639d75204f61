# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What most modules of the collection say of themselves, written once."""

from __future__ import annotations


class ModuleDocFragment:
    """Modules that read, compare and then change, on any POSIX host."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Says what would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows what differs.
  platform:
    support: full
    platforms: posix
    description: Where the module runs.
options: {}
"""
