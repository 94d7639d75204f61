# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""skopeo as a command line runs it: what it has to say of progress goes to the terminal, when there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


def progress_is_shown() -> bool:
    """Whether somebody looks on."""
    return sys.stderr.isatty()


def run_skopeo(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes, str]:
    """skopeo's exit code, output and errors. A copy that is not quiet shows its progress. Raises UnifleetError without skopeo."""
    shown = "copy" in arguments and "--quiet" not in arguments
    try:
        done = subprocess.run(
            ["skopeo", *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if shown else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
    except OSError as error:
        raise UnifleetError(f"skopeo does not run: {error.strerror}", "install the package skopeo") from error
    return done.returncode, done.stdout or b"", done.stderr.decode("utf-8", "replace")
