# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificates a control plane gets, when they are renewed, and what is never lost."""

from __future__ import annotations

import base64
import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_cluster, pki_x509
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.pki_cluster import ClusterNames, Lifetimes, Outcome

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
NAMES = ClusterNames("cp1", ("10.77.0.11",), names=("api.example.org",))


def complete(existing: dict[str, bytes], now: datetime.datetime = NOW, names: ClusterNames = NAMES) -> Outcome:
    return pki_cluster.complete(existing, names, Lifetimes(), now)


@pytest.fixture(scope="module")
def fresh() -> dict[str, bytes]:
    return dict(complete({}).everything)


def facts(files: dict[str, bytes], name: str) -> pki_x509.CertificateFacts:
    return pki_x509.read_certificate(files[f"{name}.crt"])


def test_an_empty_directory_gets_every_file_that_a_program_reads(fresh: dict[str, bytes]) -> None:
    assert {name for names in pki_cluster.USED_BY.values() for name in names} <= set(fresh)


def test_a_second_run_writes_nothing(fresh: dict[str, bytes]) -> None:
    again = complete(fresh)
    assert (again.files, again.reasons) == ({}, {})


def test_the_api_server_may_serve_under_every_endpoint_and_the_service_address(fresh: dict[str, bytes]) -> None:
    served = facts(fresh, "apiserver")
    assert {"10.77.0.11", "10.96.0.1", "127.0.0.1"} == set(served.addresses)
    assert {"api.example.org", "kubernetes.default.svc.cluster.local", "cp1"} <= set(served.dns_names)
    assert served.server
    assert not served.client


def test_each_purpose_has_an_authority_of_its_own(fresh: dict[str, bytes]) -> None:
    for spec in pki_cluster.specs(NAMES):
        signers = [
            name
            for name in ("cluster-ca", "etcd-ca", "front-proxy-ca")
            if pki_x509.is_signed_by(fresh[f"{spec.name}.crt"], fresh[f"{name}.crt"])
        ]
        assert signers == [spec.authority or spec.name]


def test_only_certificates_and_public_keys_may_be_read_by_others(fresh: dict[str, bytes]) -> None:
    readable = {name for name in fresh if pki_cluster.file_mode(name) & 0o077}
    assert readable == {name for name in fresh if name.endswith((".crt", ".pub"))}
    assert not any(b"PRIVATE" in fresh[name] for name in readable)


def test_a_certificate_is_kept_until_less_than_a_third_of_its_life_is_left(fresh: dict[str, bytes]) -> None:
    assert complete(fresh, NOW + 243 * DAY).reasons == {}
    due = complete(fresh, NOW + 244 * DAY)
    assert "apiserver" in due.reasons
    assert "of its life left" in due.reasons["apiserver"]
    assert not any(name.startswith(("cluster-ca", "service-account", "encryption")) for name in due.files)


def test_renewing_gives_a_new_key_and_a_whole_life(fresh: dict[str, bytes]) -> None:
    later = NOW + 300 * DAY
    renewed = dict(complete(fresh, later).everything)
    assert renewed["scheduler.key"] != fresh["scheduler.key"]
    assert facts(renewed, "scheduler").not_after == later + 365 * DAY
    assert complete(renewed, later).files == {}


def test_an_expired_certificate_is_renewed_and_called_expired(fresh: dict[str, bytes]) -> None:
    assert complete(fresh, NOW + 400 * DAY).reasons["admin"].startswith("expired on 2027-11-21")


def test_an_old_authority_is_renewed_with_its_key_and_what_it_signed_stays_valid(fresh: dict[str, bytes]) -> None:
    later = NOW + 2500 * DAY
    with_new_leaves = {**fresh, **{k: v for k, v in complete(fresh, later - DAY).files.items() if not k.endswith("ca.crt")}}
    renewed = complete(with_new_leaves, later)
    assert "cluster-ca" in renewed.reasons
    assert renewed.everything["cluster-ca.key"] == fresh["cluster-ca.key"]
    assert renewed.everything["cluster-ca.crt"] != fresh["cluster-ca.crt"]
    assert pki_x509.is_signed_by(fresh["apiserver.crt"], renewed.everything["cluster-ca.crt"])


