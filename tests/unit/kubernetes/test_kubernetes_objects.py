# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing wanted objects with present ones, and what a bootstrap token is."""

from __future__ import annotations

import base64
import datetime
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils import kubernetes_objects as objects
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.timezone.utc)
HALF_HOUR = datetime.timedelta(minutes=30)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(DOCUMENTS)
def test_nothing_differs_from_itself(document: Any) -> None:
    assert not objects.differs(document, document)


@given(st.dictionaries(st.text(max_size=3), DOCUMENTS, max_size=3), st.text(min_size=4), DOCUMENTS)
def test_what_others_added_does_not_count(document: dict[str, Any], key: str, value: Any) -> None:
    assert not objects.differs(document, {**document, key: value})
    assert objects.differs({**document, key: value}, document)


@pytest.mark.parametrize(
    ("wanted", "present"),
    [({"a": [1]}, {"a": [1, 2]}), ({"a": {}}, {"a": None}), ([1, 2], [2, 1]), ({"a": 1}, None), ({"a": [{"b": 1}]}, {"a": [{}]})],
)
def test_a_list_must_be_the_same_whole_list(wanted: Any, present: Any) -> None:
    assert objects.differs(wanted, present)


def test_a_token_has_the_form_that_the_api_server_accepts() -> None:
    token, secret = objects.bootstrap_token(HALF_HOUR, NOW, "joining pi1")
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", token)
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert f"{data['token-id']}.{data['token-secret']}" == token
    assert secret["metadata"]["name"] == f"bootstrap-token-{data['token-id']}"
    assert data["expiration"] == "2026-11-21T12:30:00Z"


def test_a_token_is_good_for_joining_alone() -> None:
    _token, secret = objects.bootstrap_token(HALF_HOUR, NOW, "")
    assert "usage-bootstrap-signing" not in secret["data"]
    assert base64.b64decode(secret["data"]["auth-extra-groups"]).decode() == objects.BOOTSTRAP_GROUP


def test_no_two_tokens_are_alike() -> None:
    assert len({objects.bootstrap_token(HALF_HOUR, NOW, "")[0] for _number in range(50)}) == 50


@pytest.mark.parametrize("minutes", [-1, 0, 61, 60 * 24 * 365])
def test_a_long_lived_token_is_refused(minutes: int) -> None:
    with pytest.raises(UnifleetError, match="between one minute and one hour"):
        objects.bootstrap_token(datetime.timedelta(minutes=minutes), NOW, "")


def test_joining_gives_no_right_to_anything_but_certificates() -> None:
    bindings = [item for item in objects.cluster_roles() if item["kind"] == "ClusterRoleBinding"]
    roles = {item["roleRef"]["name"] for item in bindings if item["subjects"][0]["name"] == objects.BOOTSTRAP_GROUP}
    assert roles == {"system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}


def test_nodes_may_see_each_other_and_no_more() -> None:
    [role] = [item for item in objects.cluster_roles() if item["kind"] == "ClusterRole"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]
    [binding] = [item for item in objects.cluster_roles() if item.get("roleRef", {}).get("name") == role["metadata"]["name"]]
    assert [subject["name"] for subject in binding["subjects"]] == ["system:nodes", "unifleet:pod-router"]


def test_a_secret_is_never_shown_in_a_diff() -> None:
    _token, secret = objects.bootstrap_token(HALF_HOUR, NOW, "x")
    before, after = objects.shown(objects.Change("p", "c", {"data": {"a": "hidden"}}, secret))
    assert before == {}
    assert "data" not in after


def test_a_diff_shows_of_the_present_object_only_what_is_wanted_otherwise() -> None:
    wanted = {"kind": "X", "metadata": {"name": "a"}, "spec": {"b": 1}}
    present = {"kind": "X", "metadata": {"name": "a", "uid": "u"}, "spec": {"b": 2, "c": 3}, "status": {}}
    assert objects.shown(objects.Change("p", "c", present, wanted))[0] == {"kind": "X", "metadata": {"name": "a"}, "spec": {"b": 2}}
