# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a Xen host until it is interrupted, or run one command on it.

PYTHONPATH=collections .venv/bin/python -m ansible_collections.unifleet.hybrid.tools.xen_host [COMMAND ...]
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.xen_host.host import xen_host


def main() -> int:
    try:
        with xen_host() as host:
            if len(sys.argv) > 1:
                return subprocess.run([*host.ssh(), *sys.argv[1:]], check=False).returncode
            print(shlex.join(host.ssh()), flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except UnifleetError as error:
        print(f"xen_host: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.exit(main())
