# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's cache of images, by digest: pull, keep, find again, and choose what to run.

    DIRECTORY/images/sha256-HEX/root         an unpacked image; the digest is that of its platform's manifest
    DIRECTORY/images/sha256-HEX/image.json   that manifest's digest and the image's config
    DIRECTORY/references/HEX.json            which digest a reference last meant
    DIRECTORY/locks/, DIRECTORY/work/        one lock for each digest; what is under way

Everything is made in work/ and renamed into place when it is whole, so that a crash leaves only work/ behind; what no living process
holds there is swept when a store is opened. A lock file for each digest lets one process and one thread pull while
the others wait and then find it done.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.choice import UNUSABLE, choose_bootable
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image, ImageError, Profile, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.foreign_layouts import read_foreign
from ansible_collections.unifleet.hybrid.plugins.host.images.layers import Budget, resolve_in_root, unpack_layer
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
from ansible_collections.unifleet.hybrid.plugins.host.images.registry import PULL_FAILED, Registry
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import (
    DOCKER_HUB,
    ImageReference,
    is_digest,
    parse_reference,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import BYTES_MOST, PROFILE_PATH, parse_profile

POLICIES = ("Always", "IfNotPresent", "Never")


class ImageStore:
    """The images of one host. Blocking; safe from any thread, and beside other processes with the same directory.

    default_registry: where a name without a registry is looked up. insecure_registries: "HOST:PORT" of those that speak plain HTTP or have
    a certificate that is not checked. architecture: in OCI terms. hypervisor: the host's kind of machines, for images that are split by it.
    size_limit: bytes that one image may unpack to.
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
        registry: Optional[Registry] = None,
    ) -> None:
        self._directory = directory
        self._default_registry = default_registry
        self._architecture = architecture
        self._hypervisor = hypervisor
        self._size_limit = size_limit
        self._entry_limit = entry_limit
        self._registry = registry or Registry(insecure_registries, pull_timeout)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, mode in (("images", 0o755), ("references", 0o700), ("locks", 0o700), ("work", 0o700)):
            (directory / name).mkdir(mode=mode, exist_ok=True)
        self._sweep()

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
            with self._work() as work:
                digest = self._digest(wanted, credentials, work)
                image = self._load(wanted, digest) or self._fetch(wanted, digest, credentials, work)
                self._remember(wanted, digest, work)
                return image
        except ImageError:
            raise
        except UnifleetError as error:
            raise ImageError(PULL_FAILED, f"image {wanted}: {error.message}", error.hint) from error
        except OSError as error:
            hint = "see that the disk has room and is writable"
            raise ImageError(PULL_FAILED, f"image {wanted} cannot be kept in {self._directory}: {error}", hint) from error

    def find(self, reference: str) -> Optional[Image]:
        """The image that this reference meant when it was last pulled, if it is still here."""
        wanted = self._parse(reference)
        if wanted.digest:
            present = self._load(wanted, wanted.digest)
            if present is not None:
                return present
        try:
            digest = json.loads(self._reference_file(wanted).read_text())["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self._load(wanted, digest) if isinstance(digest, str) and is_digest(digest) else None

    def resolve(self, image: Image, hypervisor: str, architecture: str) -> Bootable:
        """What of the image this host runs. Raises ImageError saying what the image offers."""
        return choose_bootable(image, hypervisor, architecture)

    def _parse(self, reference: str) -> ImageReference:
        try:
            return parse_reference(reference, self._default_registry)
        except UnifleetError as error:
            raise ImageError("InvalidImageName", error.message, error.hint) from error

    def _digest(self, wanted: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> str:
        """The digest of this host's platform manifest."""
        top = self._registry.manifest(wanted, credentials, work)
        if wanted.digest and digest_of(top) != wanted.digest:
            raise ImageError(
                PULL_FAILED, f"image {wanted}: the registry sent other content, {digest_of(top)}", "do not trust this registry"
            )
        entry = choose(top, self._architecture, self._hypervisor)
        return entry.digest if entry is not None else digest_of(top)

    def _fetch(self, wanted: ImageReference, digest: str, credentials: Sequence[RegistryCredentials], work: Path) -> Image:
        with self._lock(digest):
            present = self._load(wanted, digest)
            if present is not None:
                return present
            blobs = self._registry.fetch(wanted, digest, credentials, work)
            new = work / "image"
            self._unpack(blobs, digest, new)
            shutil.rmtree(blobs)
            _sync(new)
            place = self._place(digest)
            if place.exists():
                shutil.rmtree(place)
            new.rename(place)
        image = self._load(wanted, digest)
        if image is None:
            raise ImageError(
                PULL_FAILED, f"image {wanted} vanished from {self._directory} while it was pulled", "let nothing else write there"
            )
        return image

    def _unpack(self, blobs: Path, digest: str, new: Path) -> None:
        """Make new/root and new/image.json of what skopeo brought. Raises UnifleetError."""
        content = (blobs / "manifest.json").read_bytes()
        if digest_of(content) != digest:
            raise UnifleetError(f"the registry sent manifest {digest_of(content)} for {digest}", "do not trust this registry")
        manifest = parse_manifest(content)
        config = parse_config(_blob(blobs, manifest.config))
        self._check(config, manifest)
        root = new / "root"
        root.mkdir(parents=True)
        budget = Budget(self._size_limit, self._entry_limit)
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
        record = {"digest": digest, "config": _config_document(config)}
        (new / "image.json").write_text(json.dumps(record, sort_keys=True))

    def _check(self, config: Config, manifest: Manifest) -> None:
        if KRAFT_SYSTEMS.get(config.system) != self._hypervisor and config.system not in ("", "linux"):
            raise UnifleetError(f"the image is for {config.system[:40]!r}, not for linux", "use an image for linux")
        if config.architecture not in ("", self._architecture, *{"amd64": ("386",), "arm64": ("arm",)}.get(self._architecture, ())):
            hint = f"push it for linux/{self._architecture}"
            raise UnifleetError(f"the image is for {config.architecture[:40]!r}; this host is {self._architecture}", hint)
        if len(config.diff_ids) != len(manifest.layers):
            raise UnifleetError(f"the image has {len(manifest.layers)} layers but {len(config.diff_ids)} diff_ids", "push the image anew")

    def _load(self, wanted: ImageReference, digest: str) -> Optional[Image]:
        place = self._place(digest)
        try:
            record = json.loads((place / "image.json").read_text())
            config = record["config"]
            if record["digest"] != digest:
                return None
            profile, command = _profile(place / "root")
            return Image(
                reference=str(wanted),
                digest=digest,
                root=place / "root",
                entrypoint=tuple(config["entrypoint"]),
                command=tuple(config["command"]) or (() if config["entrypoint"] else command),
                env=tuple((name, value) for name, value in config["env"]),
                working_directory=config["working_directory"],
                user=config["user"],
                profile=profile,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        except UnifleetError as error:
            raise ImageError(UNUSABLE, f"image {wanted}: {error.message}", error.hint) from error

    def _place(self, digest: str) -> Path:
        return self._directory / "images" / digest.replace(":", "-")

    def _reference_file(self, wanted: ImageReference) -> Path:
        name = hashlib.sha256(f"{wanted} {self._architecture} {self._hypervisor}".encode()).hexdigest()
        return self._directory / "references" / f"{name}.json"

    def _remember(self, wanted: ImageReference, digest: str, work: Path) -> None:
        new = work / "reference.json"
        new.write_text(json.dumps({"reference": str(wanted), "digest": digest}))
        new.replace(self._reference_file(wanted))

    @contextlib.contextmanager
    def _lock(self, digest: str) -> Iterator[None]:
        with (self._directory / "locks" / digest.replace(":", "-")).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _work(self) -> Iterator[Path]:
        """A private directory, locked while it is in use so that no sweep takes it."""
        with self._sweeping(fcntl.LOCK_SH):
            work = Path(tempfile.mkdtemp(dir=self._directory / "work"))
            handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield work
        finally:
            _remove_tree(work)
            os.close(handle)

    def _sweep(self) -> None:
        """Remove what a process that died left in work/."""
        with self._sweeping(fcntl.LOCK_EX):
            for left in (self._directory / "work").iterdir():
                handle = os.open(left, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_tree(left)
                except BlockingIOError:
                    pass
                finally:
                    os.close(handle)

    @contextlib.contextmanager
    def _sweeping(self, how: int) -> Iterator[None]:
        with (self._directory / "locks" / "work").open("ab") as file:
            fcntl.flock(file, how)
            yield


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


def _remove_tree(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        for directory, _names, _files in os.walk(path):
            Path(directory).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """All of the file system that path is on, to disk: a rename must not outlive the files it stands for."""
    handle = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(handle)
    except AttributeError:
        os.sync()
    finally:
        os.close(handle)
