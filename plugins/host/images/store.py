# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of one host: pull, keep, find again, choose what to run, and remove what nobody needs any more.

Nothing that a registry sends is believed: index, manifest, config and layers are checked against digests, sizes against limits and against
what the disk has left, names by layers.py. cache.py says where what is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage, ImageCache
from ansible_collections.unifleet.hybrid.plugins.host.images.choice import UNUSABLE, choose_bootable
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import Collected, CollectLimits, Disk, plan
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import (
    Bootable,
    Image,
    ImageError,
    Profile,
    RegistryCredentials,
    RegistrySettings,
)
from ansible_collections.unifleet.hybrid.plugins.host.images.foreign_layouts import read_foreign
from ansible_collections.unifleet.hybrid.plugins.host.images.layers import Budget, unpack_layer
from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import (
    KRAFT_SYSTEMS,
    Config,
    Descriptor,
    Manifest,
    choose,
    digest_of,
    parse_config,
    parse_manifest,
)
from ansible_collections.unifleet.hybrid.plugins.host.images.paths import resolve_in_root
from ansible_collections.unifleet.hybrid.plugins.host.images.registry import PULL_FAILED, Registry
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import DOCKER_HUB, ImageReference, parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import BYTES_MOST, PROFILE_PATH, parse_profile

POLICIES = ("Always", "IfNotPresent", "Never")


