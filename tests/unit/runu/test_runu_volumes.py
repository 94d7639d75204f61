# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes on their way into an initrd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.runu import volumes
from ansible_collections.unifleet.hybrid.plugins.host.runu.volumes import Volume
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit


def bind(destination: str, source: str = "/src", *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["rbind", *options]}


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Name -> (mode, content) of a newc archive, read as guest/os/files.c reads it."""
    found, at = {}, 0
    while archive[at : at + 6] == b"070701":
        mode, size, length = (int(archive[at + place : at + place + 8], 16) for place in (14, 54, 94))
        name = archive[at + 110 : at + 110 + length - 1].decode()
        data = (at + 110 + length + 3) & ~3
        found[name] = (mode, archive[data : data + size])
        at = (data + size + 3) & ~3
    return found


def test_what_every_container_gets_is_no_volume() -> None:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/shm", "type": "bind", "source": "/x", "options": ["rbind"]},
        bind("/etc/hosts"),
        bind("/etc/resolv.conf"),
        bind("/last-words", "/var/lib/kubelet/pods/u/containers/c/123"),
        bind("/data", "/srv", "ro"),
    ]
    assert [(volume.destination, volume.read_only) for volume in volumes.wanted(mounts)] == [("/data", True)]


@pytest.mark.parametrize(
    ("source", "read_only", "family", "has_initrd", "carried"),
    [
        ("/srv", True, "linux", True, True),
        ("/srv", False, "linux", True, False),
        ("/pods/u/volumes/kubernetes.io~configmap/c", False, "plain", False, True),
        ("/pods/u/volumes/kubernetes.io~secret/c", False, "unikraft", False, True),
        ("/pods/u/volumes/kubernetes.io~secret/c", False, "unikraft", True, False),
        ("/pods/u/volumes/kubernetes.io~empty-dir/c", False, "plain", False, True),
        ("/pods/u/volumes/kubernetes.io~csi/c", False, "plain", False, False),
        ("/srv", True, "mirage", False, False),
    ],
)
def test_what_can_be_carried_depends_on_volume_and_family(
    source: str, read_only: bool, family: str, has_initrd: bool, carried: bool
) -> None:
    assert (volumes.refusal(Volume(source, "/data", read_only), family, has_initrd) == "") is carried


def volume(tmp_path: Path) -> Path:
    """As kubelet's atomic writer makes one."""
    (tmp_path / "..1/deep").mkdir(parents=True)
    (tmp_path / "..1/a").write_bytes(b"one\n")
    (tmp_path / "..1/deep/b").write_bytes(b"two")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a").symlink_to("..data/a")
    (tmp_path / "deep").symlink_to("..data/deep")
    return tmp_path


def test_a_config_map_arrives_as_its_keys(tmp_path: Path) -> None:
    found = entries(volumes.archive([Volume(str(volume(tmp_path)), "/etc/app", True)]))
    assert {name: content for name, (mode, content) in found.items() if mode & 0o100000} == {
        "etc/app/a": b"one\n",
        "etc/app/deep/b": b"two",
    }
    assert all(mode & 0o222 == 0 for mode, _content in found.values() if mode & 0o100000)
    assert "TRAILER!!!" in found


def test_cpio_reads_what_is_written(tmp_path: Path) -> None:
    archive = volumes.archive([Volume(str(volume(tmp_path / "v")), "/x", True)]) if (tmp_path / "v").mkdir() is None else b""
    try:
        listed = subprocess.run(["cpio", "-it", "--quiet"], input=archive, capture_output=True, check=True).stdout.decode().split()
    except FileNotFoundError:
        listed = [name for name in entries(archive) if name != "TRAILER!!!"]
    assert listed == ["x", "x/a", "x/deep", "x/deep/b"]


def test_a_single_file_is_mounted_as_one(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k")
    assert entries(volumes.archive([Volume(str(tmp_path / "key"), "/etc/app/key", True)]))["etc/app/key"][1] == b"k"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../../../etc/hostname", "nowhere"])
def test_no_link_leads_out_of_a_volume(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UnifleetError, match="/data"):
        volumes.archive([Volume(str(tmp_path), "/data", True)])


def test_links_that_go_round_end(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(".")
    with pytest.raises(UnifleetError):
        volumes.archive([Volume(str(tmp_path), "/data", True)])


def test_too_much_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(volumes.BYTES_MOST + 1)
    with pytest.raises(UnifleetError, match="MiB"):
        volumes.archive([Volume(str(tmp_path), "/data", True)])


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnifleetError, match="no file"):
        volumes.archive([Volume(str(tmp_path), "/data", True)])


@pytest.mark.parametrize("family", ["linux", "plain"])
def test_volumes_come_beside_the_images_own_initrd_so_that_they_win(tmp_path: Path, family: str) -> None:
    own = volumes.archive([Volume(str(volume(tmp_path)), "/own", True)])
    (tmp_path / "own").write_bytes(own)
    carried = volumes.Carried(family, b"070701segment")
    descriptor = carried.initrd(os.open(tmp_path / "own", os.O_RDONLY))
    assert descriptor is not None
    content = os.pread(descriptor, 1 << 20, 0)
    assert content == (own + carried.segment if family == "linux" else carried.segment + own)


def test_without_volumes_the_images_initrd_is_booted_as_it_is() -> None:
    assert volumes.Carried("linux").initrd(7) == 7
    assert volumes.Carried("mirage").initrd(None) is None
