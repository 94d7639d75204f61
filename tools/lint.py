# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check that reads the sources and runs nothing: style, types, layers, YAML, roles. Says how long each step took.

All steps run even when one fails; the output of a step is shown only when it failed. `tools/lint.py mypy ruff` runs just these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "ansible_collections.unifleet.hybrid"
ROOMS = ("kube", "images", "guests", "machines", "kubelet", "runu", "watcher", "installer", "daemon", "router")
TYPED = ("plugins/module_utils", "plugins/host", "plugins/action", "plugins/filter", "plugins/modules", "plugins/test", "tools")
OLDEST_HOST_PYTHON = (3, 9)
MYPY_CACHE = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache/unifleet") / "mypy"
"""mypy goes by the content of a source where its path or time is another, so one cache serves all checkouts."""
Outcome = tuple[bool, str]


def run(*command: str, cwd: Path = ROOT, **environment: str) -> Outcome:
    """Run a command of the Python environment; whether it succeeded, and what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    process = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process.returncode == 0, process.stdout


def sources(*directories: str) -> list[Path]:
    """The Python files below these directories."""
    return sorted(path for directory in directories for path in (ROOT / directory).rglob("*.py"))


def ruff() -> Outcome:
    """Style and likely mistakes."""
    return run("ruff", "check", "--quiet", ".")


def ruff_format() -> Outcome:
    """Layout."""
    return run("ruff", "format", "--check", "--quiet", ".")


def mypy() -> Outcome:
    """Types, strictly, of all that the collection ships; by module name, as everything imports it."""
    modules: list[str] = []
    for path in sources(*(directory for directory in TYPED if directory.startswith("plugins"))):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules += ["-m", f"{PACKAGE}.{name.removesuffix('.__init__')}"]
    command = ("mypy", "--no-error-summary", "--cache-dir", str(MYPY_CACHE))
    good, said = run(*command, *modules, MYPYPATH=str(ROOT / "collections"))
    scripts_good, scripts_said = run(*command, "tools")
    return good and scripts_good, said + scripts_said


def import_linter() -> Outcome:
    """Who imports whom (.importlinter), on a copy that has the __init__.py files which a collection does without."""
    with tempfile.TemporaryDirectory(prefix="unifleet-imports-") as temporary:
        plugins = Path(temporary, *PACKAGE.split("."), "plugins")
        shutil.copytree(ROOT / "plugins", plugins, ignore=lambda _directory, names: {n for n in names if n == "__pycache__"})
        for room in [*(f"host/{name}" for name in ROOMS), "modules", "module_utils", "action", "filter"]:
            (plugins / room).mkdir(parents=True, exist_ok=True)
        for directory in [plugins, *(path for path in plugins.rglob("*") if path.is_dir()), *list(plugins.parents)[:3]]:
            (directory / "__init__.py").touch()
        return run("lint-imports", "--no-cache", "--config", str(ROOT / ".importlinter"), cwd=Path(temporary), PYTHONPATH=temporary)


def yamllint() -> Outcome:
    """YAML style."""
    return run("yamllint", "--strict", "--config-file", str(ROOT / ".yamllint"), str(ROOT))


def ansible_lint() -> Outcome:
    """Playbooks and roles, profile production, offline. A home of its own: a collection in the user's would shadow this one."""
    with tempfile.TemporaryDirectory(prefix="unifleet-lint-") as home:
        return run(
            "ansible-lint",
            "--offline",
            "--nocolor",
            "-q",
            ANSIBLE_HOME=home,
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"),
            NO_COLOR="1",
        )


def old_python() -> Outcome:
    """Host programs and module_utils parse as the oldest Python that hosts may have."""
    import ast

    problems = []
    for path in sources("plugins/host", "plugins/module_utils", "plugins/modules"):
        try:
            ast.parse(path.read_bytes(), str(path), feature_version=OLDEST_HOST_PYTHON)
        except SyntaxError as error:
            problems.append(f"{path.relative_to(ROOT)}:{error.lineno}: {error.msg}")
    # The real thing, where this machine has it: it also knows the grammar that feature_version lets pass.
    candidates = [*Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"), Path("/usr/bin/python3.9")]
    interpreter = next((path for path in candidates if path.is_file()), None)
    if interpreter:
        files = [str(path) for path in sources("plugins/host", "plugins/module_utils", "plugins/modules")]
        script = "import sys\nfor name in sys.argv[1:]:\n    compile(open(name, 'rb').read(), name, 'exec')"
        good, said = run(str(interpreter), "-I", "-c", script, *files)
        problems += [] if good else [said]
    return not problems, "\n".join(problems)


def roles() -> Outcome:
    """Every role says what it is for, what it takes, and with what defaults."""
    problems = []
    for role in sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()):
        problems += [
            f"{role.relative_to(ROOT)}/{name} is missing"
            for name in ("README.md", "meta/argument_specs.yml")
            if not (role / name).is_file()
        ]
    return not problems, "\n".join(problems)


def headers() -> Outcome:
    """Every Python file starts with licence and docstring."""
    problems = []
    for path in sources("plugins", "tests"):
        text = path.read_text(encoding="utf-8")
        if text.strip() and "GNU General Public License v3.0+" not in text[:400]:
            problems.append(f"{path.relative_to(ROOT)}: no licence header")
    return not problems, "\n".join(problems)


def changelog() -> Outcome:
    """Changelog fragments."""
    return run("antsibull-changelog", "lint")


STEPS: dict[str, Callable[[], Outcome]] = {
    "ruff": ruff,
    "format": ruff_format,
    "headers": headers,
    "roles": roles,
    "python3.9": old_python,
    "changelog": changelog,
    "imports": import_linter,
    "yamllint": yamllint,
    "mypy": mypy,
    "ansible-lint": ansible_lint,
}


def timed(step: Callable[[], Outcome]) -> tuple[bool, str, float]:
    """A step's outcome and its seconds."""
    started = time.monotonic()
    good, said = step()
    return good, said, time.monotonic() - started


def main(wanted: list[str]) -> int:
    """Run the wanted steps, or all; 0 when all are good."""
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        print(f"lint: no step {', '.join(unknown)}; there are {', '.join(STEPS)}", file=sys.stderr)
        return 2
    names = wanted or list(STEPS)
    failed = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = {name: pool.submit(timed, STEPS[name]) for name in reversed(names)}  # the long ones first
        for name in names:
            good, said, seconds = outcomes[name].result()
            print(f"{name:<13} {seconds:5.1f} s  {'ok' if good else 'FAILED'}", flush=True)
            if not good:
                failed.append(name)
                print("\n".join(f"    {line}" for line in said.rstrip().splitlines()), flush=True)
    if failed:
        print(f"lint: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
