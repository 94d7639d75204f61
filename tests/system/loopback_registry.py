# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real docker-registry on a free loopback port, for tests that push and pull."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LoopbackRegistry:
    """A running docker-registry: its address, and where it keeps what it has."""

    address: str
    storage: Path

    def blob(self, digest: str) -> Path:
        value = digest.partition(":")[2]
        return self.storage / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


@contextmanager
def loopback_registry(directory: Path) -> Iterator[LoopbackRegistry]:
    """One that keeps all below the directory and allows deletion; gone afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = directory / "registry"
    configuration = directory / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 20
            while True:
                with socket.socket() as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < until, "docker-registry does not listen"
                time.sleep(0.05)
            yield LoopbackRegistry(f"127.0.0.1:{port}", storage)
        finally:
            process.kill()
