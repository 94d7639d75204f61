# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers: what containerd would make of an honest one, and that a hostile one ends in a clear error with nothing outside touched."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import resource
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import disk_usage
from ansible_collections.unifleet.hybrid.plugins.host.images.layers import Budget, unpack_layer
from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
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


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_gives_the_digest_of_the_tar_whatever_its_frames(tmp_path: Path, frames: int) -> None:
    layer = tar(file("f", os.urandom(300_000)))
    step = len(layer) // frames + 1
    pieces = [zstandard.compress(layer[at : at + step]) for at in range(0, len(layer), step)]
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert (
        unpack_layer(io.BytesIO(skippable + b"".join(pieces)), tmp_path, Budget(1 << 20, 9))
        == "sha256:" + hashlib.sha256(layer).hexdigest()
    )


def test_a_host_without_zstd_says_which_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UnifleetError, match="zstd") as caught:
        unpack(tmp_path, zstandard.compress(tar(file("f"))))
    assert "python3-zstandard" in str(caught.value)


def test_a_zstd_bomb_costs_neither_memory_nor_disk_nor_time(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    bomb = b"".join(compressor.compress(b"\0" * (1 << 20)) for _number in range(256)) + compressor.flush()
    assert len(bomb) < 1 << 20
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UnifleetError, match="more bytes"):
        unpack(tmp_path, bomb, size=64 << 20)
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    window = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    greedy = zstandard.ZstdCompressor(compression_params=window).compressobj()
    with pytest.raises(UnifleetError, match="not a readable archive"):
        unpack(tmp_path, greedy.compress(b"x") + greedy.flush())


@pytest.mark.parametrize("cut", [3, 20, 200, 512, 700, 1000])
def test_a_cut_layer_is_refused(tmp_path: Path, cut: int) -> None:
    layer = tar(file("f", os.urandom(5000)))
    for body in (layer[:cut], gzip.compress(layer)[:cut]):
        with pytest.raises(UnifleetError):
            unpack(tmp_path, body)


def test_a_tree_too_deep_to_be_removed_again_is_refused_even_through_links(tmp_path: Path) -> None:
    with pytest.raises(UnifleetError, match="directories deep"):
        unpack(tmp_path, tar(file("d/" * 1500 + "f")))
    with pytest.raises(UnifleetError, match="directories deep"):
        unpack(tmp_path, tar(directory("d/" * 90), symlink("deep", "d/" * 90), directory("deep/" + "e/" * 60)))


def test_names_that_differ_in_case_only_are_two_files(tmp_path: Path) -> None:
    unpack(tmp_path, tar(file("Kernel", b"1"), file("kernel", b"2")))
    assert [(tmp_path / name).read_bytes() for name in ("Kernel", "kernel")] == [b"1", b"2"]


def test_time_is_a_limit_too(tmp_path: Path) -> None:
    empty = gzip.compress(b"") * 1000
    for layer in (tar(file("f")), empty + gzip.compress(tar(file("f")))):
        with pytest.raises(UnifleetError, match="too long"):
            unpack_layer(io.BytesIO(layer), tmp_path, Budget(1 << 20, 9, deadline=time.monotonic() - 1))


def test_headers_that_pile_up_in_memory_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    keys = "".join(record(f"key.{n}", "v") for n in range(400))
    header = tarfile.TarInfo("g")
    header.type, header.size = tarfile.XGLTYPE, len(keys)
    body = keys.encode()
    with pytest.raises(UnifleetError, match="global headers"):
        unpack(tmp_path, header.tobuf(tarfile.USTAR_FORMAT) + body + b"\0" * (-len(body) % 512) + out.getvalue())


def record(key: str, value: str) -> str:
    """One record of a pax header: its own length first."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return f"{length}{rest}"


@pytest.mark.parametrize(
    "body", [b"1" * 900_000, b"1 " * 400_000, b"11 " + b"=" * 900_000, b"999999999999 a=b\n" * 40_000, b"0 a=b\n" * 100_000]
)
def test_an_absurd_pax_header_ends_soon(tmp_path: Path, body: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    layer = header.tobuf(tarfile.USTAR_FORMAT) + body + b"\0" * (-len(body) % 512) + tar(file("f"))
    began = time.monotonic()
    with contextlib.suppress(UnifleetError):
        unpack(tmp_path, layer, size=8 << 20)
    assert time.monotonic() - began < 10


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


NUMBER = st.one_of(
    st.sampled_from([b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"-1\0", b"\0" * 12, b"00000000001\0", b"zzzzzzzzzzzz"]),
    st.binary(min_size=12, max_size=12),
)
"""A size or time: too big, negative, in base 256, no number at all."""
KINDS = st.sampled_from([bytes([kind]) for kind in b"0\x001234567ASLKDMNVXgxz\xff"])
RECORDS = st.lists(
    st.builds(
        record,
        st.sampled_from(
            ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map", "GNU.sparse.name"]
        ),
        st.sampled_from(["../../secret", "/etc/passwd", "a", "-5", "9" * 30, "nan", "1e400", "0", "1", "0,1,2,3", "", "\0", "b" * 5000]),
    ),
    max_size=3,
).map("".join)


@st.composite
def raw_entry(draw: st.DrawFn) -> bytes:
    """One header as nobody would write it, its checksum right, with whatever follows it."""
    body = draw(st.one_of(st.binary(max_size=1200), RECORDS.map(lambda text: text.encode())))
    size = draw(st.one_of(st.just(f"{len(body):011o}\0".encode()), NUMBER))
    fields = bytearray(512)
    name = draw(st.one_of(NAME.map(str.encode), st.binary(max_size=99)))[:100]
    link = draw(st.one_of(NAME.map(str.encode), st.binary(max_size=99)))[:100]
    fields[0 : len(name)] = name
    fields[100:108] = draw(st.sampled_from([b"0006755\0", b"0000000\0", b"7777777\0", b"\xff" * 8, b"none\0\0\0\0"]))
    fields[108:116] = draw(st.sampled_from([b"0000000\0", b"\x80" + b"\xff" * 7, b"\xff" * 8]))
    fields[116:124] = b"0000000\0"
    fields[124:136] = size
    fields[136:148] = draw(NUMBER)
    fields[156:157] = draw(KINDS)
    fields[157 : 157 + len(link)] = link
    fields[257:265] = draw(st.sampled_from([b"ustar\x0000", b"ustar  \0", b"\0" * 8]))
    fields[345:500] = draw(st.one_of(st.just(b"\0" * 155), st.binary(min_size=155, max_size=155)))
    fields[148:156] = b" " * 8
    fields[148:156] = f"{sum(fields):06o}\0 ".encode()
    return bytes(fields) + body + b"\0" * (-len(body) % 512)


PACKED = st.sampled_from([lambda body: body, gzip.compress, zstandard.compress])


@settings(max_examples=100, deadline=None)
@given(st.lists(raw_entry(), min_size=1, max_size=6), PACKED)
def test_no_header_of_any_shape_touches_anything_outside_or_takes_more_than_its_share(
    entries: list[bytes], pack: Callable[[bytes], bytes]
) -> None:
    began = time.monotonic()
    with guarded_root() as root:
        with contextlib.suppress(UnifleetError):
            unpack(root, pack(tar(file("a", b"1"), directory("b"), symlink("up", "../..")) + b""), pack(b"".join(entries) + b"\0" * 1024))
        for path in root.rglob("*"):
            status = path.lstat()
            assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)
            assert not (status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode))
        assert disk_usage(root) < 1 << 20
    assert time.monotonic() - began < 10


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
