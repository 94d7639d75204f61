# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host program consists of, packed so that the same sources always give the same bytes.

A program is a package under plugins/host with a main.py that has main(). Only its package and what that can reach by imports are
packed, so that a change elsewhere in the collection restarts nothing. Modules keep their full names
(ansible_collections.unifleet.hybrid...), so programs, Ansible modules and tests import one way. Every parent package gets an
__init__.py: a namespace package would lose against a collection tree that the host may have of its own.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

COLLECTION = "ansible_collections.unifleet.hybrid"
HOST_ROOM = f"{COLLECTION}.plugins.host"

# realpath: the program stays with its own version when `current` moves on beneath it.
# -I: neither the environment nor the working directory can slip in other modules.
LAUNCHER = """\
#!{python} {options}
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))
from {module} import main

sys.exit(main())
"""


STANDARD_LIBRARY_ONLY = frozenset({"runu", "router"})
"""Packages that need no other: their interpreter leaves out `site`, which is half of what a start costs a program that starts often."""


@dataclass(frozen=True)
class Entry:
    """One file of an application; path is relative to the version's directory."""

    path: str
    content: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        return 0o755 if self.executable else 0o644


@dataclass(frozen=True)
class App:
    """Programs packed for hosts. version: "0.1.0+1a2b3c4d", the collection's version and a hash of the content."""

    version: str
    programs: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def manifest(self) -> str:
        return manifest_of(self.entries)

    def archive(self) -> bytes:
        """The files as a .tar.gz that depends on nothing but their names and content."""
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for entry in self.entries:
                member = tarfile.TarInfo(entry.path)
                member.size = len(entry.content)
                member.mode = entry.mode
                tar.addfile(member, io.BytesIO(entry.content))
        return buffer.getvalue()

    def single_file(self, python: str = "/usr/bin/python3") -> bytes:
        """The one program as one executable file that Python reads itself (PEP 441), for a host that needs nothing else of ours.

        It is compiled at each start, so it is for what starts seldom. Nothing is compressed: zlib's bytes differ by version.
        """
        [program] = self.programs
        [launcher] = [entry for entry in self.entries if entry.path == f"bin/{program}"]
        interpreter, _newline, code = launcher.content.partition(b"\n")
        options = interpreter.split(b" ")[1:]
        buffer = io.BytesIO()
        buffer.write(b" ".join([b"#!" + python.encode(), *options]) + b"\n")
        sources = {entry.path[len("lib/") :]: entry.content for entry in self.entries if entry.path.startswith("lib/")}
        start = b"".join(line for line in code.splitlines(keepends=True) if b"sys.path" not in line)
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as packed:
            for path, content in sorted({**sources, "__main__.py": start}.items()):
                packed.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue()


@dataclass(frozen=True)
class Import:
    """One module that a source file names. optional: the source is ready to go on without it."""

    module: str
    line: int
    optional: bool = False


def manifest_of(entries: Iterable[Entry]) -> str:
    """One line "SHA256 MODE PATH" per file, sorted by path."""
    return "".join(f"{hashlib.sha256(e.content).hexdigest()} {e.mode:04o} {e.path}\n" for e in sorted(entries, key=lambda e: e.path))


def collection_version(root: Path) -> str:
    """The version of the collection at root: from galaxy.yml in a checkout, from MANIFEST.json when it is installed."""
    galaxy, manifest = root / "galaxy.yml", root / "MANIFEST.json"
    if manifest.is_file():
        version = json.loads(manifest.read_text(encoding="utf-8")).get("collection_info", {}).get("version")
    elif galaxy.is_file():
        found = re.search(r"^version:\s*[\"']?([^\s\"'#]+)", galaxy.read_text(encoding="utf-8"), re.MULTILINE)
        version = found.group(1) if found else None
    else:
        version = None
    if not isinstance(version, str) or not re.fullmatch(r"[0-9A-Za-z.+-]+", version):
        raise UnifleetError(f"the collection at {root} does not say its version", "install it again, or use a complete checkout")
    return version


