# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host by hand: run it until it is interrupted, or run one command on it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.qemu_host.host import Kind, running


def main(kind: Kind) -> int:
    """The exit status of the command; without one, print how to reach the host and keep it until SIGINT or SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with running(kind) as host:
            if len(sys.argv) > 1:
                return subprocess.run([*host.ssh(), *sys.argv[1:]], check=False).returncode
            print(shlex.join(host.ssh()), flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except UnifleetError as error:
        print(f"{kind.name} host: {error}", file=sys.stderr)
        return 1
    return 0
