# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters on node labels: which of them a node may give itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.node_labels import split_labels


def self_settable_labels(labels: Any) -> dict[str, str]:
    """The labels that NodeRestriction lets a node set on itself: what belongs into an agent's labels file or --node-labels."""
    if not isinstance(labels, Mapping):
        raise AnsibleFilterError(f"self_settable_labels needs a mapping of labels, not {type(labels).__name__}")
    return split_labels(labels)[0]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[[Any], dict[str, str]]]:
        """Name -> function."""
        return {"self_settable_labels": self_settable_labels}
