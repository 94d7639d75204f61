# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base layer of a container image on Debian: a minbase root without documentation, package lists and caches, as slim images have it.

It is made once by mmdebstrap from the machine's own package sources (half a minute, root), and kept below ~/.cache/unifleet/bench.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_apt, lab_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

SUITE = "bookworm"
ARCHITECTURE = "amd64"
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log")


@dataclass(frozen=True)
class Layer:
    """A layer's bytes as a registry sends them (gzip -9, as the unikernels' are) and as they lie in a tar file."""

    compressed: int
    unpacked: int


def debian_layer() -> Layer:
    """The size of the layer, which is made when the cache has none. Raises UnifleetError."""
    cache = Path(os.environ.get("UNIFLEET_CACHE", Path.home() / ".cache/unifleet")) / "bench"
    kept = cache / f"{SUITE}-{ARCHITECTURE}-minbase.tar.gz"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unifleet-bench-", dir="/dev/shm") as scratch:  # for dpkg syncs every file
            tarball = Path(scratch) / "root.tar"
            _bootstrap(tarball)
            unfinished = kept.with_suffix(".new")
            _compress(tarball, unfinished)
            unfinished.replace(kept)
    return Layer(kept.stat().st_size, _unpacked(kept))


def _bootstrap(tarball: Path) -> None:
    sources = lab_apt.debian_archive(lab_root.machine_sources(), lab_root.codename(), SUITE)
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--architectures={ARCHITECTURE}", "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [f"--aptopt={option.rstrip(';')}" for option in ('Acquire::Languages "none";', *lab_apt.settings(said))]
    command += [f'--customize-hook=find "$1/{name}" -mindepth 1 -delete' for name in EMPTIED]
    command += [SUITE, str(tarball), "-"]
    environment = {**os.environ, "TMPDIR": str(tarball.parent)}
    done = subprocess.run(command, input=lab_apt.render(sources), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UnifleetError(f"mmdebstrap made no Debian root: {done.stderr[-500:].strip()}", "run this as root, with mmdebstrap installed")


def _compress(source: Path, target: Path) -> None:
    compressor = zlib.compressobj(9, wbits=31)
    with source.open("rb") as plain, target.open("wb") as packed:
        while block := plain.read(1 << 20):
            packed.write(compressor.compress(block))
        packed.write(compressor.flush())


def _unpacked(path: Path) -> int:
    """The last four bytes of a gzip file: the length modulo 2^32 (RFC 1952, 2.3.1)."""
    with path.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        return int.from_bytes(packed.read(), "little")
