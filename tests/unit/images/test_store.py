# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store on real layouts: policies, digests, crashes, one pull for many callers. The registry is a directory here; a real
registry and skopeo are in tests/system/test_image_registry.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import ImageError, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.registry import Registry
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, Layout, digest_of, matches, pack, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

PINNED = "sha256:9776e7db6281e86a2f68827ba86ab7763c26879011999e78ecb5a99b8cc5ffa4"
"""Of the uncompressed image below: it must be the same on every machine and with every Python."""
KERNELS = {"kvm/amd64": "/boot/kvm-amd64", "process/amd64": "/bin/process-amd64", "process/arm64": "/bin/process-arm64"}


def content(marker: bytes = b"1", **changes: object) -> ImageContent:
    profile = Profile("plain", KERNELS, memory_bytes=8 << 20, can_shut_down=True)
    files = {path[1:]: (path.encode() + marker, True) for path in KERNELS.values()}
    return ImageContent(profile, files, ("--sensor", "humidity"), ("--period", "1"), (("A", "b=c"),), **changes)  # type: ignore[arg-type]


class DirectoryRegistry(Registry):
    """Serves layouts by reference, as skopeo would bring them; counts what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.layouts: dict[str, Layout] = {}
        self.asked = self.fetched = 0
        self.spoil: Callable[[Path], None] = lambda blobs: None

    def manifest(self, reference: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> bytes:
        self.asked += 1
        if not reference.tag:
            return next(layout.blobs[reference.digest] for layout in self.layouts.values() if reference.digest in layout.blobs)
        layout = self.layouts.get(str(reference))
        if layout is None:
            raise ImageError("ErrImagePull", f"{reference}: manifest unknown")
        return layout.blobs[layout.digest]

    def fetch(self, reference: ImageReference, digest: str, credentials: Sequence[RegistryCredentials], work: Path, size: int) -> Path:
        self.fetched += 1
        layout = next(layout for layout in self.layouts.values() if digest in layout.blobs)
        blobs = work / "blobs"
        blobs.mkdir()
        manifest = json.loads(layout.blobs[digest])
        for blob in [manifest["config"], *(manifest["layers"] or ())]:
            if blob["digest"] in layout.blobs:
                (blobs / blob["digest"][7:]).write_bytes(layout.blobs[blob["digest"]])
        (blobs / "manifest.json").write_bytes(layout.blobs[digest])
        time.sleep(0.02)
        self.spoil(blobs)
        return blobs


@pytest.fixture
def registry() -> DirectoryRegistry:
    made = DirectoryRegistry()
    made.layouts["lab:5000/humidity:latest"] = pack(content())
    return made


def store(directory: Path, registry: Registry, architecture: str = "amd64", **options: Any) -> ImageStore:
    return ImageStore(directory / "store", "lab:5000", (), architecture, registry=registry, **options)


def test_an_image_is_pulled_once_and_found_again_by_every_policy(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    first = images.pull("humidity", "IfNotPresent")
    assert first.entrypoint == ("/bin/process-amd64", "--sensor", "humidity")
    assert first.command == ("--period", "1")
    assert first.env == (("A", "b=c"),)
    assert first.profile is not None
    assert first.profile.memory_bytes == 8 << 20
    assert (first.root / "bin/process-amd64").read_bytes() == b"/bin/process-amd641"
    again = store(tmp_path, registry)
    assert [again.pull("humidity", policy) for policy in ("Always", "IfNotPresent", "Never")] == [first] * 3
    assert again.pull(f"lab:5000/humidity@{first.digest}", "Never").root == first.root
    assert registry.fetched == 1


def test_always_takes_the_new_image_of_a_moved_tag_and_keeps_the_old_one(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    old = images.pull("humidity", "Always")
    registry.layouts["lab:5000/humidity:latest"] = pack(content(b"2"))
    assert images.pull("humidity", "IfNotPresent") == old
    new = images.pull("humidity", "Always")
    assert new.digest != old.digest
    assert images.pull("humidity", "Never") == new
    assert old.root.is_dir()


def test_never_with_nothing_here_says_so(tmp_path: Path, registry: DirectoryRegistry) -> None:
    with pytest.raises(ImageError, match="Never") as caught:
        store(tmp_path, registry).pull("humidity", "Never")
    assert caught.value.reason == "ErrImageNeverPull"
    assert registry.fetched == 0


@pytest.mark.parametrize(("reference", "reason"), [("Bad Name", "InvalidImageName"), ("unknown", "ErrImagePull")])
def test_each_failure_has_its_kubernetes_reason(tmp_path: Path, registry: DirectoryRegistry, reference: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        store(tmp_path, registry).pull(reference)
    assert caught.value.reason == reason


def test_every_architecture_gets_its_own_program_from_the_same_reference(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry, "arm64")
    image = images.pull("humidity")
    assert image.entrypoint[0] == "/bin/process-arm64"
    assert images.resolve(image, "process", "arm64").kernel == image.root / "bin/process-arm64"
    with pytest.raises(ImageError, match="no kernel for kvm/arm64; it has process/arm64"):
        images.resolve(image, "kvm", "arm64")
    with pytest.raises(ImageError, match="no entry for linux/riscv64; it has linux/amd64, linux/arm64"):
        store(tmp_path, registry, "riscv64").pull("humidity")


def test_a_kernel_is_readable_for_the_hypervisors_user_whatever_the_image_says(tmp_path: Path, registry: DirectoryRegistry) -> None:
    image = store(tmp_path, registry).pull("humidity")
    kernel = store(tmp_path, registry).resolve(image, "kvm", "amd64").kernel
    assert kernel.stat().st_mode & 0o444 == 0o444
    assert all(parent.stat().st_mode & 0o001 for parent in list(kernel.parents)[:4])


def test_many_callers_at_once_cost_one_fetch(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(images.pull("humidity", "Always").root)) for _number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len(set(found)) == 1
    assert registry.fetched == 1
    assert list((tmp_path / "store/work").iterdir()) == []


def _pull_in_process(directory: Path, results: multiprocessing.Queue[int]) -> None:
    registry = DirectoryRegistry()
    registry.layouts["lab:5000/humidity:latest"] = pack(content())
    store(directory, registry).pull("humidity", "Always")
    results.put(registry.fetched)


def test_many_processes_at_once_cost_one_fetch(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_pull_in_process, args=(tmp_path, results)) for _number in range(4)]
    for process in processes:
        process.start()
    assert sum(results.get(timeout=60) for _process in processes) == 1
    for process in processes:
        process.join()


def _die_while_pulling(directory: Path) -> None:
    registry = DirectoryRegistry()
    registry.layouts["lab:5000/humidity:latest"] = pack(content())
    registry.spoil = lambda blobs: os.kill(os.getpid(), signal.SIGKILL)
    store(directory, registry).pull("humidity")


def test_a_kill_in_the_midst_leaves_nothing_after_the_next_start(tmp_path: Path, registry: DirectoryRegistry) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_while_pulling, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "store/work").iterdir())) == 1
    images = store(tmp_path, registry)
    assert list((tmp_path / "store/work").iterdir()) == []
    with pytest.raises(ImageError):
        images.pull("humidity", "Never")
    assert images.pull("humidity").root.is_dir()


def test_opening_a_store_spares_the_pull_of_another_process(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    registry.spoil = lambda blobs: store(tmp_path, registry)._cache.sweep()
    assert images.pull("humidity").root.is_dir()


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize("which", range(3))
def test_a_corrupt_blob_is_named_and_nothing_is_kept(tmp_path: Path, registry: DirectoryRegistry, which: int) -> None:
    registry.spoil = lambda blobs: flip(sorted(blobs.iterdir())[which])
    images = store(tmp_path, registry)
    with pytest.raises(ImageError, match=r"sha256:[0-9a-f]{64}"):
        images.pull("humidity")
    assert list((tmp_path / "store/images").iterdir()) == []
    registry.spoil = lambda blobs: None
    assert images.pull("humidity").root.is_dir()


def test_a_missing_blob_is_named(tmp_path: Path, registry: DirectoryRegistry) -> None:
    registry.spoil = lambda blobs: sorted(blobs.iterdir())[0].unlink()
    with pytest.raises(ImageError, match="was not sent"):
        store(tmp_path, registry).pull("humidity")


def rebuilt(layout: Layout, change: Callable[[dict[str, object], dict[str, object]], None]) -> Layout:
    """The layout with one manifest for amd64 whose manifest and config were changed, all digests right."""
    index = json.loads(layout.blobs[layout.digest])
    manifest = json.loads(layout.blobs[index["manifests"][0]["digest"]])
    config = json.loads(layout.blobs[manifest["config"]["digest"]])
    change(manifest, config)
    body = json.dumps(config).encode()
    manifest["config"].update(digest=digest_of(body), size=len(body))
    top = json.dumps(manifest).encode()
    return Layout(digest_of(top), {**layout.blobs, digest_of(body): body, digest_of(top): top})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m, c: c["rootfs"].update(diff_ids=["sha256:" + "0" * 64]), "unpacks to"),
        (lambda m, c: c["rootfs"].update(diff_ids=[]), "0 diff_ids"),
        (lambda m, c: c.update(os="windows"), "windows"),
        (lambda m, c: c.update(architecture="s390x"), "s390x"),
        (lambda m, c: c["config"].update(Env=["NOEQUALS"]), "NOEQUALS"),
        (lambda m, c: c["config"].update(Entrypoint="sh -c"), "Entrypoint"),
        (lambda m, c: c["config"].update(Cmd=[1]), "Cmd"),
        (lambda m, c: c["config"].update(User=0), "User"),
        (lambda m, c: c.update(config=[1]), "config"),
        (lambda m, c: m["config"].update(mediaType="application/vnd.example"), "artifact"),
        (lambda m, c: m.update(schemaVersion=1), "unknown kind"),
        (lambda m, c: m.update(layers=None), "layers"),
        (lambda m, c: m.update(layers=m["layers"] * 300), "300 layers"),
        (lambda m, c: m["layers"][0].update(digest="sha256:../../../etc/passwd"), "not a sha256 digest"),
        (lambda m, c: m["layers"][0].update(size=-1), "size"),
    ],
)
def test_a_wrong_manifest_or_config_is_refused_and_named(
    tmp_path: Path, registry: DirectoryRegistry, change: Callable[[dict[str, object], dict[str, object]], None], named: str
) -> None:
    registry.layouts["lab:5000/humidity:latest"] = rebuilt(pack(content()), change)
    with pytest.raises(ImageError, match=named) as caught:
        store(tmp_path, registry).pull("humidity")
    assert caught.value.reason == "ErrImagePull"
    assert list((tmp_path / "store/images").iterdir()) == []


def test_an_image_above_the_size_limit_is_refused(tmp_path: Path, registry: DirectoryRegistry) -> None:
    with pytest.raises(ImageError, match="more bytes"):
        store(tmp_path, registry, size_limit=4096).pull("humidity")


def test_an_ordinary_linux_image_runs_as_a_process_and_on_no_hypervisor(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    image = images.pull("humidity")
    (image.root / "unikernel.json").unlink()
    plain = images.pull("humidity", "Never")
    assert plain.profile is None
    assert images.resolve(plain, "process", "amd64").family == ""
    with pytest.raises(ImageError, match="no /unikernel.json"):
        images.resolve(plain, "kvm", "amd64")


def test_a_kernel_that_is_a_link_out_of_the_image_is_refused(tmp_path: Path, registry: DirectoryRegistry) -> None:
    images = store(tmp_path, registry)
    image = images.pull("humidity")
    for target in ("../../../../../../../etc/passwd", "/etc/passwd"):
        (image.root / "boot/kvm-amd64").unlink()
        (image.root / "boot/kvm-amd64").symlink_to(target)
        with pytest.raises(ImageError, match="kvm-amd64"):
            images.resolve(image, "kvm", "amd64")


def test_the_same_input_packs_to_the_same_bytes_and_any_change_to_others() -> None:
    assert pack(content()) == pack(content())
    assert pack(content()).digest != pack(content(b"2")).digest
    assert pack(content(compression="none")).digest == PINNED


def test_a_layout_is_written_once_and_only_holds_its_image(tmp_path: Path) -> None:
    layout = pack(content())
    assert write(layout, tmp_path, "latest")
    assert matches(layout, tmp_path, "latest")
    assert not write(layout, tmp_path, "latest")
    assert write(pack(content(b"2")), tmp_path, "latest")
    assert not matches(layout, tmp_path, "latest")
    assert {path.name for path in (tmp_path / "blobs/sha256").iterdir()} == {digest[7:] for digest in pack(content(b"2")).blobs}


def test_a_profile_that_names_a_missing_file_is_not_packed() -> None:
    with pytest.raises(UnifleetError, match="kvm/amd64 is to be at /boot/k"):
        pack(ImageContent(Profile("plain", {"kvm/amd64": "/boot/k"}), {}))