def test_a_lost_authority_key_stops_the_run_instead_of_founding_a_new_cluster(fresh: dict[str, bytes]) -> None:
    damaged = {name: content for name, content in fresh.items() if name != "cluster-ca.key"}
    with pytest.raises(UnifleetError, match=r"cluster-ca.key is not") as caught:
        complete(damaged)
    assert "backup" in caught.value.hint


def test_a_damaged_authority_stops_the_run(fresh: dict[str, bytes]) -> None:
    with pytest.raises(UnifleetError, match="etcd-ca"):
        complete({**fresh, "etcd-ca.crt": b"rubbish"})


@pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_certificate_is_made_anew(fresh: dict[str, bytes], content: bytes) -> None:
    assert set(complete({**fresh, "scheduler.crt": content}).files) == {"scheduler.crt", "scheduler.key", "scheduler.kubeconfig"}


def test_a_key_of_another_certificate_is_noticed(fresh: dict[str, bytes]) -> None:
    assert "belong together" in complete({**fresh, "admin.key": fresh["scheduler.key"]}).reasons["admin"]


def test_a_certificate_of_another_authority_is_noticed_even_under_the_same_name(fresh: dict[str, bytes]) -> None:
    other = complete({}).everything
    stolen = {**fresh, "admin.crt": other["admin.crt"], "admin.key": other["admin.key"]}
    assert complete(stolen).reasons["admin"] == "not signed by the present cluster-ca"


def test_a_new_endpoint_renews_just_the_api_servers_certificate(fresh: dict[str, bytes]) -> None:
    names = ClusterNames("cp1", ("10.77.0.11", "192.0.2.7"), names=("api.example.org",))
    moved = complete(fresh, names=names)
    assert set(moved.files) == {"apiserver.crt", "apiserver.key"}
    assert "192.0.2.7" in moved.reasons["apiserver"]


def test_only_programs_whose_files_changed_get_another_fingerprint(fresh: dict[str, bytes]) -> None:
    before = complete(fresh)
    after = complete({name: content for name, content in fresh.items() if name != "scheduler.crt"})
    changed = [program for program in pki_cluster.USED_BY if before.fingerprint(program) != after.fingerprint(program)]
    assert changed == ["kube-scheduler"]


def test_the_sealing_key_and_the_service_account_key_are_never_replaced(fresh: dict[str, bytes]) -> None:
    much_later = complete(fresh, NOW + 3600 * DAY).everything
    assert much_later["encryption.json"] == fresh["encryption.json"]
    assert much_later["service-account.key"] == fresh["service-account.key"]


def test_secrets_are_sealed_with_32_random_bytes_and_nothing_reads_plain_ones(fresh: dict[str, bytes]) -> None:
    (resource,) = json.loads(fresh["encryption.json"])["resources"]
    (provider,) = resource["providers"]
    key = base64.b64decode(provider["secretbox"]["keys"][0]["secret"])
    assert resource["resources"] == ["secrets"]
    assert len(key) == 32
    assert complete({}).everything["encryption.json"] != fresh["encryption.json"]


def test_the_administrators_kubeconfig_names_the_endpoint_and_the_others_loopback(fresh: dict[str, bytes]) -> None:
    servers = {name: json.loads(fresh[f"{name}.kubeconfig"])["clusters"][0]["cluster"]["server"] for name in pki_cluster.KUBECONFIGS}
    local = "https://127.0.0.1:6443"
    assert servers == {"admin": "https://10.77.0.11:6443", "controller-manager": local, "scheduler": local, "pod-router": local}


def test_foreign_files_in_the_directory_are_not_ours(fresh: dict[str, bytes]) -> None:
    outcome = complete({**fresh, "oidc-ca.crt": b"theirs", "notes.txt": b"x"})
    assert outcome.files == {}
    assert not {"oidc-ca.crt", "notes.txt"} & outcome.known


@settings(max_examples=25, deadline=None)
@given(
    lost=st.sets(st.sampled_from([f"{spec.name}.{end}" for spec in pki_cluster.specs(NAMES) if spec.authority for end in ("crt", "key")]))
)
def test_whatever_is_lost_one_run_mends_it_and_the_next_finds_nothing(fresh: dict[str, bytes], lost: set[str]) -> None:
    mended = complete({name: content for name, content in fresh.items() if name not in lost})
    assert {name.rsplit(".", 1)[0] for name in lost} <= set(mended.reasons)
    assert complete(dict(mended.everything)).files == {}
