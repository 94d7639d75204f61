# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TOML file of somebody else's keeps every byte that was not to be changed, and means what it should afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import tomlkit
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_edit import put_table, remove_table, sections
from ansible_collections.unifleet.hybrid.plugins.module_utils.toml_text import to_toml

DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"  # Debian's place
      conf_dir = "/etc/cni/net.d"
  # our own storage
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""
CRI = ("plugins", "io.containerd.grpc.v1.cri")
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
SCALARS = st.booleans() | st.integers(-9, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
TABLES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3), lambda inner: st.dictionaries(KEYS, VALUES | inner, max_size=3), max_leaves=6
)


def plain(text: str) -> dict[str, Any]:
    return dict(tomlkit.parse(text).unwrap())


def pruned(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {key: pruned(value) for key, value in document.items() if pruned(value) != {}}


def commented(text: str) -> str:
    """The same document with a comment above each header and after each single-line value."""
    return "".join(
        f'# about [{number}] it\'s "so"\n{line}\n' if line.startswith("[") else f"{line}\n" for number, line in enumerate(text.split("\n"))
    )


def test_a_value_is_replaced_where_it_stands_and_its_comment_stays() -> None:
    changed = put_table(DEBIAN, (*CRI, "cni"), {"bin_dir": "/opt/cni/bin"})
    assert changed == DEBIAN.replace('"/usr/lib/cni"', '"/opt/cni/bin"')


def test_a_new_key_goes_below_the_last_of_its_table_as_that_one_is_indented() -> None:
    changed = put_table(DEBIAN, (*CRI, "cni"), {"conf_template": "/t"})
    assert changed == DEBIAN.replace('"/etc/cni/net.d"\n', '"/etc/cni/net.d"\n      conf_template = "/t"\n')


def test_a_new_table_goes_beside_its_nearest_relation_and_the_next_ones_comment_stays_with_it() -> None:
    changed = put_table(
        DEBIAN, (*CRI, "containerd", "runtimes", "runu"), {"runtime_type": "t", "options": {"BinaryName": "/b"}}, exact=True
    )
    assert changed.index("bin_dir") < changed.index("runtimes.runu]") < changed.index("# our own storage")
    assert plain(changed)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["runu"]["options"] == {"BinaryName": "/b"}
    assert remove_table(changed, (*CRI, "containerd", "runtimes", "runu")).split() == DEBIAN.split()


def test_a_table_that_is_removed_takes_those_below_it_along_and_nothing_else() -> None:
    assert plain(remove_table(DEBIAN, CRI)) == {
        "version": 2,
        "plugins": {"io.containerd.internal.v1.opt": {"path": "/var/lib/containerd/opt"}},
    }


@pytest.mark.parametrize(
    "text",
    [
        'a = """\n[not.a.table]\nb = 1\n"""\n[t]\nx = 1\n',
        "a = '''\n# no comment ''' # one\n[t]\nx = 1\n",
        "a = [ # first\n  \"]\", # [t]\n  '[',\n]\n[t]\nx = 1\n",
        'a = "\\"[t]#"\n[t]\nx = 1',
        'a = { b = "}" }\r\n[ t ]\r\nx = 1\r\n',
        "'a.b'.\"c\" = 1\n[t]\nx = 1\n[[t.list]]\ny = 2\n",
        'a = """x""""\n[t]\nx=1# tight\n',
    ],
)
def test_strings_lists_and_comments_that_look_like_tables_mislead_nobody(text: str) -> None:
    before = plain(text)
    after = plain(put_table(text, ("t",), {"x": 2, "new": "n"}))
    assert after == {**before, "t": {**before["t"], "x": 2, "new": "n"}}


@pytest.mark.parametrize("text", ["a", "a = [1", 'a = "x', "[t", "[t]]", "= 1", "a = 1 b = 2\nc", "a.", '"""'])
def test_what_is_not_toml_is_told_with_its_line(text: str) -> None:
    with pytest.raises(UnifleetError, match=r"line \d+ is not TOML"):
        sections("# first\n" + text)


def test_a_table_in_a_list_of_tables_is_refused() -> None:
    with pytest.raises(UnifleetError, match="list of tables"):
        put_table("[[t]]\nx = 1\n", ("t", "deep"), {"y": 1})


@given(TABLES, st.lists(KEYS, min_size=1, max_size=3), TABLES)
def test_any_table_put_into_any_document_is_there_and_all_else_as_before(
    document: dict[str, Any], path: list[str], table: dict[str, Any]
) -> None:
    text = commented(to_toml(document))
    wanted = document
    for depth in range(len(path)):
        below: Any = document
        for part in path[: depth + 1]:
            below = below.get(part, {}) if isinstance(below, dict) else None
        assume(isinstance(below, dict))  # a plain value in the way: refused by the caller's comparison
    changed = put_table(text, tuple(path), table, exact=True)
    wanted = pruned(_put(document, path, table))
    assert pruned(plain(changed)) == wanted
    assert [line for line in changed.split("\n") if line.startswith("#")] == [line for line in text.split("\n") if line.startswith("#")]
    gone = remove_table(changed, tuple(path))
    assert pruned(plain(gone)) == pruned(_put(document, path, {}))


def _put(document: dict[str, Any], path: list[str], table: dict[str, Any]) -> dict[str, Any]:
    if len(path) == 1:
        return {**document, path[0]: table}
    return {**document, path[0]: _put(document.get(path[0], {}), path[1:], table)}


@given(st.text(max_size=60))
def test_no_text_at_all_makes_it_fail_otherwise(text: str) -> None:
    try:
        found = sections(text)
    except UnifleetError:
        return
    assert found[0].start == 0
    assert found[-1].end == len(text)
