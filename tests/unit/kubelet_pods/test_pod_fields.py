# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which fields are honoured, which are refused by name, and how the rest of a spec is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import expand, format_time, parse_pod, parse_time, quantity
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from tests.unit.kubelet_pods.pods import TOKEN_MOUNT, container, pod, raw_pod

PROJECTED = {
    "name": "kube-api-access-x",
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ],
    },
}


def refused(vm: bool = False, **spec: Any) -> list[str]:
    return [refusal.path for refusal in pod(vm=vm, **spec).refusals]


def test_a_pod_as_the_api_server_fills_it_in_is_accepted_by_processes_and_by_vms() -> None:
    assert refused() == []
    assert refused(vm=True) == []


def test_what_newer_api_servers_add_is_accepted() -> None:
    mounts = [{**TOKEN_MOUNT, "name": "kube-api-access-x", "recursiveReadOnly": "Disabled"}]
    new = container(volumeMounts=mounts, resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}])
    assert refused(containers=[new], volumes=[PROJECTED], schedulingGates=[], hostUsers=None) == []


def test_the_restricted_pod_security_standard_is_accepted() -> None:
    strict = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert refused(containers=[container(securityContext=strict)]) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"hostPID": True}, "spec.hostPID"),
        ({"hostUsers": False}, "spec.hostUsers"),
        ({"dnsConfig": {"nameservers": ["1.1.1.1"]}}, "spec.dnsConfig"),
        ({"runtimeClassName": "gvisor"}, "spec.runtimeClassName"),
        ({"os": {"name": "windows"}}, "spec.os.name"),
        ({"ephemeralContainers": [{"name": "debug"}]}, "spec.ephemeralContainers"),
        ({"securityContext": {"runAsUser": 7}}, "spec.securityContext.runAsUser"),
        ({"aFieldOfTheFuture": {"x": 1}}, "spec.aFieldOfTheFuture"),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, "spec.volumes[0].emptyDir"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "spec.volumes[0].hostPath"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "spec.volumes[0].secret"),
    ],
)
def test_an_unsupported_pod_field_is_named_by_its_path(spec: dict[str, Any], path: str) -> None:
    assert refused(**spec) == [path]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}, "livenessProbe.exec"),
        ({"readinessProbe": {"httpGet": {"port": 80}}}, "readinessProbe.httpGet"),
        ({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}, "lifecycle.preStop"),
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, "envFrom"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}, "env[0].valueFrom.fieldRef"),
        ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
        ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "securityContext.capabilities.add"),
        ({"resources": {"limits": {"nvidia.com/gpu": "1"}}}, "resources.limits.nvidia.com/gpu"),
        ({"ports": [{"containerPort": 80, "hostPort": 8080}]}, "ports[0].hostPort"),
        ({"volumeMounts": [{**TOKEN_MOUNT, "subPath": "token"}]}, "volumeMounts[0].subPath"),
        ({"tty": True}, "tty"),
        ({"terminationMessagePath": "/x"}, "terminationMessagePath"),
    ],
)
def test_an_unsupported_container_field_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    assert refused(containers=[container(), container("b", **fields)]) == [f"spec.containers[1].{path}"]


def test_a_vm_has_neither_the_hosts_network_nor_a_working_directory() -> None:
    assert refused(vm=True, hostNetwork=True) == ["spec.hostNetwork"]
    assert refused(vm=True, containers=[container(workingDir="/tmp")]) == ["spec.containers[0].workingDir"]
    assert refused(hostNetwork=True, containers=[container(workingDir="/tmp")]) == []


def test_a_secret_that_is_mounted_elsewhere_too_is_not_taken_for_the_token() -> None:
    mounts = [dict(TOKEN_MOUNT), {**TOKEN_MOUNT, "mountPath": "/etc/more"}]
    assert refused(containers=[container(volumeMounts=mounts)]) == ["spec.volumes[0].secret"]


def test_a_bound_token_is_read_off_its_projected_volume() -> None:
    parsed = pod(containers=[container(volumeMounts=[{**TOKEN_MOUNT, "name": "kube-api-access-x"}])], volumes=[PROJECTED])
    assert (parsed.token_volumes[0].expiration_seconds, parsed.token_volumes[0].root_ca_configmap) == (3607, "kube-root-ca.crt")
    assert parsed.containers[0].token_volumes == ("kube-api-access-x",)


def test_variables_are_expanded_in_order_and_into_the_arguments() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "$$(A)"}]
    main = pod(containers=[container(env=env, args=["--b=$(B)", "$(NOPE)", "$(C)"])]).containers[0]
    assert main.env == (("A", "1"), ("B", "1$(C)"), ("C", "$(A)"))
    assert main.args == ("--b=1$(C)", "$(NOPE)", "$(A)")


@given(st.text(alphabet="$()Ax "), st.text())
def test_expansion_never_fails_and_leaves_text_without_dollars_alone(text: str, value: str) -> None:
    expand(text, {"A": value})
    assert expand(text.replace("$", ""), {"A": value}) == text.replace("$", "")


@pytest.mark.parametrize(
    ("text", "number"), [("64Mi", 64 << 20), ("1G", 10**9), ("1e3", 1000), ("0.5", 0.5), ("250m", 0.25), (2, 2), ("1Ki", 1024)]
)
def test_quantities_are_read_as_the_api_server_reads_them(text: object, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Mi", "1 Mi", "1mb", "--1", "1e", "0x10"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(UnifleetError, match="quantity"):
        quantity(text)


def test_sizes_are_the_limit_else_the_request_else_what_the_image_needs() -> None:
    def size(**resources: Any) -> tuple[int, int]:
        found = pod(containers=[container(resources=resources)]).containers[0].resources
        return found.memory_bytes(8 << 20), found.cpu_millis

    assert size() == (8 << 20, 0)
    assert size(requests={"memory": "16Mi", "cpu": "100m"}) == (16 << 20, 100)
    assert size(requests={"memory": "16Mi"}, limits={"memory": "32Mi", "cpu": "1500m"}) == (32 << 20, 1500)


def test_the_first_container_has_the_pods_key_and_every_other_its_own() -> None:
    two = pod(containers=[container("a"), container("b")], initContainers=[container("i")])
    keys = {name: two.key_of(name) for name in ("a", "b", "i")}
    assert keys["a"] == two.uid
    assert len(set(keys.values())) == 3


@pytest.mark.parametrize("metadata", [{"uid": "../../etc"}, {"name": ".."}, {"namespace": "a/b"}])
def test_a_pod_whose_names_could_lead_out_of_our_directories_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(UnifleetError):
        parse_pod(raw_pod(metadata=metadata), vm=False)


@given(st.integers(0, 4_000_000_000))
def test_times_survive_being_written_and_read(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds


def test_times_with_fractions_and_zones_are_read() -> None:
    assert parse_time("2026-11-21T23:17:52.500000000+01:00") == parse_time("2026-11-21T22:17:52.5Z")
    for bad in ("", "yesterday", "2026-11-21 23:17:52Z", "2026-11-21T23:17:52"):
        with pytest.raises(ValueError, match="RFC 3339"):
            parse_time(bad)
