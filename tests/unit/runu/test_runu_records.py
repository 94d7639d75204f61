# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for dataclasses in a create: what it does is what dataclasses does, and what it cannot do is left to dataclasses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu import records

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
ROOM = "ansible_collections.unifleet.hybrid.plugins.host.runu"


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in, in its place."""
    monkeypatch.delitem(sys.modules, "dataclasses")
    records.stand_in()
    return sys.modules["dataclasses"]


def shape(module: Any) -> Any:
    """The same class, made by a module."""

    class Shape:
        name: str
        size: int = 3
        words: tuple[str, ...] = ()
        table: dict[str, int] = module.field(default_factory=dict, compare=False)
        secret: str = module.field(default="", repr=False)

    return module.dataclass(frozen=True)(Shape)


VALUES = st.fixed_dictionaries(
    {"name": st.text(max_size=3)},
    optional={
        "size": st.integers(0, 2),
        "words": st.tuples(st.text(max_size=2)),
        "table": st.just({"a": 1}),
        "secret": st.text(max_size=2),
    },
)


@given(first=VALUES, second=VALUES, positional=st.booleans())
def test_objects_are_what_dataclasses_makes_them(first: dict[str, Any], second: dict[str, Any], positional: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "dataclasses")
        records.stand_in()
        ours, theirs = shape(sys.modules["dataclasses"]), shape(dataclasses)
    assert not hasattr(ours, "__dataclass_fields__")

    def made(kind: Any, values: dict[str, Any]) -> Any:
        rest = {key: value for key, value in values.items() if key != "name"}
        return kind(values["name"], **rest) if positional else kind(**values)

    one, other, real_one, real_other = made(ours, first), made(ours, second), made(theirs, first), made(theirs, second)
    assert repr(one) == repr(real_one)
    assert vars(one) == vars(real_one)
    assert (one == other, hash(one) == hash(other)) == (real_one == real_other, hash(real_one) == hash(real_other))
    changed, really = records._replace(one, size=9), dataclasses.replace(real_one, size=9)
    assert vars(changed) == vars(really)


def test_a_default_that_is_made_is_made_anew_for_each_object(light: ModuleType) -> None:
    kind = shape(light)
    assert kind("a").table is not kind("a").table
    assert kind.size == 3
    assert not hasattr(kind, "table")


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), (("a", 1, (), {}, "", "too many"), {}), (("a",), {"name": "b"}), (("a",), {"unknown": 1})]
)
def test_wrong_values_are_refused_as_dataclasses_refuses_them(light: ModuleType, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    for module in (light, dataclasses):
        with pytest.raises(TypeError):
            shape(module)(*args, **named)


def test_objects_are_frozen(light: ModuleType) -> None:
    thing = shape(light)("a")
    with pytest.raises(AttributeError):
        thing.name = "b"
    with pytest.raises(AttributeError):
        del thing.name
    assert thing.name == "a"


class Base:
    """A class to inherit from."""


class Worker:
    """A class that works after it was made."""

    name: str = "a"

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name * 2)


@pytest.mark.parametrize("options", [{}, {"frozen": True, "order": True}], ids=str)
def test_other_options_get_the_real_thing(light: ModuleType, options: dict[str, Any]) -> None:
    class Shape:
        name: str
        table: dict[str, int] = light.field(default_factory=dict, repr=False)

    thing = light.dataclass(**options)(Shape)("a")
    assert [field.name for field in sys.modules["dataclasses"].fields(thing)] == ["name", "table"]
    assert repr(thing).endswith("Shape(name='a')")


def test_bases_and_what_is_done_after_the_initialisation_get_the_real_thing(light: ModuleType) -> None:
    assert light.dataclass(frozen=True)(Worker)("b").name == "bb"
    heir = light.dataclass(frozen=True)(type("Heir", (Base,), {"__annotations__": {"name": "str"}}))
    assert dataclasses.is_dataclass(heir)


def test_who_asks_for_more_gets_the_module_itself_from_then_on(light: ModuleType) -> None:
    asdict = light.asdict
    assert asdict(shape(light)("a"))["size"] == 3
    assert sys.modules["dataclasses"] is not light
    before = shape(dataclasses)("a")
    assert light.replace(before, size=4).size == 4


def test_a_create_plans_without_dataclasses_and_with_one_family() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'collections')!r})\nfrom {ROOM}.later import postpone\npostpone()\n"
    code += f"from {ROOM} import build, machine\nbuild.family('plain')\n"
    code += "from ansible_collections.unifleet.hybrid.plugins.host.images import choice\n"
    code += "assert not hasattr(machine.Hardware, '__dataclass_fields__')\n"
    code += "print(*sorted(name for name, module in sys.modules.items() if type(module) is type(sys)))"
    done = subprocess.run([sys.executable, "-ISE", "-c", code], check=True, capture_output=True, text=True)
    families = {f"ansible_collections.unifleet.hybrid.plugins.host.guests.{name}" for name in ("linux", "mirage", "unikraft")}
    unwanted = {"dataclasses", "inspect", "typing", "ipaddress", "tarfile", "subprocess", "hashlib", "tempfile", *families}
    assert not set(done.stdout.split()) & unwanted
