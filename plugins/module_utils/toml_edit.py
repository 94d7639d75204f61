# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change a few tables of a TOML file that belongs to somebody else, and leave every other byte of it as it is.

The standard library reads TOML but does not write it, and whoever writes it anew loses the comments. So this finds where tables and
pairs stand in the text and changes just those places. It knows the layout of TOML 1.0 (headers, pairs, strings, brackets), not the
meaning of values: callers read the result with a real parser and compare, as module_utils/containerd_settings.py does. What cannot
be changed in place (a table written inline or with dotted keys) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import to_toml

Path = tuple[str, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = " \t"
_ESCAPE = re.compile(r'\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[btnfr"\\])')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Pair:
    """One "key = value": key as a path of its parts; start and end of its lines; value from value_start to value_end."""

    key: Path
    start: int
    end: int
    value_start: int
    value_end: int


@dataclass(frozen=True)
class Section:
    """One header and what follows it up to the next; the first section of a file has no header and the path ().

    array: it was written [[so]]. body: offset where the header's line ends. end: where the next section's header begins.
    """

    path: Path
    array: bool
    start: int
    body: int
    end: int
    indent: str
    pairs: tuple[Pair, ...]


def sections(text: str) -> list[Section]:
    """All sections of the text, in order. Raises UnifleetError with the line of what is not TOML."""
    return _Scanner(text).sections()


def put_table(text: str, path: Path, values: Mapping[str, Any], exact: bool = False) -> str:
    """The text with these keys in the table at path; a value that is a mapping is a table below it. None removes a key.

    exact: the table and those below it hold these keys and no others, so they are written anew.
    Raises UnifleetError when the table is written in a way that cannot be changed in place.
    """
    if exact:
        place = _first_start(text, path)
        rest = remove_table(text, path)
        return _insert(rest, path, values, place if place is None or place <= len(rest) else None)
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    for key, value in plain.items():
        text = _put_pair(text, path, key, value)
    for key, value in values.items():
        if isinstance(value, Mapping):
            text = put_table(text, (*path, key), value)
    return text


def remove_table(text: str, path: Path) -> str:
    """The text without the table at path and those below it; comments above the next header stay."""
    for section in reversed(sections(text)):
        if path and section.path[: len(path)] == path:
            before, after = text[: section.start], text[_content_end(section) :]
            # The empty line before it and the one after it become one; at the end of the file none is needed.
            if not before or before.endswith("\n\n"):
                after = after[1:] if after.startswith("\n") else after
                before = before if after or not before else before[:-1]
            text = before + after
    return text


def _first_start(text: str, path: Path) -> int | None:
    return next((section.start for section in sections(text) if section.path[: len(path)] == path), None)


def _content_end(section: Section) -> int:
    """Where the last pair (or the header) of the section ends: comments that follow belong to what comes next."""
    return max([section.body, *(pair.end for pair in section.pairs)])


def _put_pair(text: str, path: Path, key: str, value: Any) -> str:
    own = [section for section in sections(text) if section.path == path and not section.array]
    for section in own:
        for pair in section.pairs:
            if pair.key == (key,):
                if value is None:
                    return text[: pair.start] + text[pair.end :]
                return text[: pair.value_start] + _value(key, value) + text[pair.value_end :]
    if value is None:
        return text
    if not own:
        return _insert(text, path, {key: value}, None)
    section = own[-1]
    last = max(section.pairs, key=lambda pair: pair.end, default=None)
    place = last.end if last else section.body
    indent = _indent_at(text, last.start) if last else section.indent + ("  " if section.path else "")
    before = text[:place]
    return before + ("" if not before or before.endswith("\n") else "\n") + f"{indent}{_line(key, value)}\n" + text[place:]


def _insert(text: str, path: Path, values: Mapping[str, Any], place: int | None) -> str:
    """New sections, at the place or after the section that is nearest in name."""
    known = sections(text)
    if any(section.array and path[: len(section.path)] == section.path for section in known):
        raise UnifleetError(f"[{_dotted(path)}] lies in a list of tables, which is not changed here", "change the file by hand")
    if place is None:
        shared = [(_common(section.path, path), index) for index, section in enumerate(known)]
        nearest = known[max(shared)[1]] if max(shared)[0] else known[-1]
        place = _content_end(nearest)
    before = text[:place]
    glue = "" if not before or before.endswith("\n\n") else "\n" if before.endswith("\n") else "\n\n"
    written = _table(path, values)
    after = text[place:]
    return before + glue + written + ("\n" if after and not after.startswith("\n") else "") + after


def _table(path: Path, values: Mapping[str, Any]) -> str:
    """The table and those below it, each with its whole name, so that it may stand anywhere."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    text = ""
    if plain or not values:
        text = f"[{_dotted(path)}]\n" + "".join(f"  {_line(key, value)}\n" for key, value in plain.items())
    for key, value in values.items():
        if isinstance(value, Mapping):
            text += ("\n" if text else "") + _table((*path, key), value)
    return text


def _line(key: str, value: Any) -> str:
    return to_toml({key: value}).rstrip("\n")


def _value(key: str, value: Any) -> str:
    return _line("k", value).partition("= ")[2] if value is not None else _line(key, value)


def _dotted(path: Path) -> str:
    return ".".join(part if _BARE.fullmatch(part) else _line(part, 0).rpartition(" = ")[0] for part in path)


def _common(one: Path, other: Path) -> int:
    count = 0
    for left, right in zip(one, other):
        if left != right:
            break
        count += 1
    return count


def _indent_at(text: str, offset: int) -> str:
    end = offset
    while end < len(text) and text[end] in _SPACE:
        end += 1
    return text[offset:end]


class _Scanner:
    """Goes through the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def sections(self) -> list[Section]:
        found: list[tuple[Path, bool, int, int, str]] = [((), False, 0, 0, "")]
        pairs: list[list[Pair]] = [[]]
        for start, indent in self._statements():
            if self._text.startswith("[", self._at):
                array = self._text.startswith("[[", self._at)
                self._at += 2 if array else 1
                path = self._key("]")
                self._expect("]]" if array else "]")
                self._finish_line()
                found.append((path, array, start, self._at, indent))
                pairs.append([])
            else:
                pairs[-1].append(self._pair(start))
        ends = [entry[2] for entry in found[1:]] + [len(self._text)]
        return [
            Section(path, array, start, body, end, indent, tuple(own))
            for (path, array, start, body, indent), end, own in zip(found, ends, pairs)
        ]

    def _statements(self) -> Iterator[tuple[int, str]]:
        """(start of line, its indentation) of each header and pair; empty lines and comments are passed over."""
        while self._at < len(self._text):
            start = self._at
            indent = _indent_at(self._text, start)
            self._at += len(indent)
            if self._at >= len(self._text) or self._text[self._at] in "#\r\n":
                self._finish_line()
                continue
            yield start, indent

    def _pair(self, start: int) -> Pair:
        key = self._key("=")
        self._expect("=")
        self._skip_space()
        value_start = self._at
        self._skip_value()
        value_end = self._at
        self._finish_line()
        return Pair(key, start, self._at, value_start, value_end)

    def _key(self, until: str) -> Path:
        parts = []
        while True:
            self._skip_space()
            if self._at < len(self._text) and self._text[self._at] in "\"'":
                parts.append(self._quoted())
            else:
                bare = _BARE.match(self._text, self._at)
                if not bare:
                    raise self._fault("a key is wanted")
                parts.append(bare.group())
                self._at = bare.end()
            self._skip_space()
            if self._text.startswith(until, self._at):
                return tuple(parts)
            self._expect(".")

    def _quoted(self) -> str:
        start = self._at
        basic = self._text[start] == '"'
        self._skip_string()
        inner = self._text[start + 1 : self._at - 1]
        return _ESCAPE.sub(_unescaped, inner) if basic else inner

    def _skip_value(self) -> None:
        """To the end of a value: a line end or a comment outside strings and brackets."""
        depth = 0
        last = self._at
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in "\"'":
                self._skip_string()
                last = self._at
                continue
            if character in "#\n" and depth == 0:
                break
            if character == "#":
                self._at = self._line_end()
                continue
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0)
            self._at += 1
            last = self._at if character not in " \t\r\n" else last
        if depth:
            raise self._fault("a bracket is not closed")
        self._at = last

    def _skip_string(self) -> None:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._at += 3
            while not self._text.startswith(quote * 3, self._at):
                self._step(quote, many=True)
            self._at += 3
            while self._text.startswith(quote, self._at):  # up to two quotes may stand before the closing three
                self._at += 1
            return
        self._at += 1
        while not self._text.startswith(quote, self._at):
            self._step(quote, many=False)
        self._at += 1

    def _step(self, quote: str, many: bool) -> None:
        if self._at >= len(self._text) or (not many and self._text[self._at] == "\n"):
            raise self._fault("a string is not closed")
        self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1

    def _skip_space(self) -> None:
        self._at += len(_indent_at(self._text, self._at))

    def _expect(self, word: str) -> None:
        if not self._text.startswith(word, self._at):
            raise self._fault(f"{word!r} is wanted")
        self._at += len(word)

    def _finish_line(self) -> None:
        self._skip_space()
        if self._at < len(self._text) and self._text[self._at] not in "#\r\n":
            raise self._fault("the line should end here")
        self._at = min(self._line_end() + 1, len(self._text))

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _fault(self, what: str) -> UnifleetError:
        line = self._text.count("\n", 0, self._at) + 1
        return UnifleetError(f"line {line} is not TOML: {what}")


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1)
    return _ESCAPED[code] if code in _ESCAPED else chr(int(code[1:], 16))
