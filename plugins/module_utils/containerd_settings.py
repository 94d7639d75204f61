# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd's configuration must say for its CRI plugin, by version of the file and of the program. Pure.

The file has a version of its own: 2 up to containerd 1.7, 3 since 2.0, where the CRI plugin became two (containerd
docs/cri/config.md); 2.x still reads version 2. Files named by `imports` help only since 2.0: containerd 1.6 and 1.7 put a plugin's
section from an imported file in place of the whole section (cmd/containerd/server/config, mergeConfig), so that a drop-in with one
runtime would silently take away cni.bin_dir and every other runtime (measured with Debian's 1.6.20 and 1.7.24).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import toml_edit
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

STOCK_TYPE = "io.containerd.runc.v2"
V2 = ("plugins", "io.containerd.grpc.v1.cri")
V3_RUNTIME = ("plugins", "io.containerd.cri.v1.runtime")
V3_IMAGES = ("plugins", "io.containerd.cri.v1.images")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Runtime:
    """One entry of containerd.runtimes: what a pod's RuntimeClass names as handler."""

    name: str
    runtime_type: str = STOCK_TYPE
    options: Mapping[str, Any] = field(default_factory=dict)
    pod_annotations: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """The content of its table."""
        table: dict[str, Any] = {"runtime_type": self.runtime_type, **self.settings}
        if self.pod_annotations:
            table["pod_annotations"] = list(self.pod_annotations)
        if self.options:
            table["options"] = dict(self.options)
        return table


@dataclass(frozen=True)
class CriSettings:
    """Settings of the CRI plugin in words that do not depend on the version; None leaves what the file says."""

    sandbox_image: Optional[str] = None
    cni_bin_dir: Optional[str] = None
    cni_conf_dir: Optional[str] = None
    cni_conf_template: Optional[str] = None
    registry_config_path: Optional[str] = None
    systemd_cgroup: Optional[bool] = None
    restrict_oom_score_adj: Optional[bool] = None
    disable_cgroup: Optional[bool] = None

    def tables(self, version: int) -> dict[toml_edit.Path, dict[str, Any]]:
        """Table -> keys, for a version of the file."""
        runtime, images = (V2, V2) if version < 3 else (V3_RUNTIME, V3_IMAGES)
        runc = (*runtime, "containerd", "runtimes", "runc")
        pinned = {"sandbox_image": self.sandbox_image} if version < 3 else {}
        tables: dict[toml_edit.Path, dict[str, Any]] = {
            runtime: {**pinned, "restrict_oom_score_adj": self.restrict_oom_score_adj},
            (*runtime, "cni"): {"bin_dir": self.cni_bin_dir, "conf_dir": self.cni_conf_dir, "conf_template": self.cni_conf_template},
            (*images, "registry"): {"config_path": self.registry_config_path},
        }
        if version >= 3:
            tables[(*images, "pinned_images")] = {"sandbox": self.sandbox_image}
        else:
            tables[runtime]["disable_cgroup"] = self.disable_cgroup
        if self.systemd_cgroup is not None:
            tables[runc] = {"runtime_type": STOCK_TYPE}
            tables[(*runc, "options")] = {"SystemdCgroup": self.systemd_cgroup}
        return {
            path: {key: value for key, value in keys.items() if value is not None}
            for path, keys in tables.items()
            if any(value is not None for value in keys.values())
        }


def read(text: str, where: str) -> dict[str, Any]:
    """The file's content. Raises UnifleetError that names the file, also when this Python cannot read TOML."""
    for name in ("tomllib", "tomli", "toml"):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        try:
            document: dict[str, Any] = library.loads(text)
        except ValueError as error:
            raise UnifleetError(f"{where} is not TOML: {error}", "mend it; containerd cannot start with it either") from error
        return document
    raise UnifleetError("the host's Python has no TOML library", "install python3-tomli (Python 3.11 and newer have one)")


def program_version(said: str) -> tuple[int, int]:
    """(major, minor) from what `containerd --version` prints: "containerd github.com/containerd/containerd 1.6.20~ds1 ..."."""
    found = re.search(r"\s[v]?(\d+)\.(\d+)[.~+\-\w]*", said)
    if not found:
        raise UnifleetError(f"containerd does not say its version: {said.strip()!r}")
    return int(found.group(1)), int(found.group(2))


def file_version(document: Document, where: str) -> int:
    """The version of a configuration file. A file of version 1, which containerd 1.6 still reads, is refused: its tables are others."""
    version = document.get("version", 1 if document else 0)
    if version == 1:
        raise UnifleetError(
            f"{where} has the format of version 1, which containerd no longer writes", "`containerd config migrate` prints it anew"
        )
    if not isinstance(version, int) or isinstance(version, bool) or version > 3:
        raise UnifleetError(f"{where} has version {version!r}, which is not known here", "versions 2 and 3 are")
    return version


def fresh(program: tuple[int, int]) -> str:
    """The start of a file that does not exist yet."""
    return f"version = {3 if program >= (2, 0) else 2}\n"


def runtime_path(version: int, name: str) -> toml_edit.Path:
    """The table of a runtime."""
    return (*(V2 if version < 3 else V3_RUNTIME), "containerd", "runtimes", name)


def present_runtime(document: Document, version: int, name: str) -> Optional[dict[str, Any]]:
    """What a document says of a runtime; in a file of version 3 also under the name of version 2, which containerd then ignores."""
    found = _at(document, runtime_path(version, name))
    return dict(found) if isinstance(found, Mapping) else None


def explain(name: str, runtime_type: str, options: Document) -> str:
    """Why a runtime type cannot work with these options, or "".

    The form that unikernel runtimes' tutorials print, runtime_type = "io.containerd.runtime.runu.v2" with options.BinaryName, is one:
    containerd takes a type as the name of a shim program (runtime/v2/shim/util.go, BinaryName), and only the runc shim knows the option.
    """
    if runtime_type.startswith("/"):
        return ""
    parts = runtime_type.split(".")
    if len(parts) < 2 or not all(parts):
        return f"runtime_type {runtime_type!r} of {name} names no shim; it is like {STOCK_TYPE}"
    shim = f"containerd-shim-{parts[-2]}-{parts[-1]}"
    if "BinaryName" in options and shim != "containerd-shim-runc-v2":
        return (
            f'runtime_type "{runtime_type}" of {name} makes containerd start a program {shim}, and the option BinaryName is only read by '
            f"containerd-shim-runc-v2: another shim is not told of {options['BinaryName']}, and a copy or link of the runc shim under that "
            f'name panics because containerd then sends options of another type. Write runtime_type = "{STOCK_TYPE}" and keep BinaryName'
        )
    return ""


def with_runtime(text: str, version: int, runtime: Runtime, where: str) -> str:
    """The text with the runtime's table; the very same text when it says so already."""
    path, table = runtime_path(version, runtime.name), runtime.table()
    before = read(text, where)
    if present_runtime(before, version, runtime.name) == table:
        return text
    return _checked(toml_edit.put_table(text, path, table, exact=True), _with(before, path, table), where)


def without_runtime(text: str, version: int, name: str, where: str) -> str:
    """The text without the runtime's table."""
    before = read(text, where)
    if present_runtime(before, version, name) is None:
        return text
    path = runtime_path(version, name)
    return _checked(toml_edit.remove_table(text, path), _with(before, path, None), where)


def with_settings(text: str, version: int, settings: CriSettings, where: str) -> str:
    """The text with the CRI plugin's settings; keys that are so already are not touched."""
    wanted = before = read(text, where)
    for path, keys in settings.tables(version).items():
        known = _at(before, path)
        differing = {key: value for key, value in keys.items() if not isinstance(known, Mapping) or known.get(key) != value}
        if differing:
            text = toml_edit.put_table(text, path, differing)
            for key, value in differing.items():
                wanted = _with(wanted, (*path, key), value)
    return _checked(text, wanted, where)


def imports(document: Document) -> tuple[str, ...]:
    """The patterns of files that the document imports."""
    found = document.get("imports") or ()
    return tuple(str(pattern) for pattern in found) if isinstance(found, (list, tuple)) else ()


def _checked(text: str, wanted: Document, where: str) -> str:
    """The edited text, if it now means exactly what it should: an editor that was misled by an unusual layout does no harm."""
    try:
        good = _pruned(read(text, where)) == _pruned(wanted)
    except UnifleetError:
        good = False
    if not good:
        raise UnifleetError(
            f"{where} is laid out in a way that cannot be changed in place (tables written inline or with dotted keys)",
            "write the tables of its CRI plugin with [headers], or change the file by hand",
        )
    return text


def _pruned(document: Any) -> Any:
    """Without empty tables: a header more or less says nothing."""
    if not isinstance(document, Mapping):
        return document
    entries = {key: _pruned(value) for key, value in document.items()}
    return {key: value for key, value in entries.items() if value != {}}


def _at(document: Any, path: toml_edit.Path) -> Any:
    for part in path:
        if not isinstance(document, Mapping) or part not in document:
            return None
        document = document[part]
    return document


def _with(document: Any, path: toml_edit.Path, value: Any) -> dict[str, Any]:
    """A copy with the value at path, or without what is there."""
    copy = dict(document) if isinstance(document, Mapping) else {}
    if len(path) > 1:
        copy[path[0]] = _with(copy.get(path[0]), path[1:], value)
    elif value is None:
        copy.pop(path[0], None)
    else:
        copy[path[0]] = value
    return copy
