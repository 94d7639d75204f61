# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's labels: where they come from, which wins, and how a changed file is taken over while everything runs.

built-in < configuration file < labels file < environment < flag. What the host is (os, architecture, host name) is locked. A label
that the API server would refuse is an error that names every offending key with its source; at start it ends the agent, later it
leaves the labels as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.config import read_document
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.label_grammar import LabelError, node_label_problems, parse_label_list

ENVIRONMENT = ("UNIFLEET_NODE_LABELS", "LABELS")
ACCELERATOR_LABEL = "unifleet.io/accelerator"
PROVIDER_LABEL = "unifleet.io/provider"

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv8l": "arm", "i386": "386", "i686": "386"}


@dataclass(frozen=True)
class LabelSource:
    """One place that labels come from; name is for people ("the flag --node-labels", a file's path)."""

    name: str
    labels: Mapping[Any, Any]


class LabelSourcesError(UnifleetError):
    """Labels that cannot be set; lines has one sentence for each, with its source."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__(
            "; ".join(lines), "mend them where they come from; labels that only administrators may set belong to the module node_labels"
        )
        self.lines = lines


def go_architecture(machine: str) -> str:
    """uname's machine in the terms of Go, Kubernetes and OCI: amd64, arm64, arm, ..."""
    if machine in _GO_ARCHITECTURES:
        return _GO_ARCHITECTURES[machine]
    return "arm" if machine.startswith("armv") else machine


def builtin_labels(node_name: str, architecture: str, provider: str, accelerator: str = "") -> dict[str, str]:
    """What every virtual node says of itself; accelerator "" when the provider has none to tell."""
    labels = {
        "kubernetes.io/hostname": node_name[:63].rstrip("-."),
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
        "node.kubernetes.io/instance-type": f"unifleet-{provider}",
        "type": "virtual-kubelet",
        PROVIDER_LABEL: provider,
    }
    if accelerator:
        labels[ACCELERATOR_LABEL] = accelerator
    return labels


def read_labels_file(path: Path) -> dict[str, Any]:
    """A mapping of label to value, JSON or TOML by the file's name. What the labels may be is checked in merge_sources."""
    return read_document(path)


def gather_sources(
    config_labels: Mapping[str, Any],
    file: Optional[Path],
    environment: Mapping[str, str],
    flags: Sequence[str],
) -> list[LabelSource]:
    """All sources, weakest first. Raises UnifleetError for a file that cannot be read and text that is no list of pairs."""
    sources = []
    if config_labels:
        sources.append(LabelSource("the [labels] of the configuration", config_labels))
    if file is not None:
        sources.append(LabelSource(str(file), read_labels_file(file)))
    for name in reversed(ENVIRONMENT):
        if environment.get(name):
            source = f"the environment variable {name}"
            sources.append(LabelSource(source, parse_label_list(environment[name], source)))
    if flags:
        source = "the flag --node-labels"
        sources.append(LabelSource(source, parse_label_list(",".join(flags), source)))
    return sources


def merge_sources(builtin: Mapping[str, str], sources: Sequence[LabelSource]) -> dict[str, str]:
    """The node's labels. Raises LabelSourcesError with every offending label of every source."""
    merged = dict(builtin)
    lines: list[str] = []
    for source in sources:
        # Saying again what is true anyway does no harm.
        asked = {key: value for key, value in source.labels.items() if key not in builtin or builtin[key] != value}
        lines.extend(f"{source.name}: label {problem}" for problem in node_label_problems(asked))
        merged.update(asked)
    if lines:
        raise LabelSourcesError(tuple(lines))
    return merged


class NodeLabels:
    """The labels as they should be now. reload() reads the sources again and keeps the old labels when they are bad."""

    def __init__(
        self,
        builtin: Mapping[str, str],
        config_labels: Mapping[str, Any],
        file: Optional[Path],
        environment: Mapping[str, str],
        flags: Sequence[str],
    ) -> None:
        self._builtin = dict(builtin)
        self._config_labels = config_labels
        self._file = file
        self._environment = environment
        self._flags = tuple(flags)
        self._seen = self._fingerprint()
        self.wanted = self._read()

    def changed_on_disk(self) -> bool:
        """Whether the labels file is another one than last time (each change is told once)."""
        seen = self._fingerprint()
        changed, self._seen = seen != self._seen, seen
        return changed

    def reload(self) -> bool:
        """Take over the sources as they are now; True when the labels are others. Raises UnifleetError and keeps the old ones."""
        fresh = self._read()
        changed, self.wanted = fresh != self.wanted, fresh
        return changed

    def _read(self) -> dict[str, str]:
        try:
            sources = gather_sources(self._config_labels, self._file, self._environment, self._flags)
        except LabelError as error:
            raise LabelSourcesError(tuple(f"{error.source}: {problem}" for problem in error.problems)) from error
        return merge_sources(self._builtin, sources)

    def _fingerprint(self) -> Optional[tuple[int, int, int]]:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
