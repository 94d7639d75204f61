# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers: what containerd would make of an honest one, and that a hostile one ends in a clear error with nothing outside touched."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.layers import Budget, resolve_in_root, unpack_layer
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

Entry = tuple[str, bytes, str, bytes]
"""Name, type of tarfile, link name, content."""


def tar(*entries: Entry, mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link, body in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(body), mode
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def file(name: str, body: bytes = b"x") -> Entry:
    return name, tarfile.REGTYPE, "", body


def directory(name: str) -> Entry:
    return name, tarfile.DIRTYPE, "", b""


def symlink(name: str, target: str) -> Entry:
    return name, tarfile.SYMTYPE, target, b""


def hard_link(name: str, target: str) -> Entry:
    return name, tarfile.LNKTYPE, target, b""


def unpack(root: Path, *layers: bytes, size: int = 1 << 20, entries: int = 1000) -> None:
    budget = Budget(size, entries)
    for layer in layers:
        unpack_layer(io.BytesIO(layer), root, budget)


@contextmanager
def guarded_root() -> Iterator[Path]:
    """A root whose surroundings are checked afterwards: nothing was made, changed or removed around it."""
    with TemporaryDirectory() as outside:
        secret = Path(outside) / "secret"
        secret.write_text("untouched")
        root = Path(outside) / "a" / "root"
        root.mkdir(parents=True)
        before = snapshot(Path(outside), root)
        yield root
        assert snapshot(Path(outside), root) == before


def snapshot(outside: Path, root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in outside.rglob("*"):
        if path != root and root not in path.parents:
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_nlink, path.read_bytes() if path.is_file() else b"")
    return found


def test_files_directories_and_links_are_unpacked(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        tar(directory("./"), directory("d/"), file("./d/f", b"hello"), symlink("d/l", "f"), hard_link("h", "d/f"), file("new/dir/f")),
    )
    assert (tmp_path / "d/f").read_bytes() == b"hello"
    assert (tmp_path / "d/l").readlink() == Path("f")
    assert (tmp_path / "h").samefile(tmp_path / "d/f")
    assert (tmp_path / "new/dir/f").is_file()


def test_gzip_in_several_members_and_plain_tar_give_the_digest_of_the_tar(tmp_path: Path) -> None:
    layer = tar(file("f", os.urandom(300_000)))
    packed = gzip.compress(layer[:1000]) + gzip.compress(layer[1000:])
    expected = "sha256:" + hashlib.sha256(layer).hexdigest()
    for number, body in enumerate((layer, packed)):
        root = tmp_path / str(number)
        root.mkdir()
        assert unpack_layer(io.BytesIO(body), root, Budget(1 << 20, 9)) == expected


def test_set_id_bits_are_dropped_and_other_modes_kept(tmp_path: Path) -> None:
    unpack(tmp_path, tar(file("f"), mode=0o6755))
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o755


def test_a_directory_without_rights_still_takes_its_files(tmp_path: Path) -> None:
    unpack(tmp_path, tar(directory("d"), mode=0), tar(file("d/f")))
    assert (tmp_path / "d/f").is_file()


def test_an_upper_layer_replaces_hides_and_empties(tmp_path: Path) -> None:
    lower = tar(file("a", b"1"), file("gone"), directory("d"), file("d/old"), file("e/old"), file("e/deep/old"), file("t/x"))
    upper = tar(
        file("a", b"2"), file(".wh.gone"), file("e/deep/new"), file("e/.wh..wh..opq"), file("t"), directory("gone2"), file(".wh.nothing")
    )
    unpack(tmp_path, lower, upper)
    assert (tmp_path / "a").read_bytes() == b"2"
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "d/old").is_file()
    assert sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "e").rglob("*")) == ["e/deep", "e/deep/new"]
    assert (tmp_path / "t").is_file()


def test_a_whiteout_spares_what_its_own_layer_put_there(tmp_path: Path) -> None:
    unpack(tmp_path, tar(file("f", b"lower")), tar(file("f", b"upper"), file(".wh.f")))
    assert (tmp_path / "f").read_bytes() == b"upper"


