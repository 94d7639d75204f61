# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the directory of lwIP's source, fetched once from Debian's archive: guest/Makefile compiles the TCP/IP stack from there.

Apt fetches it with the machine's own configuration and verifies it against the archive's signed index; only the list of sources is
another one (the same sites, for source packages), kept in the cache, so that the machine's apt is left as it is. The version is
pinned by the checksum of its source archive, because guests are the same bytes wherever they are built: a machine whose archive has
another version says so. Needs nothing of the project's Python environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2.1.3+dfsg1"
ARCHIVE = f"lwip_{VERSION}.orig.tar.xz"
SHA256 = "0a8276d09fc4e97bbba2f953d74af2388fc2195ea156be9d7589e297a68fde24"
CACHE = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet") / "lwip"
TREE = CACHE / f"lwip-{VERSION}-{SHA256[:8]}"


def main() -> int:
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not TREE.exists():
                fetch()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or ""
        print(f"lwip_source: lwIP {VERSION} could not be had from Debian's archive: {error}\n{output}".strip(), file=sys.stderr)
        print("lwip_source: Debian 12 has it; the guests are built there", file=sys.stderr)
        return 1
    print(TREE)
    return 0


def fetch() -> None:
    """Fill TREE, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=CACHE) as name:
        scratch = Path(name)
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "source.sources").write_text(source_stanzas(Path("/etc/apt")), encoding="utf-8")
        apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={scratch / 'source.sources'}", "-o", "Dir::Etc::sourceparts=-"]
        apt += ["-o", f"Dir::State::Lists={scratch / 'lists'}", "-o", "APT::Sandbox::User=root"]
        apt += ["-o", f"Dir::Cache::srcpkgcache={scratch / 'src.bin'}", "-o", f"Dir::Cache::pkgcache={scratch / 'pkg.bin'}"]
        run([*apt, "update"], scratch)
        run([*apt, "source", "--download-only", "--only-source", "lwip"], scratch)
        archive = scratch / ARCHIVE
        if not archive.exists():
            found = ", ".join(path.name for path in scratch.glob("lwip_*.dsc"))
            raise ValueError(f"this machine's archive has {found or 'no lwip'}")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise ValueError(f"{ARCHIVE} has the SHA-256 {digest}, not {SHA256}")
        (scratch / "tree").mkdir()
        run(["tar", "-xf", str(archive), "-C", str(scratch / "tree"), "--strip-components=1"], scratch)
        shutil.move(str(scratch / "tree"), TREE)


def source_stanzas(configuration: Path) -> str:
    """Debian's archive as this machine's apt knows it, for source packages. Raises ValueError when there is none."""
    found = []
    for path in [configuration / "sources.list", *sorted((configuration / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".sources":
            stanzas = [item for item in re.split(r"\n[ \t]*\n", text) if "/debian" in item and re.search(r"(?m)^Types:.*\bdeb\b", item)]
            found += [re.sub(r"(?m)^Types:.*$", "Types: deb-src", re.sub(r"(?m)^#.*\n", "", item)) for item in stanzas]
        else:
            found += [classic(line) for line in text.splitlines() if re.match(r"deb\s.*/debian", line)]
    if not found:
        raise ValueError(f"no Debian archive is configured below {configuration}")
    return "\n\n".join(item.strip() for item in dict.fromkeys(found)) + "\n"


def classic(line: str) -> str:
    """A line of sources.list as a stanza."""
    match = re.match(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)", line)
    if not match:
        raise ValueError(f"sources.list has a line that is not understood: {line!r}")
    signed = re.search(r"signed-by=(\S+)", match["options"] or "")
    stanza = f"Types: deb-src\nURIs: {match['uri']}\nSuites: {match['suite']}\nComponents: {match['components'].strip()}\n"
    return stanza + (f"Signed-By: {signed[1]}\n" if signed else "")


def run(argv: list[str], directory: Path) -> None:
    subprocess.run(argv, cwd=directory, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
