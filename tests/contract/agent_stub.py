# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent that makes machines, one after the other, and is killed while it does so: agent_stub.py KIND DIRECTORY KEY..."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench import settings

from ansible_collections.unifleet.hybrid.plugins.host.machines.registry import open_machines


def main(kind: str, specs: Path) -> None:
    """Prepare and start every machine of the pickled list, saying which it begins with."""
    machines = open_machines(kind, settings(kind))
    machines.limitations()
    print("begin", flush=True)
    for spec in pickle.loads(specs.read_bytes()):
        machines.prepare(spec)
        machines.start(spec.key)


main(sys.argv[1], Path(sys.argv[2]))
