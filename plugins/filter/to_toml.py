# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter to_toml: configuration files that the collection owns whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import to_toml


def filter_to_toml(document: Any) -> str:
    """The mapping as TOML; an AnsibleFilterError says what TOML cannot carry."""
    if not isinstance(document, Mapping):
        raise AnsibleFilterError(f"to_toml needs a mapping, not {type(document).__name__}")
    try:
        return to_toml(document)
    except UnifleetError as error:
        raise AnsibleFilterError(f"to_toml: {error}") from error


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[[Any], str]]:
        """Name -> function."""
        return {"to_toml": filter_to_toml}
