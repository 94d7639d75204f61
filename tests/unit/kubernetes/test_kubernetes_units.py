# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines of the control plane fit their version and leave no door open."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.filter.kubernetes_unit import kubernetes_unit, quoted
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_units import PROGRAMS, ControlPlane, command_line, parse_version

PLANE = ControlPlane("10.0.0.1", "/pki")
KUBERNETES = [program for program in PROGRAMS if program != "etcd"]


@pytest.mark.parametrize("program", KUBERNETES)
def test_nothing_profiles_and_nothing_is_anonymous(program: str) -> None:
    flags = command_line(program, "1.33.1", PLANE)
    assert "--profiling=false" in flags
    if program == "kube-apiserver":
        assert {"--anonymous-auth=false", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"} <= set(flags)


@pytest.mark.parametrize(
    ("version", "there"), [("1.20.2", True), ("v1.23.17", True), ("1.24.0", False), ("1.33.1", False), ("2.0.0", False)]
)
def test_old_plain_ports_are_closed_where_they_exist_and_unmentioned_where_they_do_not(version: str, there: bool) -> None:
    assert ("--insecure-port=0" in command_line("kube-apiserver", version, PLANE)) is there
    assert ("--port=0" in command_line("kube-controller-manager", version, PLANE)) is there
    assert ("--port=0" in command_line("kube-scheduler", version, PLANE)) is there


def test_the_api_server_asks_pods_themselves_for_no_proxy_leads_services_there() -> None:
    assert "--enable-aggregator-routing=true" in command_line("kube-apiserver", "1.33.1", PLANE)
    assert kubernetes_unit("pod-router", "1.33.1", {"address": "10.0.0.1"}) == {
        "arguments": ['"--kubeconfig=%d/pod-router.kubeconfig"'],
        "credentials": ["pod-router.kubeconfig"],
    }


def test_etcd_asks_everybody_for_a_certificate() -> None:
    flags = command_line("etcd", "", PLANE)
    assert {"--client-cert-auth=true", "--peer-client-cert-auth=true"} <= set(flags)
    assert not any("http://" in flag for flag in flags)


def test_extra_arguments_win_over_ours_and_appear_once() -> None:
    plane = ControlPlane("10.0.0.1", "/pki", extra={"kube-scheduler": {"v": "2", "profiling": "true"}})
    flags = command_line("kube-scheduler", "1.33.1", plane)
    assert "--v=2" in flags
    assert [flag for flag in flags if flag.startswith("--profiling")] == ["--profiling=true"]


def test_auditing_is_off_unless_a_policy_is_given() -> None:
    assert not any("audit" in flag for flag in command_line("kube-apiserver", "1.33.1", PLANE))
    plane = ControlPlane("10.0.0.1", "/pki", audit_policy="/p", audit_log="/l")
    assert {"--audit-policy-file=/p", "--audit-log-path=/l"} <= set(command_line("kube-apiserver", "1.33.1", plane))


@pytest.mark.parametrize("text", ["", "latest", "1", "1.x", "1.20.2.3", "one.twenty"])
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError, match="not a Kubernetes version"):
        parse_version(text)


def test_a_version_older_than_the_flags_is_refused() -> None:
    with pytest.raises(UnifleetError, match=r"1\.19\.3 is older than 1\.20"):
        parse_version("1.19.3")


def test_an_unknown_program_is_named() -> None:
    with pytest.raises(UnifleetError, match="kube-dns"):
        command_line("kube-dns", "1.33.1", PLANE)


def test_the_filter_names_a_setting_that_does_not_exist() -> None:
    with pytest.raises(AnsibleFilterError, match="adress"):
        kubernetes_unit("etcd", "1.33.1", {"adress": "10.0.0.1"})


def test_the_filter_points_at_the_units_own_credentials() -> None:
    unit = kubernetes_unit("kube-scheduler", "1.33.1", {"address": "10.0.0.1"})
    assert '"--kubeconfig=%d/scheduler.kubeconfig"' in unit["arguments"]
    assert unit["credentials"] == ["scheduler.kubeconfig"]


def unquote_like_systemd(word: str) -> str:
    """What systemd makes of one quoted word (systemd.service(5)): C escapes, then specifiers and variables."""
    assert word[0] == word[-1] == '"'
    inner, out = word[1:-1], []
    index = 0
    while index < len(inner):
        pair = inner[index : index + 2]
        if pair in ("\\\\", '\\"', "%%", "$$"):
            out.append(pair[1])
            index += 2
        else:
            assert inner[index] not in '"%$\\'
            out.append(inner[index])
            index += 1
    return "".join(out)


@given(st.text(st.characters(blacklist_characters="\0\n\r", blacklist_categories=["Cs"])))
def test_no_argument_can_leave_its_quotes(text: str) -> None:
    assert unquote_like_systemd(quoted(text)) == text


def test_an_argument_of_two_lines_is_refused() -> None:
    with pytest.raises(UnifleetError):
        quoted("--name=a\nExecStartPre=/bin/false")
