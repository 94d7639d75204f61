# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `@dataclass` gives to a plain class, without compiling code for it: a stand-in for the dataclasses module in `runu create`.

dataclasses writes six functions for each class and has them compiled, 0.7 ms a class. A create meets a dozen classes of the libraries that
it shares with other rooms, makes one object of each, and is gone: that was a tenth of its time. Here the same functions are written once,
as loops over a class's fields. A class that asks for more than these can do gets the real thing; and when a module asks for anything else
of dataclasses, as asdict, that is the real module from then on.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIELDS = "__record_fields__"
_MISSING = object()


class _Field:
    """What field() says of one."""

    __slots__ = ("compare", "default", "default_factory", "repr")

    def __init__(self, default: Any = _MISSING, default_factory: Any = _MISSING, repr: bool = True, compare: bool = True) -> None:
        self.default = default
        self.default_factory = default_factory
        self.repr = repr
        self.compare = compare

    def value(self) -> Any:
        return self.default if self.default_factory is _MISSING else self.default_factory()

    def optional(self) -> bool:
        return self.default is not _MISSING or self.default_factory is not _MISSING


def _init(self: Any, *args: Any, **named: Any) -> None:
    fields: dict[str, _Field] = getattr(type(self), _FIELDS)
    if len(args) > len(fields):
        raise TypeError(f"{type(self).__name__} takes {len(fields)} values, and {len(args)} were given")
    values = self.__dict__
    values.update(zip(fields, args))
    for name, field in fields.items():
        if name in named:
            if name in values:
                raise TypeError(f"{type(self).__name__} got {name} twice")
            values[name] = named.pop(name)
        elif name not in values:
            if not field.optional():
                raise TypeError(f"{type(self).__name__} wants {name}")
            values[name] = field.value()
    if named:
        raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, field in getattr(type(self), _FIELDS).items() if field.compare)


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, field in getattr(type(self), _FIELDS).items() if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _setattr(self: Any, name: str, _value: object) -> None:
    raise AttributeError(f"{type(self).__name__} is frozen, and so is its {name}")


def _delattr(self: Any, name: str) -> None:
    raise AttributeError(f"{type(self).__name__} is frozen, and so is its {name}")


def _field(**options: Any) -> Any:
    """dataclasses.field."""
    return _Field(**options) if set(options) <= set(_Field.__slots__) else _real().field(**options)


def _dataclass(cls: type | None = None, **options: Any) -> Any:
    """dataclasses.dataclass."""
    if cls is None:
        return lambda cls: _dataclass(cls, **options)
    names = getattr(cls, "__annotations__", {})
    said = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    if not _is_plain(cls, said) or options != {"frozen": True}:
        for name, value in said.items():
            if isinstance(value, _Field):
                known = {key: getattr(value, key) for key in _Field.__slots__ if getattr(value, key) is not _MISSING}
                setattr(cls, name, _real().field(**known))
        return _real().dataclass(cls, **options)
    fields = {name: value if isinstance(value, _Field) else _Field(value) for name, value in ((n, said.get(n, _MISSING)) for n in names)}
    for name in said:
        if fields[name].default is _MISSING:
            delattr(cls, name)
        else:
            setattr(cls, name, fields[name].default)
    for function in (_init, _repr, _eq, _hash, _setattr, _delattr):
        setattr(cls, f"_{function.__name__}__", function)
    setattr(cls, _FIELDS, fields)
    return cls


def _is_plain(cls: type, said: dict[str, Any]) -> bool:
    """Whether the functions here do for a class: no bases, no work after the initialisation, no fields that are not fields."""
    if type(sys.modules.get("dataclasses")) is not _Dataclasses or cls.__bases__ != (object,):
        return False
    if hasattr(cls, "__post_init__") or "__slots__" in cls.__dict__ or "ClassVar" in str(getattr(cls, "__annotations__", "")):
        return False
    return not any(type(value).__name__ == "Field" for value in said.values())


def _replace(thing: Any, **changes: Any) -> Any:
    """dataclasses.replace."""
    fields = getattr(type(thing), _FIELDS, None)
    if fields is None:
        return _real().replace(thing, **changes)
    return type(thing)(**{**{name: getattr(thing, name) for name in fields}, **changes})


def _real() -> ModuleType:
    """The module itself, in its own place from now on."""
    if type(sys.modules.get("dataclasses")) is _Dataclasses:
        del sys.modules["dataclasses"]
    return __import__("dataclasses")


class _Dataclasses(ModuleType):
    """The stand-in."""

    def __init__(self) -> None:
        super().__init__("dataclasses")
        self.dataclass, self.field, self.replace = _dataclass, _field, _replace

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)  # the import system looks for these
        return getattr(_real(), name)


def stand_in() -> None:
    """Be the module dataclasses, unless that is imported already."""
    if "dataclasses" not in sys.modules:
        sys.modules["dataclasses"] = _Dataclasses()
