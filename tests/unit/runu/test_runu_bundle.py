# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config.json: what is read of it, and what is refused by the name of its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit


def bundle(**config: Any) -> Bundle:
    return Bundle("/bundle", {"ociVersion": "1.0.2", **config})


def test_the_last_of_two_variables_wins() -> None:
    assert bundle(process={"env": ["A=1", "B=2", "A=3=4", "C"]}).env == (("B", "2"), ("A", "3=4"), ("C", ""))


@pytest.mark.parametrize(("cpu", "count"), [({}, 1), ({"quota": -1}, 1), ({"quota": 150000, "period": 100000}, 2), ({"quota": 50000}, 1)])
def test_the_quota_makes_processors(cpu: dict[str, int], count: int) -> None:
    assert bundle(linux={"resources": {"cpu": cpu}}).cpus() == count


@pytest.mark.parametrize(
    ("namespaces", "found"),
    [([], None), ([{"type": "pid"}], None), ([{"type": "network"}], ""), ([{"type": "network", "path": "/run/netns/x"}], "/run/netns/x")],
)
def test_the_network_namespace_is_one_to_join_a_new_one_or_none(namespaces: list[Any], found: Any) -> None:
    assert bundle(linux={"namespaces": namespaces}).network_namespace() == found


@pytest.mark.parametrize("key", ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"])
def test_a_pause_container_is_seen(key: str) -> None:
    assert bundle(annotations={key: "sandbox"}).is_sandbox()
    assert not bundle(annotations={key: "container"}).is_sandbox()


def test_name_servers_are_those_of_the_mounted_resolv_conf(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver ::1\nnameserver 1.2.3.400\n" + "nameserver 10.0.0.2\n" * 4
    )
    made = bundle(mounts=[{"destination": "/etc/resolv.conf", "source": str(file)}])
    assert made.nameservers() == ("10.0.0.1", "10.0.0.2", "10.0.0.2")
    assert bundle().nameservers() == ()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ociVersion": 1}', '{"ociVersion": "2.0"}', "null"])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UnifleetError, match=r"config\.json"):
        Bundle.read(str(tmp_path))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "args", "type", "destination", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ["process", "root", "mounts", "hooks", "annotations", "linux", "vm", "hostname"]
INNER = ["args", "env", "terminal", "prestart", "namespaces", "cgroupsPath", "resources", "kernel", "path"]


@given(st.dictionaries(st.sampled_from(KEYS), ANY | st.dictionaries(st.sampled_from(INNER), ANY, max_size=4), max_size=8))
def test_any_config_is_read_or_refused_by_its_key(config: dict[str, Any]) -> None:
    made = bundle(**json.loads(json.dumps(config)))
    for look in (
        lambda: made.args,
        lambda: made.env,
        lambda: made.terminal,
        lambda: made.annotations,
        lambda: made.mounts,
        lambda: made.hooks("prestart"),
        made.network_namespace,
        lambda: made.cgroups_path,
        lambda: made.resources,
        made.memory_limit,
        made.cpus,
        made.nameservers,
        made.is_sandbox,
        lambda: made.rootfs,
    ):
        try:
            look()
        except UnifleetError as error:
            assert "/bundle/config.json: " in error.message  # noqa: PT017
