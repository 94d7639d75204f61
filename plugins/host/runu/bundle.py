# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI bundle's config.json, as far as a unikernel heeds it, checked.

containerd writes the file, yet much in it is what a pod's author said, so every field is looked at before it is used. What is not read
(capabilities, seccomp, rlimits, masked paths ...) speaks of a Linux process, and there is none: the guest is behind a hypervisor, and the
hypervisor's own process is confined by runu (machine.py).
"""

from __future__ import annotations

import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

CONFIG_MOST = 16 << 20
SANDBOX = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Bundle:
    """One bundle. directory: absolute. config: the decoded config.json; read it through the methods, which check."""

    __slots__ = ("config", "directory", "path")

    def __init__(self, directory: str, config: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.path = f"{directory}/config.json"

    @classmethod
    def read(cls, directory: str) -> Bundle:
        """Read directory/config.json. Raises UnifleetError."""
        directory = os.path.realpath(directory)
        path = f"{directory}/config.json"
        try:
            with open(path, "rb") as file:
                text = file.read(CONFIG_MOST + 1)
        except OSError as error:
            raise UnifleetError(f"{path} cannot be read: {error.strerror}", "name a bundle with --bundle") from error
        if len(text) > CONFIG_MOST:
            raise UnifleetError(f"{path} is larger than {CONFIG_MOST} bytes", "a config.json is some kilobytes long")
        config = document.loads(text, path)
        if not isinstance(config, dict):
            raise UnifleetError(f"{path} is not a JSON object", "see the runtime-spec's config.md")
        version = config.get("ociVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise UnifleetError(f"{path}: ociVersion is {_shown(version)}", "this runtime reads runtime-spec 1.x")
        return cls(directory, config)

    def get(self, key: str, kind: type, default: Any) -> Any:
        """The value at "a.b.c", of the kind; default where it is missing or null. Raises UnifleetError naming the key."""
        value: Any = self.config
        walked: list[str] = []
        for part in key.split("."):
            if not isinstance(value, dict):
                raise self.wrong(".".join(walked), value, "an object is wanted")
            walked.append(part)
            value = value.get(part)
            if value is None:
                return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(key, value, f"a {kind.__name__} is wanted")
        return value

    def wrong(self, key: str, value: Any, hint: str) -> UnifleetError:
        return UnifleetError(f"{self.path}: {key} is {_shown(value)}", hint)

    @property
    def rootfs(self) -> str:
        """The root file system's directory. Raises UnifleetError when it is none."""
        path = self.get("root.path", str, "rootfs")
        found = os.path.normpath(os.path.join(self.directory, path))
        if "\0" in found or not os.path.isdir(found):
            raise UnifleetError(f"{self.path}: root.path {_shown(path)} is no directory", "mount the root file system first")
        return found

    @property
    def annotations(self) -> dict[str, str]:
        found = self.get("annotations", dict, {})
        for key, value in found.items():
            if not isinstance(value, str):
                raise self.wrong(f"annotations[{key}]", value, "annotations are text")
        return dict(found)

    def is_sandbox(self) -> bool:
        """Whether this is a pod's pause container."""
        found = self.config.get("annotations")
        return isinstance(found, dict) and any(found.get(key) == "sandbox" for key in SANDBOX)

    @property
    def terminal(self) -> bool:
        return bool(self.get("process.terminal", bool, False))

    @property
    def args(self) -> tuple[str, ...]:
        """process.args. The first is the program's name, which a unikernel has not."""
        return tuple(self._texts("process.args"))

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """process.env in order; the last of a name wins."""
        found: dict[str, str] = {}
        for entry in self._texts("process.env"):
            name, _equals, value = entry.partition("=")
            found.pop(name, None)
            found[name] = value
        return tuple(found.items())

    @property
    def mounts(self) -> list[dict[str, Any]]:
        found = self.get("mounts", list, [])
        for number, mount in enumerate(found):
            if not isinstance(mount, dict) or not isinstance(mount.get("destination"), str):
                raise self.wrong(f"mounts[{number}]", mount, "an object with a destination is wanted")
            options = mount.get("options")
            if any(not isinstance(mount.get(key, ""), str) for key in ("source", "type")) or not _texts(options):
                raise self.wrong(f"mounts[{number}]", mount, "source and type are text, options a list of texts")
        return list(found)

    def hooks(self, kind: str) -> list[dict[str, Any]]:
        """The hooks of one kind, checked (config.md, POSIX-platform Hooks)."""
        found = self.get(f"hooks.{kind}", list, [])
        for number, hook in enumerate(found):
            key = f"hooks.{kind}[{number}]"
            if not isinstance(hook, dict) or not isinstance(hook.get("path"), str) or not hook["path"].startswith("/"):
                raise self.wrong(key, hook, "an object with an absolute path is wanted")
            if not _texts(hook.get("args")) or not _texts(hook.get("env")):
                raise self.wrong(key, hook, "args and env are lists of texts")
            timeout = hook.get("timeout")
            if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0):
                raise self.wrong(f"{key}.timeout", timeout, "a number of seconds above 0 is wanted")
        return list(found)

    def network_namespace(self) -> Optional[str]:
        """The path of the network namespace to join; "" for a new one; None for this process's own."""
        for number, namespace in enumerate(self.get("linux.namespaces", list, [])):
            if not isinstance(namespace, dict) or not isinstance(namespace.get("type"), str):
                raise self.wrong(f"linux.namespaces[{number}]", namespace, "an object with a type is wanted")
            if namespace["type"] == "network":
                path = namespace.get("path") or ""
                if not isinstance(path, str) or (path and (not path.startswith("/") or "\0" in path)):
                    raise self.wrong(f"linux.namespaces[{number}].path", path, "an absolute path is wanted")
                return path
        return None

    @property
    def cgroups_path(self) -> str:
        return str(self.get("linux.cgroupsPath", str, ""))

    @property
    def resources(self) -> dict[str, Any]:
        return dict(self.get("linux.resources", dict, {}))

    def memory_limit(self) -> int:
        """Bytes; 0 for none."""
        return max(0, int(self.get("linux.resources.memory.limit", int, 0)))

    def cpus(self) -> int:
        """The processors that the quota makes, rounded up; 1 without a quota."""
        quota = int(self.get("linux.resources.cpu.quota", int, 0))
        period = int(self.get("linux.resources.cpu.period", int, 0)) or 100000
        return max(1, -(-quota // period)) if quota > 0 and period > 0 else 1

    def nameservers(self) -> tuple[str, ...]:
        """The IPv4 name servers of the file that is mounted at /etc/resolv.conf, at most three."""
        found: list[str] = []
        for mount in self.mounts:
            if mount["destination"] == "/etc/resolv.conf":
                try:
                    with open(mount.get("source", ""), "rb") as file:
                        lines = file.read(65536).decode("ascii", "replace").splitlines()
                except (OSError, ValueError):
                    continue
                found = [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver" and _is_ipv4(words[1])]
        return tuple(found[:3])

    def _texts(self, key: str) -> list[str]:
        found = self.get(key, list, [])
        for number, entry in enumerate(found):
            if not isinstance(entry, str) or "\0" in entry:
                raise self.wrong(f"{key}[{number}]", entry, "text without NUL is wanted")
        return list(found)


def _texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(entry, str) and "\0" not in entry for entry in value))


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and part.isascii() and len(part) <= 3 and int(part) <= 255 for part in parts)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
