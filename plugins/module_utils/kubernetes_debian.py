# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Building Kubernetes' programs from Debian's source package with Debian's Go, cached by what goes into them.

The path for places where only Debian's archive can be reached. Apt fetches and verifies the source with the machine's own
configuration; only the list of sources is another one (the same sites, for source packages), with its index kept in the cache, so
that the machine's apt is left as it is. dpkg-source applies Debian's patches. A build takes five to six minutes on two cores.
Commands run through a function that is passed in (a module's run_command).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_sources import (
    COMPONENTS,
    Program,
    Provision,
    build_key,
    debian_upstream_version,
    newest_source_version,
    sha256_of,
    source_stanzas,
)

Run = Callable[..., "tuple[int, str, str]"]
"""run(argv, cwd=None, environ_update=None) -> (exit status, stdout, stderr)."""

GO = "golang-1.19-go"
GO_PATH = "/usr/lib/go-1.19/bin"
NEEDED = (GO, "dpkg-dev", "gcc", "jq", "libc6-dev", "make", "patch", "rsync", "xz-utils")
INDEX_LIFE = 24 * 3600
RECIPE = "1"


@dataclass(frozen=True)
class DebianBuild:
    """One cache directory and the means to fill it."""

    cache: Path
    run: Run
    configuration: Path = Path("/etc/apt")

    def provide(self, architectures: Sequence[str], components: Sequence[str], check_mode: bool, why: str) -> Provision:
        """Programs for these architectures, from the cache or freshly built; in check mode only said, not built."""
        self._refuse_other_systems()
        with self._lock():
            source = self._source_version()
            version = debian_upstream_version(source)
            go = self._go_version()
            programs, made = {}, False
            for architecture in architectures:
                key = build_key(source=source, go=go, architecture=architecture, recipe=RECIPE)
                directory = self.cache / f"debian-{version}-{architecture}-{key}"
                if not (directory / "manifest.json").exists():
                    made = True
                    if not check_mode:
                        self._build(source, architecture, directory)
                programs[architecture] = _read(directory, components)
        return Provision("debian_source", version, why, programs, made)

    def _refuse_other_systems(self) -> None:
        missing = [name for name in ("apt-get", "apt-cache", "dpkg-query") if not shutil.which(name)]
        if missing:
            raise UnifleetError(
                f"building Kubernetes from Debian's source needs Debian 12 on the controller ({', '.join(missing)} not found)",
                "use kubernetes_binaries_source: release with pinned checksums, or directory",
            )

    def _apt(self) -> list[str]:
        sources, lists = self.cache / "source.sources", self.cache / "lists"
        return [
            *("-o", f"Dir::Etc::sourcelist={sources}"),
            *("-o", "Dir::Etc::sourceparts=-"),
            *("-o", f"Dir::State::Lists={lists}"),
            *("-o", f"Dir::Cache::srcpkgcache={self.cache / 'srcpkgcache.bin'}"),
            *("-o", f"Dir::Cache::pkgcache={self.cache / 'pkgcache.bin'}"),
        ]

    def _source_version(self) -> str:
        wanted, sources = self._sources(), self.cache / "source.sources"
        stamp = self.cache / "lists" / "stamp"
        fresh = stamp.exists() and time.time() - stamp.stat().st_mtime < INDEX_LIFE and sources.exists() and sources.read_text() == wanted
        if not fresh:
            (self.cache / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            sources.write_text(wanted, encoding="utf-8")
            self._check(["apt-get", *self._apt(), "-qq", "update"], "the index of Debian's source packages could not be fetched")
            stamp.touch()
        shown = self._check(["apt-cache", *self._apt(), "showsrc", "--only-source", "kubernetes"], "no source package kubernetes")
        version = newest_source_version(shown)
        if not version:
            raise UnifleetError("the configured Debian archive has no source package kubernetes", "it is in Debian 12, component main")
        return version

    def _sources(self) -> str:
        """Debian's own archive as configured on this machine, for source packages; other publishers' entries stay out."""
        found = []
        for path in [self.configuration / "sources.list", *sorted((self.configuration / "sources.list.d").glob("*"))]:
            if path.suffix not in (".list", ".sources") or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".sources":
                found += [
                    item
                    for item in source_stanzas(text, classic=False).split("\n\n")
                    if "debian-archive-keyring" in item or "debian.sources" in str(path)
                ]
            else:
                found += [_stanza(line) for line in source_stanzas(text, classic=True).splitlines() if "/debian" in line]
        if not found:
            raise UnifleetError(f"no Debian archive is configured below {self.configuration}", "apt's sources.list names it")
        return "\n\n".join(item.strip() for item in found if item.strip()) + "\n"

    def _go_version(self) -> str:
        """Version of Debian's Go: the installed one, else the one that would be installed."""
        status, out, _err = self.run(["dpkg-query", "-W", "-f", "${Version}", GO])
        if status == 0 and out.strip():
            return out.strip()
        shown = self._check(["apt-cache", "policy", GO], f"{GO} is not known")
        for line in shown.splitlines():
            if line.strip().startswith("Candidate:") and "(none)" not in line:
                return line.split(":", 1)[1].strip()
        raise UnifleetError(
            f"{GO} is not available on the controller",
            "Debian 12 has it (apt-get update?); elsewhere use kubernetes_binaries_source: release or directory",
        )

    def _build(self, source: str, architecture: str, directory: Path) -> None:
        self._install_needed()
        scratch = Path(tempfile.mkdtemp(prefix="build-", dir=self.cache))
        try:
            argv = ["apt-get", *self._apt(), "-qq", "-o", "APT::Sandbox::User=root", "source", "--only-source", f"kubernetes={source}"]
            self._check(argv, "Debian's kubernetes source could not be fetched", cwd=str(scratch))
            tree = next(path for path in scratch.iterdir() if path.is_dir())
            link = tree / ".go/src/k8s.io/kubernetes"
            link.parent.mkdir(parents=True)
            link.symlink_to("../../..")
            environment = {
                "GOPATH": str(tree / ".go"),
                "GO111MODULE": "off",
                "GOFLAGS": "",
                "CGO_ENABLED": "0",
                "HOME": str(scratch),
                "PATH": f"{GO_PATH}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "KUBE_BUILD_PLATFORMS": f"linux/{architecture}",
                "SOURCE_DATE_EPOCH": str(int((tree / "debian/changelog").stat().st_mtime)),
            }
            what = " ".join(f"cmd/{component}" for component in COMPONENTS)
            self._check(["nice", "make", f"WHAT={what}"], "building Kubernetes failed", cwd=str(tree), environ_update=environment)
            built = tree / "_output/local/bin/linux" / architecture
            _store(built, scratch / "result", {"source": source, "architecture": architecture})
            (scratch / "result").replace(directory)
        finally:
            _remove(scratch)

    def _install_needed(self) -> None:
        missing = [name for name in NEEDED if self.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name])[1].strip() != "installed"]
        if not missing:
            return
        if os.geteuid() != 0:
            raise UnifleetError(f"building Kubernetes needs {' '.join(missing)} on the controller", "install them, or run as root")
        argv = ["apt-get", "-o", "DPkg::Lock::Timeout=500", "-qq", "-y", "install", "--no-install-recommends", *missing]
        self._check(argv, "what the build of Kubernetes needs could not be installed", environ_update={"DEBIAN_FRONTEND": "noninteractive"})

    def _check(self, argv: list[str], problem: str, **options: Any) -> str:
        status, out, err = self.run(argv, **options)
        if status != 0:
            tail = "\n".join((out + "\n" + err).strip().splitlines()[-15:])
            raise UnifleetError(f"{problem}: {' '.join(argv[:1])} ended with {status}: {tail}")
        return out

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Two runs at once build once: the second waits, then finds the cache filled."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _store(built: Path, result: Path, facts: dict[str, str]) -> None:
    result.mkdir()
    checksums = {}
    for component in COMPONENTS:
        shutil.copyfile(built / component, result / component)
        (result / component).chmod(0o755)
        checksums[component] = sha256_of(result / component)
    (result / "manifest.json").write_text(json.dumps({**facts, "sha256": checksums}, indent=2) + "\n", encoding="utf-8")


def _read(directory: Path, components: Sequence[str]) -> dict[str, Program]:
    try:
        checksums = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        checksums = {}
    return {name: Program(directory / name, checksums.get(name, "")) for name in components}


def _stanza(line: str) -> str:
    """One classic deb-src line as a deb822 stanza."""
    words = line.split()
    options = {}
    if len(words) > 1 and words[1].startswith("["):
        end = next(index for index, word in enumerate(words) if word.endswith("]"))
        for option in " ".join(words[1 : end + 1]).strip("[]").split():
            key, _equals, value = option.partition("=")
            options[key] = value
        words = [words[0], *words[end + 1 :]]
    signed = f"Signed-By: {options['signed-by']}\n" if "signed-by" in options else ""
    return f"Types: deb-src\nURIs: {words[1]}\nSuites: {words[2]}\nComponents: {' '.join(words[3:])}\n{signed}"


def _remove(scratch: Path) -> None:
    """Go marks what it caches as read-only; nothing here is worth keeping."""
    for root, _directories, _files in os.walk(scratch):
        Path(root).chmod(0o700)
    shutil.rmtree(scratch, ignore_errors=True)
