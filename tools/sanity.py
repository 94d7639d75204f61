# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test sanity on this checkout, without ignore files, and end with what failed.

ansible-test insists on a directory .../ansible_collections/NAMESPACE/NAME that is no link, so the checkout's files (tracked, or
new and not ignored) are copied into one. It makes its environments with a bootstrap script that it would download; pip comes
with Python as well, so a stand-in is put where ansible-test keeps its download. The environments are kept between runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet") / "ansible-test"

# ensurepip in a child process: in this one it would switch pip's configuration off, and with it the machine's package index and CA.
GET_PIP = '''\
"""Stand-in for the script that ansible-test would download: Python's own pip installs the wanted pip."""
import subprocess
import sys

arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *arguments]))
'''


def checkout_files() -> list[Path]:
    """The files of the checkout that are, or could be, in version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [Path(name) for name in sorted(set(listing.split("\0"))) if name and (ROOT / name).is_file()]


@contextmanager
def collection_copy() -> Iterator[Path]:
    """A copy of the checkout under the directory names that ansible-test wants."""
    with tempfile.TemporaryDirectory(prefix="unifleet-sanity-") as temporary:
        copy = Path(temporary).resolve() / "ansible_collections/unifleet/hybrid"
        for name in checkout_files():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        yield copy


def pip_versions() -> set[str]:
    """The pip versions that the installed ansible-test may ask for."""
    import ansible_test  # type: ignore[import-untyped]

    (directory,) = ansible_test.__path__
    source = (Path(directory) / "_internal/python_requirements.py").read_text(encoding="utf-8")
    return set(re.findall(r"['\"](\d\d\.\d+(?:\.\d+)?)['\"]", source))


def prepare_home(home: Path) -> None:
    """A home of ansible-test's own, so that nothing of the user's shadows the checkout; only pip's configuration is his."""
    downloads = home / ".ansible/test/cache"
    downloads.mkdir(parents=True, exist_ok=True)
    for version in pip_versions():
        (downloads / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP, encoding="utf-8")
    for name in (".config/pip", ".pip"):
        mine, theirs = home / name, Path.home() / name
        if theirs.is_dir() and not mine.is_symlink():
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.symlink_to(theirs)


def main(arguments: list[str]) -> int:
    """Run; arguments are handed to ansible-test sanity. Returns its exit code."""
    home = CACHE / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    prepare_home(home)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # The real interpreter's directory: ansible-test clears the environment that a version manager's shims live on.
    path = os.pathsep.join([str(Path(sys.executable).parent), str(Path(sys.base_prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "HOME": str(home), "ANSIBLE_HOME": str(home / ".ansible"), "PATH": path}
    for name in ("ANSIBLE_CONFIG", "PYTHONPATH", "MAKEFLAGS", "MFLAGS"):
        environment.pop(name, None)
    started = time.monotonic()
    with collection_copy() as copy:
        command = [str(Path(sys.executable).parent / "ansible-test"), "sanity", "--local", "--python", python, "--color", "no", *arguments]
        process = subprocess.run(
            command, cwd=copy, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    lines = process.stdout.splitlines()
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/sanity.log").write_text(process.stdout, encoding="utf-8")
    if process.returncode:  # all but the noise of making environments and of tests that passed
        print("\n".join(line for line in lines if re.match(r"ERROR|FATAL|See |\S+:\d+:\d+: |>>> |Traceback|\S+Error", line)))
    tests = sum(line.startswith("Running sanity test") for line in lines)
    verdict = "ok" if process.returncode == 0 else "FAILED"
    print(f"ansible-test sanity: {tests} tests on Python {python}, {time.monotonic() - started:.0f} s, {verdict}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