def pack(root: Path, programs: Mapping[str, str], files: Mapping[str, Path], python: str = "/usr/bin/python3") -> App:
    """Pack programs (launcher name -> package under plugins/host) and data files (path inside the version -> local file).

    root is the collection's root directory. Raises UnifleetError for a package that is not there, an import that leads nowhere, a
    source that does not parse, or a file name that leads out of the version's directory.
    """
    if not programs:
        raise UnifleetError("no program to pack", "name at least one program, as in virtual-kubelet: kubelet")
    entries: dict[str, Entry] = {}
    for name, package in programs.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) or not re.fullmatch(r"[a-z_][a-z0-9_]*", package):
            raise UnifleetError(f"program {name!r}: {package!r} is not NAME: PACKAGE", "for example virtual-kubelet: kubelet")
        module = f"{HOST_ROOM}.{package}.main"
        launcher = LAUNCHER.format(python=python, module=module, options="-IS" if package in STANDARD_LIBRARY_ONLY else "-I").encode()
        if not root.joinpath("plugins", "host", package, "main.py").is_file():
            raise UnifleetError(f"program {name} wants plugins/host/{package}/main.py, which is not there", "check the program's package")
        entries[f"bin/{name}"] = Entry(f"bin/{name}", launcher, executable=True)
        own = sorted(root.joinpath("plugins", "host", package).glob("*.py"))  # all: it may start one of its files by path
        for path, content in reachable(root, *(f"{HOST_ROOM}.{package}.{source.stem}" for source in own)).items():
            entries[f"lib/{path}"] = Entry(f"lib/{path}", content)
    for destination, source in files.items():
        inside = PurePosixPath(destination)
        if inside.is_absolute() or ".." in inside.parts or inside.parts[:1] in {(), ("bin",), ("lib",)} or len(inside.parts) < 2:
            raise UnifleetError(
                f"file destination {destination!r} does not stay inside the version's directory", "use DIRECTORY/NAME, not bin or lib"
            )
        try:
            entries[str(inside)] = Entry(str(inside), source.read_bytes(), executable=bool(source.stat().st_mode & 0o100))
        except OSError as error:
            raise UnifleetError(
                f"cannot read {source}, wanted as {destination}: {error.strerror}", "build it first, or drop it from files"
            ) from error
    ordered = tuple(entries[path] for path in sorted(entries))
    digest = hashlib.sha256(manifest_of(ordered).encode()).hexdigest()
    return App(f"{collection_version(root)}+{digest[:8]}", tuple(sorted(programs)), ordered)


def reachable(root: Path, *modules: str) -> dict[str, bytes]:
    """Path -> source of modules, of all that they import from the collection, and of their parent packages."""
    sources: dict[str, bytes] = {}
    todo = [(Import(module, 0), "the program") for module in modules]
    seen: set[str] = set()
    while todo:
        wanted, importer = todo.pop()
        if wanted.module in seen:
            continue
        path = _source_of(root, wanted.module)
        if path is None:
            if wanted.optional:
                continue
            raise UnifleetError(
                f"{importer}:{wanted.line} wants {wanted.module}, which is not there", "the collection is incomplete, or the name is wrong"
            )
        seen.add(wanted.module)
        parts = wanted.module.split(".")
        for depth in range(1, len(parts)):
            sources.setdefault("/".join(parts[:depth]) + "/__init__.py", _package_source(root, parts[:depth]))
            parent = ".".join(parts[:depth])
            if depth > 3 and parent not in seen and _source_of(root, parent) is not None:
                todo.append((Import(parent, 0), importer))
        if path.is_dir():
            sources.setdefault("/".join(parts) + "/__init__.py", b"")
            continue
        content = path.read_bytes()
        package = path.name == "__init__.py"
        sources["/".join(parts) + ("/__init__.py" if package else ".py")] = content
        where = str(path.relative_to(root))
        todo += [(found, where) for found in imports_of(content, wanted.module, package, where, root)]
    return sources


def imports_of(content: bytes, module: str, package: bool, where: str, root: Path) -> Iterator[Import]:
    """The collection's modules that a source names: by import statements anywhere in it, or as a string for importlib.

    What stands under `if TYPE_CHECKING` is not needed at run time; what stands in a try that catches ImportError is optional.
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise UnifleetError(f"{where} is not Python: {error}", "mend the source") from error
    for node, optional in _walk(tree, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _ours(alias.name):
                    yield Import(alias.name, node.lineno, optional)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, package)
            if base is None or not _ours(base):
                continue
            names = [f"{base}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if _source_of(root, name) is not None]
            if len(submodules) < len(names):
                yield Import(base, node.lineno, optional)
            yield from (Import(name, node.lineno, optional) for name in submodules)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _ours(node.value)
            and _source_of(root, node.value) is not None
        ):
            yield Import(node.value, node.lineno, optional)


def _walk(node: ast.AST, optional: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, optional
    if isinstance(node, ast.If) and _names(node.test) & {"TYPE_CHECKING"}:
        children: Iterable[ast.AST] = list(node.orelse)
    elif isinstance(node, ast.Try) and any(_names(handler.type) & {"ImportError", "ModuleNotFoundError"} for handler in node.handlers):
        for guarded in node.body:
            yield from _walk(guarded, True)
        children = [*node.handlers, *node.orelse, *node.finalbody]
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _walk(child, optional)


def _names(node: Optional[ast.AST]) -> set[str]:
    if node is None:
        return set()
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def _ours(name: str) -> bool:
    return name.startswith(f"{COLLECTION}.plugins.")


def _absolute(node: ast.ImportFrom, module: str, package: bool) -> Optional[str]:
    if not node.level:
        return node.module
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def _source_of(root: Path, module: str) -> Optional[Path]:
    """The file of a module, or the directory of a package that has no __init__.py, or None."""
    if not re.fullmatch(r"[A-Za-z0-9_.]+", module):
        return None
    base = root.joinpath(*module.split(".")[3:])
    for candidate in (base.with_name(base.name + ".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return base if base.is_dir() else None


def _package_source(root: Path, parts: list[str]) -> bytes:
    init = root.joinpath(*parts[3:], "__init__.py")
    return init.read_bytes() if len(parts) > 3 and init.is_file() else b""
