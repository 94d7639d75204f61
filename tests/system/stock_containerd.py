# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd as Debian ships it, run from its unpacked package with directories of its own: nothing is installed, and it can be killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import pytest

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_apt

CACHE = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet") / "containerd"
SUITES = {"bookworm": "1.6", "trixie": "1.7", "sid": "2."}
EACH = [suite if suite == "trixie" else pytest.param(suite, marks=pytest.mark.wide) for suite in SUITES]
"""For tests of each of them: the middle one is tried always."""


def packages(suite: str) -> Path:
    """containerd and runc of a Debian suite, unpacked; from the machine's own package sources."""
    place = CACHE / suite
    if (place / "usr/bin/containerd").is_file():
        return place
    work = CACHE / f"{suite}.{os.getpid()}"
    for name in ("lists/partial", "cache/archives/partial", "root"):
        (work / name).mkdir(parents=True)
    found = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    sources = lab_apt.parse({path.name: path.read_text() for path in found if path.is_file()})
    (work / "lab.sources").write_text(lab_apt.render(lab_apt.debian_archive(sources, "bookworm", suite)))
    options = [f"Dir::Etc::sourcelist={work}/lab.sources", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::lists={work}/lists"]
    options += [f"Dir::Cache={work}/cache", "APT::Sandbox::User=root", "APT::Architectures=amd64"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    try:
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "download", "containerd", "runc"], check=True, capture_output=True, cwd=work)
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
        (work / "root").rename(place)
    finally:
        shutil.rmtree(work)
    return place


def programs_of(suite: str) -> Path:
    """Where a suite's containerd and ctr are; sid may be unreachable, and the test is skipped then, saying why."""
    try:
        return packages(suite) / "usr/bin"
    except (subprocess.CalledProcessError, OSError) as error:
        if suite != "sid":
            raise
        pytest.skip(f"sid's containerd cannot be fetched: {getattr(error, 'stderr', error)}")


@dataclass
class Containerd:
    """A containerd and its ctr. variables: what its environment, and so the runtime's, has beside the usual."""

    programs: Path
    directory: Path
    namespace: str = "default"
    variables: Mapping[str, str] = field(default_factory=dict)
    process: Optional[subprocess.Popen[bytes]] = None

    def ctr(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [str(self.programs / "ctr"), "-a", str(self.directory / "s.sock"), "-n", self.namespace, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment(), timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def environment(self) -> Mapping[str, str]:
        """Debian 12's runc for all of them, as a newer one wants a newer libc than this machine's."""
        runc = packages("bookworm") / "usr"
        path = f"{runc}/bin:{runc}/sbin:{self.programs}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "TMPDIR": str(self.directory), **self.variables}

    def root_of(self, reference: str, name: str) -> Path:
        """The image mounted, as a container would see it."""
        place = self.directory / name
        place.mkdir()
        self.ctr("images", "mount", reference, str(place))
        return place

    def version(self) -> str:
        return subprocess.run([self.programs / "containerd", "--version"], check=True, capture_output=True, text=True).stdout.strip()

    def configuration(self) -> str:
        """What is in its configuration file."""
        return (
            f"version = 2\nroot = '{self.directory}/root'\nstate = '{self.directory}/state'\n"
            f"disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{self.directory}/s.sock'\n"
        )

    def command(self) -> list[str]:
        """What runs it."""
        return [str(self.programs / "containerd"), "-c", str(self.directory / "config.toml")]

    def start(self) -> None:
        """Start it, or start it again on the same directories, and wait until it answers."""
        (self.directory / "config.toml").write_text(self.configuration())
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.environment())
        until = time.monotonic() + 30
        while self.ctr("version", check=False).returncode:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < until, (self.directory / "log").read_text()
            time.sleep(0.1)

    def stop(self, *, crash: bool = False) -> None:
        """End it in order, or as a crash does; its shims and what they hold stay."""
        if self.process is not None:
            if crash:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(30)
            self.process = None
