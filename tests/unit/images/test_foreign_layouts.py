# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that urunc's and kraft's tools packed, read into our profile, and what of them is refused."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.choice import choose_bootable
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Image, ImageError
from ansible_collections.unifleet.hybrid.plugins.host.images.foreign_layouts import read_foreign
from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import choose
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

PREFIX = "com.urunc.unikernel."
HERE = Path(__file__).resolve().parents[3]


def elf(*notes: tuple[str, int, bytes], multiboot: bool = False) -> bytes:
    """An x86-64 ELF file with these notes."""
    data = b""
    for owner, kind, content in notes:
        name = owner.encode() + b"\0"
        data += struct.pack("<III", len(name), len(content), kind) + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(data), len(data), 4) + data
    boot = struct.pack("<III", 0x1BADB002, 0x10003, -(0x1BADB002 + 0x10003) & 0xFFFFFFFF) if multiboot else b""
    return head + bytes(-len(head) % 4) + boot


HVT = elf(("Solo5", 0x31494241, struct.pack("<IIII", 1, 1, 0, 0)), ("Solo5", 0x3154464D, bytes(4) + struct.pack("<II", 1, 0)))
MULTIBOOT = elf(multiboot=True)
XEN = elf(("Xen", 5, b"xen-3.0\0"))


def image(root: Path, values: dict[str, str] | None = None, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if values is not None:
        coded = {PREFIX + key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        (root / "urunc.json").write_text(json.dumps(coded))
    return root


UNIKRAFT = {"unikernelType": "unikraft", "hypervisor": "qemu", "binary": "/unikernel/app", "mountRootfs": "false"}


def test_an_image_in_neither_layout_is_nobodys(tmp_path: Path) -> None:
    assert read_foreign(image(tmp_path, bin__sh=b"x")) is None


def test_uruncs_unikraft_image_becomes_a_profile_with_the_kernels_own_architecture(tmp_path: Path) -> None:
    values = {**UNIKRAFT, "unikernelVersion": "0.15.0", "cmdline": "nginx -c '/etc/my nginx.conf'", "initrd": "/unikernel/rootfs.cpio"}
    found = read_foreign(
        image(tmp_path, values, unikernel__app=MULTIBOOT, unikernel__rootfs__cpio=b"", **{"unikernel__rootfs.cpio": b"070701"})
    )
    assert found is not None
    assert found.profile.family == "unikraft"
    assert found.profile.kernels == {"kvm/amd64": "/unikernel/app"}
    assert (found.profile.initrd, found.profile.family_version) == ("/unikernel/rootfs.cpio", "0.15.0")
    assert found.profile.network
    assert found.command == ("nginx", "-c", "/etc/my nginx.conf")


def test_uruncs_linux_image_starts_its_first_word(tmp_path: Path) -> None:
    values = {**UNIKRAFT, "unikernelType": "linux", "cmdline": "/bin/app -v", "initrd": "initrd", "binary": "kernel"}
    found = read_foreign(image(tmp_path, values, kernel=elf(("Xen", 18, bytes(4))), initrd=b"x"))
    assert found is not None
    assert found.profile.parameters == ("rdinit=/bin/app",)
    assert found.command == ("-v",)


def test_uruncs_hvt_image_is_a_process_that_wants_its_tender_in_the_image(tmp_path: Path) -> None:
    values = {**UNIKRAFT, "unikernelType": "mirage", "hypervisor": "hvt"}
    found = read_foreign(image(tmp_path, values, unikernel__app=HVT))
    assert found is not None
    assert found.profile.kernels == {"process/amd64": "/unikernel/app"}
    with pytest.raises(ImageError, match="runs under solo5-hvt, and the image names no tender"):
        choose_bootable(Image("r", "d", tmp_path, profile=found.profile), "process", "amd64")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unikernelType": "rumprun"}, "unikernelType 'rumprun'"),
        ({"unikernelType": ""}, "unikernelType ''"),
        ({"hypervisor": "firecracker"}, "hypervisor 'firecracker'"),
        ({"hypervisor": "hvt"}, "hypervisor 'hvt'"),
        ({"block": "/disk.img"}, "block '/disk.img'"),
        ({"mountRootfs": "true"}, "mountRootfs 'true'"),
        ({"binary": ""}, "binary ''"),
        ({"binary": "/nothing"}, "no such file"),
        ({"binary": "/../../etc/passwd"}, "passwd"),
        ({"initrd": "/nothing"}, "initrd '/nothing'"),
        ({"cmdline": "a 'b"}, "cmdline"),
        ({"unikernelVersion": "x y"}, "family_version"),
    ],
)
def test_what_unifleet_cannot_give_is_refused_by_key(tmp_path: Path, change: dict[str, str], said: str) -> None:
    root = image(tmp_path, {**UNIKRAFT, **change}, unikernel__app=MULTIBOOT)
    with pytest.raises(UnifleetError) as caught:
        read_foreign(root)
    assert said in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100000, b'{"com.urunc.unikernel.binary": 7}', b" " * 70000, b"\xff"])
