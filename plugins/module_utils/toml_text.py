# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML out of plain data, for configuration files that the collection owns whole, and back.

The standard library only reads TOML, and does so from Python 3.11 on; older hosts have a distribution's package for it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def to_toml(document: Mapping[str, Any]) -> str:
    """The document as TOML 1.0: plain values first, then one [section] per mapping, in the order given; None is left out.

    Raises UnifleetError for a value that TOML does not know, naming its key.
    """
    return "\n".join(_table(document, ())).strip("\n") + "\n" if document else ""


def from_toml(text: str) -> Any:
    """The document in a text. Raises ValueError for one that is not TOML, UnifleetError where this Python cannot read any."""
    for name in ("tomllib", "tomli", "toml"):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        return library.loads(text)
    raise UnifleetError("this Python has no TOML library", "install python3-toml, or write the file as JSON with the name *.json")


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    for key in table:
        if not isinstance(key, str):
            raise UnifleetError(f"{'.'.join((*path, str(key)))}: keys of TOML are strings, not {type(key).__name__}")
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value, (*path, key))}" for key, value in plain.items()]
    if path and (lines or not table):
        lines.insert(0, f"[{'.'.join(_key(part) for part in path)}]")
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_table(value, (*path, key))]
    return lines


def _key(key: str) -> str:
    return str(key) if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise UnifleetError(f"{text!r} is no text that TOML can carry", "use valid Unicode")
    return '"' + "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else c) for c in text) + '"'


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise UnifleetError(f"{'.'.join(path)}: {value} does not fit into 64 bits")
        return str(int(value))
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(float(value)), repr(float(value)))
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(entry, (*path, key))}" for key, entry in value.items() if entry is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "[" + ", ".join(_value(entry, path) for entry in value) + "]"
    raise UnifleetError(f"{'.'.join(path)}: TOML has no {type(value).__name__}", "use text, numbers, true or false, lists and mappings")