def test_absolute_links_are_followed_inside_the_image(tmp_path: Path) -> None:
    unpack(tmp_path, tar(directory("usr/lib"), symlink("lib", "/usr/lib")), tar(file("lib/f", b"in")))
    assert (tmp_path / "usr/lib/f").read_bytes() == b"in"
    assert (tmp_path / "lib").is_symlink()


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([file("/etc/passwd")], "leads out"),
        ([file("../f")], "leads out"),
        ([file("d/../../f")], "leads out"),
        ([symlink("up", "../.."), file("up/f")], "leads out"),
        ([symlink("up", "../../secret"), file("up/f")], "leads out"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/f")], "symbolic links"),
        ([symlink("up", "../../secret"), hard_link("h", "up")], "no file in the image"),
        ([hard_link("h", "../../secret")], "out of the image"),
        ([hard_link("h", "/secret")], "out of the image"),
        ([hard_link("h", "missing")], "no file in the image"),
        ([symlink("up", "../.."), hard_link("h", "up/secret")], "leads out"),
        ([symlink("up", "../.."), file("up/.wh.secret")], "leads out"),
        ([symlink("up", "../.."), file("up/.wh..wh..opq")], "leads out"),
        ([file(".wh...")], "names nothing"),
        ([file(".wh..")], "names nothing"),
        ([file(".wh.")], "names nothing"),
        ([file("f"), file("f/g")], "no directory"),
        ([("dev/null", tarfile.CHRTYPE, "", b"")], "device"),
        ([("dev/sda", tarfile.BLKTYPE, "", b"")], "device"),
        ([("pipe", tarfile.FIFOTYPE, "", b"")], "FIFO"),
        ([symlink("./", "/etc")], "image's root"),
        ([file("n" * 300)], "cannot be unpacked"),
        ([file("d/" * 2500 + "f")], "characters"),
    ],
)
def test_a_hostile_entry_is_refused(entries: list[Entry], named: str) -> None:
    with guarded_root() as root, pytest.raises(UnifleetError, match=named):
        unpack(root, tar(*entries))


def test_a_link_that_a_file_replaces_is_not_written_through() -> None:
    with guarded_root() as root:
        unpack(root, tar(symlink("f", "../../secret"), file("f", b"mine")))
        assert (root / "f").read_bytes() == b"mine"


def test_a_link_that_a_directory_replaces_is_not_written_through() -> None:
    with guarded_root() as root:
        unpack(root, tar(symlink("d", "../.."), directory("d"), file("d/secret", b"mine")))
        assert (root / "d/secret").read_bytes() == b"mine"


def test_bombs_end_at_the_limits(tmp_path: Path) -> None:
    bomb = gzip.compress(tar(file("zeros", b"\0" * (8 << 20))))
    with pytest.raises(UnifleetError, match="more bytes"):
        unpack(tmp_path, bomb, size=1 << 20)
    with pytest.raises(UnifleetError, match="more files"):
        unpack(tmp_path, tar(*[file(f"f{n}", b"") for n in range(50)]), entries=49)
    with pytest.raises(UnifleetError, match="more files"):
        unpack(tmp_path, tar(*[file("/".join(f"{n}{d}" for d in range(10)) + "/f", b"") for n in range(10)]), entries=60)


def test_trailing_bytes_count_too(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="more bytes"):
        unpack(tmp_path, gzip.compress(tar(file("f")) + b"\0" * (8 << 20)), size=1 << 20)


def test_a_header_of_absurd_size_is_refused_without_being_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 7 << 30
    with pytest.raises(UnifleetError, match="absurd"):
        unpack(tmp_path, info.tobuf(tarfile.GNU_FORMAT))


def test_zstd_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="zstd"):
        unpack(tmp_path, b"\x28\xb5\x2f\xfd" + b"\0" * 100)


@pytest.mark.parametrize("cut", [3, 20, 200, 512, 700, 1000])
def test_a_cut_layer_is_refused(tmp_path: Path, cut: int) -> None:
    layer = tar(file("f", os.urandom(5000)))
    for body in (layer[:cut], gzip.compress(layer)[:cut]):
        with pytest.raises(UnifleetError):
            unpack(tmp_path, body)


NAME = st.lists(st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "secret"]), min_size=1, max_size=5).map("/".join)
ENTRY = st.one_of(
    st.builds(file, NAME, st.binary(max_size=10)),
    st.builds(directory, NAME),
    st.builds(symlink, NAME, NAME),
    st.builds(symlink, NAME, NAME.map(lambda name: "/" + name)),
    st.builds(hard_link, NAME, NAME),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(ENTRY, max_size=6), min_size=1, max_size=3))
def test_no_archive_of_any_shape_touches_anything_outside(layers: list[list[Entry]]) -> None:
    with guarded_root() as root:
        try:
            unpack(root, *(tar(*entries) for entries in layers))
        except UnifleetError as error:
            assert error.message  # noqa: PT017


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_damaged_bytes_do_more_than_one_clear_error(data: st.DataObject) -> None:
    layer = bytearray(tar(file("a", b"x" * 600), symlink("l", "../.."), hard_link("h", "a"), directory("d")))
    for _number in range(data.draw(st.integers(1, 6))):
        layer[data.draw(st.integers(0, len(layer) - 1))] = data.draw(st.integers(0, 255))
    with guarded_root() as root:
        try:
            unpack(root, bytes(layer))
        except UnifleetError as error:
            assert error.message  # noqa: PT017


def test_a_path_is_resolved_as_the_image_sees_it(tmp_path: Path) -> None:
    unpack(tmp_path, tar(file("d/f"), symlink("abs", "/d/f"), symlink("up", "../d"), symlink("chain", "abs")))
    assert resolve_in_root(tmp_path, "/abs") == tmp_path / "d/f"
    assert resolve_in_root(tmp_path, "chain") == tmp_path / "d/f"
    assert resolve_in_root(tmp_path, "d/./../d//f") == tmp_path / "d/f"
    with pytest.raises(UnifleetError, match="leads out"):
        resolve_in_root(tmp_path, "up/f")
