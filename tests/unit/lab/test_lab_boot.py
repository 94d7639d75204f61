# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, recipes and boot plans of lab hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_boot import Machine, cable, hosts_file, name_servers, nspawn, run_file
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_cgroups import Layout, Plan
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import INTERFACE_NAME_LIMIT, Host, lab
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_recipe import bootstrap, files, recipe
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_root import Root, os_release

LAB = lab("unifleet", "/srv/.lab", "10.77.0.0/24")
CP1 = LAB.host("cp1", "10.77.0.11")
MACHINE = Machine(("/dev/net/tun",), "/lib/modules", Plan(Layout.V2, ()))

host_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
lab_names = st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)


@given(lab_names, host_names)
def test_every_interface_name_fits_the_kernel(name: str, host: str) -> None:
    here = lab(name, "/srv/.lab", "10.0.0.0/24")
    assert len(here.bridge) <= INTERFACE_NAME_LIMIT
    assert len(here.host(host, "10.0.0.9").interface) <= INTERFACE_NAME_LIMIT


def test_two_labs_share_no_name() -> None:
    other = lab("second", "/srv/.lab2", "10.78.0.0/24")
    there = other.host("cp1", "10.78.0.11")

    def names(host: Host) -> set[str]:
        return {host.unique, host.interface, host.mac, host.lab.bridge, host.lab.table, str(host.directory)}

    assert not names(CP1) & names(there)


@pytest.mark.parametrize("name", ["", "Lab", "a" * 13, "1lab", "lab/x", "lab name", "../x"])
def test_a_lab_name_that_cannot_be_an_interface_is_refused(name: str) -> None:
    with pytest.raises(UnifleetError, match="lab name"):
        lab(name, "/srv/.lab", "10.77.0.0/24")


@pytest.mark.parametrize("directory", ["relative/.lab", "/srv/a,b", "/srv/a:b", "/srv/a b"])
def test_a_directory_that_mount_options_cannot_carry_is_refused(directory: str) -> None:
    with pytest.raises(UnifleetError, match="lab directory"):
        lab("unifleet", directory, "10.77.0.0/24")


@pytest.mark.parametrize("network", ["10.77.0.1/24", "10.77.0.0/30", "fd00::/64", "ten"])
def test_a_network_that_cannot_hold_hosts_is_refused(network: str) -> None:
    with pytest.raises(UnifleetError, match="lab network"):
        lab("unifleet", "/srv/.lab", network)


@pytest.mark.parametrize("address", ["10.78.0.11", "10.77.0.1", "10.77.0.0", "10.77.0.255", "kvm1", ""])
def test_an_address_that_is_not_the_hosts_to_have_is_refused(address: str) -> None:
    with pytest.raises(UnifleetError, match="address"):
        LAB.host("cp1", address)


@pytest.mark.parametrize("name", ["../cp1", "CP1", "-cp1", "cp1-", "a.b", ""])
def test_a_host_name_that_could_leave_the_labs_directory_is_refused(name: str) -> None:
    with pytest.raises(UnifleetError, match="host name"):
        LAB.host(name, "10.77.0.11")


def test_a_host_has_the_same_hardware_address_after_every_boot() -> None:
    assert CP1.mac == lab("unifleet", "/elsewhere", "10.99.0.0/24").host("cp1", "10.99.0.7").mac


def test_only_what_may_be_missing_may_fail_before_a_boot() -> None:
    optional = [command[1:] for command in cable(CP1) if command[0] == "-"]
    assert optional == [["ip", "link", "del", "unifleet-cp1"], ["ip", "netns", "del", "unifleet-cp1"]]


def test_a_host_gets_the_devices_that_the_machine_has_and_no_others() -> None:
    binds = [word for word in nspawn(CP1, MACHINE) if word.startswith("--bind=/dev/")]
    assert binds == ["--bind=/dev/net/tun", "--bind=/dev/null:/dev/kmsg"]


@pytest.mark.parametrize("kvm", [True, False])
def test_a_host_on_a_machine_with_kvm_has_a_node_of_its_own_for_it(kvm: bool) -> None:
    own = [word for word in nspawn(CP1, replace(MACHINE, kvm=kvm)) if word.endswith(":/dev/kvm")]
    assert own == ([f"--bind={CP1.directory}/kvm:/dev/kvm"] if kvm else [])


def test_a_host_may_set_neither_the_clock_nor_load_drivers() -> None:
    assert "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE" in nspawn(CP1, MACHINE)


def test_the_supervisor_boots_the_unified_layout_on_a_version_2_machine() -> None:
    assert run_file(CP1, MACHINE)["environment"] == {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def test_a_host_knows_itself_by_its_own_address() -> None:
    assert hosts_file(CP1) == "127.0.0.1 localhost\n10.77.0.11 cp1\n"


@pytest.mark.parametrize(
    ("resolv", "uplink", "given_to_hosts"),
    [
        ("nameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", "nameserver 192.0.2.1\n"),
        ("nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.9\n", "nameserver 192.0.2.9\n"),
        ("nameserver 127.0.0.1\n", None, "nameserver 127.0.0.1\n"),
    ],
)
def test_hosts_are_not_sent_to_a_name_server_that_only_the_machine_reaches(resolv: str, uplink: str | None, given_to_hosts: str) -> None:
    assert name_servers(resolv, uplink) == given_to_hosts


def test_a_base_is_known_by_everything_that_went_into_it() -> None:
    keys = {
        recipe("bookworm", "amd64", "amd64", ()).key,
        recipe("trixie", "amd64", "amd64", ()).key,
        recipe("bookworm", "arm64", "amd64", ()).key,
        recipe("bookworm", "arm64", "arm64", ()).key,
        recipe("bookworm", "amd64", "amd64", ("skopeo",)).key,
    }
    assert len(keys) == 5


@given(st.permutations(["skopeo", "python3", "tree", "dbus"]))
def test_the_order_of_packages_does_not_make_another_base(packages: list[str]) -> None:
    assert recipe("bookworm", "amd64", "amd64", tuple(packages)).key == recipe("bookworm", "amd64", "amd64", ("tree", "skopeo")).key


def test_only_an_emulated_base_gives_up_what_emulation_cannot_do() -> None:
    dropin = "etc/systemd/system/service.d/10-emulated.conf"
    assert dropin in files(recipe("bookworm", "arm64", "amd64", ()))
    assert dropin not in files(recipe("bookworm", "arm64", "arm64", ()))


def test_the_machines_apt_settings_reach_the_bootstrap() -> None:
    words = bootstrap(recipe("bookworm", "amd64", "amd64", ()), "/x.tar", ('Acquire::Check-Valid-Until "false";',))
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in words


def test_nothing_is_written_through_a_link_that_leads_out_of_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hostname").write_text("machine")
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to(outside)
    with pytest.raises(UnifleetError, match="leads out"):
        Root(root).write("etc/hostname", "cp1")
    assert (outside / "hostname").read_text() == "machine"


def test_a_file_that_is_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("machine")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to(tmp_path / "target")
    Root(root).write("etc/resolv.conf", "nameserver 192.0.2.1\n")
    assert (tmp_path / "target").read_text() == "machine"
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"


def test_os_release_is_read_with_and_without_quotes() -> None:
    assert os_release('# c\nVERSION_CODENAME=trixie\nVERSION_ID="13"\nodd\n') == {"VERSION_CODENAME": "trixie", "VERSION_ID": "13"}
