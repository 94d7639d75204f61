# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception family of Unifleet.

Every failure that a user can cause or mend is raised as a UnifleetError (or a subclass of it) with a message that says what was
wrong and where, and a hint that says what to do. A command line prints it as one line; a module hands it to fail_json.
"""

from __future__ import annotations


class UnifleetError(Exception):
    """What was wrong and where (message), and what to do about it (hint, may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