class ImageStore:
    """Blocking; safe from any thread, and beside other processes with the same directory.

    default_registry: where a name without a registry is looked up. insecure_registries: "HOST:PORT" of those that speak plain HTTP or have
    a certificate that is not checked; registries: the same and more of some. architecture: in OCI terms. hypervisor: the host's kind of
    machines, for images that are split by it. size_limit: bytes that one image may have packed, and may unpack to. pull_timeout: seconds
    for each question to a registry, and for unpacking.
    """

    def __init__(
        self,
        directory: Path,
        default_registry: str = DOCKER_HUB,
        insecure_registries: Sequence[str] = (),
        architecture: str = "amd64",
        *,
        hypervisor: str = "",
        size_limit: int = 4 << 30,
        entry_limit: int = 200_000,
        pull_timeout: float = 600.0,
        registries: Optional[Mapping[str, RegistrySettings]] = None,
        registry: Optional[Registry] = None,
    ) -> None:
        self._directory = directory
        self._default_registry = default_registry
        self._architecture = architecture
        self._hypervisor = hypervisor
        self._size_limit = size_limit
        self._entry_limit = entry_limit
        self._pull_timeout = pull_timeout
        self._registry = registry or Registry(insecure_registries, pull_timeout, settings=registries)
        self._cache = ImageCache(directory, f"{architecture} {hypervisor}")

    def pull(self, reference: str, policy: str = "IfNotPresent", credentials: Sequence[RegistryCredentials] = ()) -> Image:
        """The image, on disk. Raises ImageError with a Kubernetes reason.

        policy: Always asks the registry which digest is meant and fetches what is not there; IfNotPresent and Never as in Kubernetes.
        credentials: logins for this registry, tried in order.
        """
        if policy not in POLICIES:
            raise ImageError("InvalidImageName", f"image pull policy {policy!r} is not known", f"use {', '.join(POLICIES)}")
        wanted = self._parse(reference)
        if policy != "Always":
            present = self.find(reference)
            if present is not None:
                return present
        if policy == "Never":
            raise ImageError(
                "ErrImageNeverPull", f"image {wanted} is not present with pull policy of Never", "pull it first, or use IfNotPresent"
            )
        try:
            with self._cache.work() as work:
                digest, content = self._platform(wanted, credentials, work)
                image = self._load(wanted, digest) or self._fetch(wanted, digest, content, credentials, work)
                self._cache.remember(str(wanted), digest, work)
                return image
        except ImageError:
            raise
        except UnifleetError as error:
            raise ImageError(PULL_FAILED, f"image {wanted}: {error.message}", error.hint) from error
        except OSError as error:
            hint = "see that the disk has room and is writable"
            raise ImageError(PULL_FAILED, f"image {wanted} cannot be kept in {self._directory}: {error}", hint) from error

    def find(self, reference: str) -> Optional[Image]:
        """The image that this reference meant when it was last pulled, if it is still here; it counts as used now."""
        wanted = self._parse(reference)
        for digest in (wanted.digest, self._cache.meaning(str(wanted))):
            image = self._load(wanted, digest) if digest else None
            if image is not None:
                return image
        return None

    def images(self) -> list[CachedImage]:
        """All that is here."""
        return self._cache.images()

    def collect(
        self, limits: CollectLimits, in_use: Collection[str], keep: Collection[str] = (), since: Optional[float] = None
    ) -> Collected:
        """Remove what is not needed as far as the limits ask for it, and what was left of pulls that died.

        in_use: digests that containers have, as of the time since (seconds since the epoch, default now): what is used after that stays
        too. keep: references whose images stay in any case.
        """
        since = time.time() if since is None else since
        self._cache.sweep()
        kept = {self._cache.meaning(str(self._parse(reference))) for reference in keep} | set(in_use)
        disk = os.statvfs(self._directory)
        decided = plan(self._cache.images(), kept, Disk(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize), limits, time.time())
        freed, removed = 0, []
        for image in (*decided.too_old, *decided.removable):
            if image not in decided.too_old and freed >= decided.wanted:
                break
            if self._cache.remove(image.digest, since):
                freed += image.size
                removed.append(image.digest)
        return Collected(freed, max(0, decided.wanted - freed), tuple(removed))

    def resolve(self, image: Image, hypervisor: str, architecture: str) -> Bootable:
        """What of the image this host runs. Raises ImageError saying what the image offers."""
        return choose_bootable(image, hypervisor, architecture)

    def _parse(self, reference: str) -> ImageReference:
        try:
            return parse_reference(reference, self._default_registry)
        except UnifleetError as error:
            raise ImageError("InvalidImageName", error.message, error.hint) from error

    def _platform(self, wanted: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> tuple[str, bytes]:
        """This host's platform manifest: its digest, and its bytes where they had to be fetched already."""
        top = self._registry.manifest(wanted, credentials, work)
        if wanted.digest and digest_of(top) != wanted.digest:
            raise ImageError(
                PULL_FAILED, f"image {wanted}: the registry sent other content, {digest_of(top)}", "do not trust this registry"
            )
        entry = choose(top, self._architecture, self._hypervisor)
        return (entry.digest, b"") if entry is not None else (digest_of(top), top)

    def _fetch(self, wanted: ImageReference, digest: str, content: bytes, credentials: Sequence[RegistryCredentials], work: Path) -> Image:
        """content: the manifest, or nothing when only its digest is known."""
        with self._cache.lock(digest):
            present = self._load(wanted, digest)
            if present is not None:
                return present
            if not content:
                content = self._registry.manifest(replace(wanted, tag="", digest=digest), credentials, work)
            manifest = self._manifest(content, digest)
            size = sum(blob.size for blob in (manifest.config, *manifest.layers))
            if size > self._size_limit:
                raise UnifleetError(f"the image has {size} bytes; at most {self._size_limit} are allowed", "make the image smaller")
            _check_room(self._directory, size)
            blobs = self._registry.fetch(wanted, digest, credentials, work, size + len(content))
            new = work / "image"
            config = self._unpack(blobs, digest, new)
            shutil.rmtree(blobs)
            self._cache.adopt(new, digest, {"config": _config_document(config)})
        image = self._load(wanted, digest)
        if image is None:
            raise ImageError(
                PULL_FAILED, f"image {wanted} vanished from {self._directory} while it was pulled", "let nothing else write there"
            )
        return image

    def _manifest(self, content: bytes, digest: str) -> Manifest:
        if digest_of(content) != digest:
            raise UnifleetError(f"the registry sent manifest {digest_of(content)} for {digest}", "do not trust this registry")
        return parse_manifest(content)

    def _unpack(self, blobs: Path, digest: str, new: Path) -> Config:
        """Make new/root of what skopeo brought. Raises UnifleetError."""
        manifest = self._manifest((blobs / "manifest.json").read_bytes(), digest)
        config = parse_config(_blob(blobs, manifest.config))
        self._check(config, manifest)
        root = new / "root"
        root.mkdir(parents=True)
        budget = _budget(new, self._size_limit, self._entry_limit, self._pull_timeout)
        for layer, diff_id in zip(manifest.layers, config.diff_ids):
            path = _blob_path(blobs, layer)
            _verify(path, layer)
            with path.open("rb") as source:
                unpacked = unpack_layer(source, root, budget)
            if unpacked != diff_id:
                raise UnifleetError(
                    f"layer {layer.digest} unpacks to {unpacked}, not to {diff_id} as the image says", "push the image anew"
                )
            path.unlink()
        root.chmod(0o755)
        profile, _command = _profile(root)
        if profile is not None:
            _make_readable(root, [*profile.kernels.values(), *profile.initrds.values(), *([profile.initrd] if profile.initrd else [])])
        new.chmod(0o755)
        return config

    def _check(self, config: Config, manifest: Manifest) -> None:
        if KRAFT_SYSTEMS.get(config.system) != self._hypervisor and config.system not in ("", "linux"):
            raise UnifleetError(f"the image is for {config.system[:40]!r}, not for linux", "use an image for linux")
        if config.architecture not in ("", self._architecture, *{"amd64": ("386",), "arm64": ("arm",)}.get(self._architecture, ())):
            hint = f"push it for linux/{self._architecture}"
            raise UnifleetError(f"the image is for {config.architecture[:40]!r}; this host is {self._architecture}", hint)
        if len(config.diff_ids) != len(manifest.layers):
            raise UnifleetError(f"the image has {len(manifest.layers)} layers but {len(config.diff_ids)} diff_ids", "push the image anew")

    def _load(self, wanted: ImageReference, digest: str) -> Optional[Image]:
        record = self._cache.use(digest)
        if record is None:
            return None
        root = self._cache.root(digest)
        try:
            config = record["config"]
            profile, command = _profile(root)
            return Image(
                reference=str(wanted),
                digest=digest,
                root=root,
                entrypoint=tuple(config["entrypoint"]),
                command=tuple(config["command"]) or (() if config["entrypoint"] else command),
                env=tuple((name, value) for name, value in config["env"]),
                working_directory=config["working_directory"],
                user=config["user"],
                profile=profile,
                size=int(record.get("size") or 0),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        except UnifleetError as error:
            raise ImageError(UNUSABLE, f"image {wanted}: {error.message}", error.hint) from error


def _check_room(directory: Path, size: int) -> None:
    disk = os.statvfs(directory)
    if size > disk.f_bavail * disk.f_frsize:
        raise UnifleetError(
            f"the image has {size} bytes and the disk of {directory} has {disk.f_bavail * disk.f_frsize} left", "make room on this host"
        )


def _budget(directory: Path, size_limit: int, entry_limit: int, seconds: float) -> Budget:
    """The limits, or nine tenths of what the disk has left: an image may not fill it for everybody else."""
    disk = os.statvfs(directory)
    room = disk.f_bavail * disk.f_frsize * 9 // 10
    inodes = disk.f_favail * 9 // 10 if disk.f_files else entry_limit
    return Budget(min(size_limit, room), min(entry_limit, inodes), time.monotonic() + seconds)


def _blob_path(blobs: Path, blob: Descriptor) -> Path:
    return blobs / blob.digest.partition(":")[2]


def _blob(blobs: Path, blob: Descriptor) -> bytes:
    """A small blob's verified bytes."""
    path = _blob_path(blobs, blob)
    _verify(path, blob)
    return path.read_bytes()


def _verify(path: Path, blob: Descriptor) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError as error:
        raise UnifleetError(f"blob {blob.digest} was not sent by the registry", "push the image anew") from error
    if "sha256:" + digest.hexdigest() != blob.digest or size != blob.size:
        raise UnifleetError(f"blob {blob.digest} arrived corrupt", "push the image anew; the registry's disk may be failing")


def _profile(root: Path) -> tuple[Optional[Profile], tuple[str, ...]]:
    """The image's own /unikernel.json, or what another layout says; with the words that the latter runs without others."""
    path = resolve_in_root(root, PROFILE_PATH)
    if not path.is_file():
        foreign = read_foreign(root)
        return (foreign.profile, foreign.command) if foreign else (None, ())
    with path.open("rb") as file:
        return parse_profile(file.read(BYTES_MOST + 1)), ()


def _config_document(config: Config) -> dict[str, Any]:
    return {
        "entrypoint": config.entrypoint,
        "command": config.command,
        "env": config.env,
        "working_directory": config.working_directory,
        "user": config.user,
    }


def _make_readable(root: Path, paths: Sequence[str]) -> None:
    """Kernels are read by the hypervisor's own user, who is not root."""
    for path in paths:
        file = resolve_in_root(root, path)
        if not file.is_file():
            continue
        file.chmod(stat.S_IMODE(file.stat().st_mode) | 0o444)
        for parent in file.parents:
            if parent == root:
                break
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o555)
