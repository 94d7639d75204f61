# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON without the json module: that one imports re and enum, which doubles the start time of a Python that only says a few words.

Reading uses the interpreter's own C scanner, the same that json uses, and falls back to json where it is not there. Writing is for
the runtime's own small documents.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_SCANNER: Any = None
try:
    import _json

    _SCANNER = _json.make_scanner
    _quoted: Callable[[str], str] = _json.encode_basestring_ascii
except (ImportError, AttributeError):  # another Python than CPython
    from json.encoder import encode_basestring_ascii as _quoted

_SPACE = " \t\n\r"


class _Context:
    """What json.decoder.JSONDecoder is to the scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is no JSON")


def loads(text: bytes, what: str) -> Any:
    """The document. what: its name in an error. Raises UnifleetError for anything but one JSON document in UTF-8."""
    try:
        content = text.decode("utf-8")
    except ValueError as error:
        raise UnifleetError(f"{what} is not UTF-8: {error}", "write one JSON document in UTF-8") from error
    if _SCANNER is not None:
        start = 0
        while start < len(content) and content[start] in _SPACE:
            start += 1
        try:
            document, end = _SCANNER(_Context)(content, start)
            if not content[end:].strip(_SPACE):
                return document
        except (ValueError, StopIteration, RecursionError, SystemError):  # SystemError: it wants json.decoder's exception, not imported yet
            pass
    import json

    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnifleetError(f"{what} is not JSON: {error}", "write one JSON document in UTF-8") from error


def dumps(value: Any) -> str:
    """One line of JSON of plain data; None, lists, tuples, mappings with text keys, text, numbers and truth values."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(str(key))}:{dumps(entry)}" for key, entry in value.items()) + "}"
    return "[" + ",".join(dumps(entry) for entry in value) + "]"
