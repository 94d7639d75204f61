#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible face of the base images: built once from the machine's own package sources, kept by content, shared by hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_base
short_description: Base image for lab hosts, built once and cached
version_added: 0.1.0
description:
  - Makes sure that the root file system of a Debian suite and architecture is in the cache, and says where.
  - It is built by mmdebstrap from the package sources of this machine, in memory when there is room, and kept under a name
    that contains a hash of everything it was made from (suite, architecture, packages, recipe). Nothing of the machine is in it.
  - The cache is C(~/.cache/unifleet/bases), or C(bases) below the directory in the environment variable E(UNIFLEET_CACHE).
author: [Unifleet developers (@unifleet)]
options:
  suite:
    description: Codename of the Debian release.
    type: str
    required: true
  architecture:
    description: Debian architecture. One that this machine does not run itself must have been enabled by M(unifleet.hybrid.lab_network).
    type: str
    required: true
  packages:
    description: Packages besides those that every base has.
    type: list
    elements: str
    default: []
  cache:
    description: Cache directory, instead of the usual one.
    type: path
attributes:
  check_mode:
    description: Says whether the base would be built.
    support: full
  diff_mode:
    description: The result is one directory that is there or not.
    support: none
  platform:
    description: Debian machines with root.
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Base image of a Raspberry Pi
  unifleet.hybrid.lab_base:
    suite: bookworm
    architecture: arm64
    packages: [python3-aiohttp]
  register: base
"""

RETURN = r"""
root:
  description: Root directory of the base. It must not be written to.
  returned: always
  type: str
  sample: /root/.cache/unifleet/bases/bookworm-amd64-5f0c2a61d7e4/root
seconds:
  description: How long building took; 0 when the base was in the cache.
  returned: always
  type: float
  sample: 18.4
"""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_apt, lab_machine, lab_recipe, lab_root
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_recipe import Recipe

SCRATCH = Path("/dev/shm")  # noqa: S108 - dpkg syncs every file; on a disk that takes three times as long
ROOM = 2 * 1024**3


class Builder:
    """Builds one base into its place in the cache."""

    def __init__(self, module: AnsibleModule, recipe: Recipe, cache: Path) -> None:
        self.module = module
        self.recipe = recipe
        self.place = cache / recipe.key
        self.root = self.place / "root"

    def build(self) -> float:
        """Build the base unless somebody else has meanwhile; the seconds it took."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self.place}.lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.root.is_dir():
                return 0.0
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="unifleet-base-", dir=scratch()) as directory:
                tarball = Path(directory) / "base.tar"
                self._bootstrap(tarball)
                self._unpack(tarball)
            return round(time.monotonic() - started, 1)

    def _bootstrap(self, tarball: Path) -> None:
        sources = lab_apt.debian_archive(lab_root.machine_sources(), lab_root.codename(), self.recipe.suite)
        settings = lab_apt.settings(self._run(["apt-config", "dump"]))
        command = lab_recipe.bootstrap(self.recipe, str(tarball), settings)
        self._run(command, data=lab_apt.render(sources), environment={"TMPDIR": str(tarball.parent)})

    def _unpack(self, tarball: Path) -> None:
        unfinished = Path(f"{self.place}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        root = unfinished / "root"
        root.mkdir(parents=True)
        self._run(["tar", "--extract", "--numeric-owner", "--xattrs", "--file", str(tarball), "--directory", str(root)])
        for pattern in lab_recipe.REMOVED:
            for path in root.glob(pattern):
                path.unlink()
        for name, text in lab_recipe.files(self.recipe).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        for name, target in lab_recipe.LINKS.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
        # Package lists were removed; with a new date on their directory, apt's cache_valid_time would take it for fresh lists.
        os.utime(root / "var/lib/apt/lists", (0, 0))
        unfinished.rename(self.place)

    def _run(self, words: list[str], data: str | None = None, environment: dict[str, str] | None = None) -> str:
        status, output, errors = self.module.run_command(words, data=data, binary_data=True, environ_update=environment)
        if status != 0:
            said = [line for line in errors.strip().splitlines() if line.strip()][-5:]
            raise UnifleetError(f"base {self.recipe.key}: {words[0]} failed: {' | '.join(said)}")
        return str(output)


def scratch() -> str | None:
    """A directory in memory when it has room for a root file system, else the usual temporary one."""
    return str(SCRATCH) if SCRATCH.is_dir() and shutil.disk_usage(SCRATCH).free > ROOM else None


def default_cache() -> Path:
    return Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache" / "unifleet") / "bases"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "suite": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "cache": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        lab_machine.preflight(module.get_bin_path, ["mmdebstrap", "tar", "dpkg", "apt-config"])
        machine = module.run_command(["dpkg", "--print-architecture"], check_rc=True)[1].strip()
        recipe = lab_recipe.recipe(params["suite"], params["architecture"], machine, tuple(params["packages"]))
        builder = Builder(module, recipe, Path(params["cache"]) if params["cache"] else default_cache())
        missing = not builder.root.is_dir()
        seconds = builder.build() if missing and not module.check_mode else 0.0
    except UnifleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=missing if module.check_mode else seconds > 0, root=str(builder.root), seconds=seconds)


if __name__ == "__main__":
    main()