def test_a_urunc_file_that_is_no_such_thing_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "urunc.json").write_bytes(content)
    with pytest.raises(UnifleetError, match=r"/urunc\.json"):
        read_foreign(tmp_path)


def test_values_may_be_plain_or_marked_as_newer_tools_write_them(tmp_path: Path) -> None:
    root = image(tmp_path, None, unikernel__app=MULTIBOOT)
    values = {"unikernelType": "b64:" + base64.b64encode(b"unikraft").decode(), "hypervisor": "b64:cWVtdQ==", "binary": "/unikernel/app"}
    (root / "urunc.json").write_text(json.dumps({PREFIX + key: value for key, value in values.items()}))
    found = read_foreign(root)
    assert found is not None
    assert found.profile.kernels == {"kvm/amd64": "/unikernel/app"}
    (root / "urunc.json").write_text(json.dumps({PREFIX + "unikernelType": "b64:***"}))
    with pytest.raises(UnifleetError, match="no base64"):
        read_foreign(root)


@given(values=st.dictionaries(st.sampled_from([*UNIKRAFT, "cmdline", "initrd", "block", "x"]), st.text(max_size=20)))
def test_any_values_are_a_profile_or_an_error(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    root = image(tmp_path_factory.mktemp("image"), None, unikernel__app=MULTIBOOT)
    (root / "urunc.json").write_text(json.dumps({PREFIX + key: value for key, value in {**UNIKRAFT, **values}.items()}))
    with contextlib.suppress(UnifleetError):
        found = read_foreign(root)
        assert found is not None
        assert found.profile.family in ("unikraft", "mirage", "linux")


@pytest.mark.parametrize(("kernel", "target"), [(MULTIBOOT, "kvm/amd64"), (XEN, "xen/amd64")])
def test_a_kraft_image_is_known_by_its_paths_and_its_kernel(tmp_path: Path, kernel: bytes, target: str) -> None:
    found = read_foreign(image(tmp_path, None, unikraft__bin__kernel=kernel, unikraft__bin__initrd=b"x"))
    assert found is not None
    assert (found.profile.family, dict(found.profile.kernels)) == ("unikraft", {target: "/unikraft/bin/kernel"})
    assert found.profile.initrd == "/unikraft/bin/initrd"


def test_a_kraft_kernel_that_nothing_here_boots_is_refused(tmp_path: Path) -> None:
    multiboot2 = struct.pack("<IIII", 0xE85250D6, 0, 24, -(0xE85250D6 + 24) & 0xFFFFFFFF)
    plain = elf()
    root = image(tmp_path, None, unikraft__bin__kernel=plain + bytes(-len(plain) % 8) + multiboot2)
    with pytest.raises(UnifleetError, match="boots by multiboot2 alone"):
        read_foreign(root)


def index(*platforms: tuple[str, str]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": f"sha256:{number:064x}",
                    "size": 1,
                    "platform": {"os": system, "architecture": architecture, "os.features": ["CONFIG_LIBUKBOOT=y"]},
                }
                for number, (system, architecture) in enumerate(platforms)
            ],
        }
    ).encode()


def test_of_a_kraft_index_each_host_takes_the_entry_of_its_hypervisor() -> None:
    content = index(("fc", "x86_64"), ("qemu", "arm64"), ("xen", "x86_64"), ("qemu", "x86_64"))
    for hypervisor, architecture, number in (("kvm", "amd64", 3), ("xen", "amd64", 2), ("kvm", "arm64", 1)):
        entry = choose(content, architecture, hypervisor)
        assert entry is not None
        assert entry.digest == f"sha256:{number:064x}"
    with pytest.raises(UnifleetError, match="no entry for linux/amd64"):
        choose(content, "amd64", "process")
