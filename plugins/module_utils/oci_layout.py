# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unikernel image as an OCI image layout, the same bytes for the same input.

The index lists one linux/ARCHITECTURE manifest for each architecture that a kernel is for. It carries the kernels of every hypervisor
(a fat image), so that stock containerd, docker and the agents resolve the same reference on every host, and each host boots what
fits it. Layers: one with the files that all architectures share, one with /unikernel.json and the kernels of the architecture.

With split, those manifests stay first in the index, and for each hypervisor of an architecture that has several a manifest follows
that carries its kernels alone, marked by an os.features entry "unifleet.hypervisor.NAME". Agents take it and fetch less; containerd up
to 2.2 takes the first manifest that fits and does not look at os.features, and from 2.3 on skips what asks for features that it does
not know (containerd/platforms, compare.go), so it takes the fat one either way. Kernels are layers of their own then, which both
share, so a registry stores them once.

Times are 0, owners root, entries sorted. Gzip bytes depend on the zlib in use; compression "none" does not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import layer_tar
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import is_digest
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import PROFILE_PATH, Profile, profile_bytes, profile_from

LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
HYPERVISOR_FEATURE = "unifleet.hypervisor."
"""What an os.features entry begins with that marks a manifest for one hypervisor."""
PROFILE_ANNOTATION = "io.unifleet.unikernel"
"""The manifest annotation that repeats /unikernel.json, so that an image can be looked at without its layers. Hosts read the file."""
REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation of an entry of a layout's index.json that is its tag."""
VARIANTS = {"arm": "v7"}


@dataclass(frozen=True)
class ImageContent:
    """What goes into an image.

    files: path in the image ("boot/sensor") -> its bytes and whether it can be executed. fixed_args: the arguments that the unikernel
    always gets (in the entrypoint); args: those that a pod's args replace (the command).
    """

    profile: Profile
    files: Mapping[str, tuple[bytes, bool]]
    fixed_args: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    compression: str = "gzip"
    split: bool = False


@dataclass(frozen=True)
class Layout:
    """A packed image. digest: of the index that a registry serves; blobs: "sha256:HEX" -> bytes."""

    digest: str
    blobs: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(len(blob) for blob in self.blobs.values())


def pack(content: ImageContent) -> Layout:
    """The layout of an image. Raises UnifleetError when the profile names a file that is not among the files."""
    checked = profile_from(json.loads(profile_bytes(content.profile)))
    named = {**checked.kernels, **{f"initrd of {target}": path for target, path in _initrds(checked, checked.kernels).items()}}
    if checked.tender:
        named["tender"] = checked.tender
    for key, path in named.items():
        if path.lstrip("/") not in content.files:
            raise UnifleetError(f"{key} is to be at {path} in the image, but nothing is put there", "name the file that goes there")
    if PROFILE_PATH in content.files:
        raise UnifleetError(f"the file /{PROFILE_PATH} cannot be given, for it is made of the other parameters", "leave it out")
    packer = _Packer(content, checked)
    manifests, special = [], []
    for architecture in sorted({target.partition("/")[2] for target in checked.kernels}):
        targets = sorted(target for target in checked.kernels if target.partition("/")[2] == architecture)
        split = content.split and len(targets) > 1
        manifests.append(packer.manifest(architecture, targets, apart=split))
        if split:
            for target in targets:
                entry = packer.manifest(architecture, [target], apart=True)
                entry["platform"]["os.features"] = [HYPERVISOR_FEATURE + target.partition("/")[0]]
                special.append(entry)
    index = json_bytes({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*manifests, *special]})
    packer.blobs[digest_of(index)] = index
    return Layout(digest_of(index), packer.blobs)


class _Packer:
    """The blobs of one image as they are made; the same content is one blob."""

    def __init__(self, content: ImageContent, profile: Profile) -> None:
        self.blobs: dict[str, bytes] = {}
        self._content = content
        self._profile = profile
        own = {path.lstrip("/") for path in [*profile.kernels.values(), *_initrds(profile, profile.kernels).values()]}
        self._shared = {path: file for path, file in content.files.items() if path not in own}

    def manifest(self, architecture: str, targets: Sequence[str], *, apart: bool) -> dict[str, Any]:
        """The index entry of a manifest with these targets. apart: each target's files are a layer of their own."""
        profile = self._profile.only(targets)
        document = {PROFILE_PATH: (profile_bytes(profile), False)}
        of_targets = [self._files_of(target) for target in targets]
        together: dict[str, tuple[bytes, bool]] = {}
        for files in of_targets:
            together.update(files)
        parts = [self._shared, *of_targets, document] if apart else [self._shared, {**together, **document}]
        layers, diff_ids = [], []
        for part in parts:
            layer, diff_id = self._layer(part) if part else (None, "")
            if layer is not None and layer not in layers:
                layers.append(layer)
                diff_ids.append(diff_id)
        config = _add(self.blobs, json_bytes(_config(self._content, profile, architecture, diff_ids)), CONFIG)
        annotations = {PROFILE_ANNOTATION: profile_bytes(profile).decode().strip()}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations}
        return {**_add(self.blobs, json_bytes(manifest), MANIFEST), "platform": _platform(architecture)}

    def _files_of(self, target: str) -> dict[str, tuple[bytes, bool]]:
        paths = [self._profile.kernels[target], *_initrds(self._profile, [target]).values()]
        return {path.lstrip("/"): self._content.files[path.lstrip("/")] for path in paths}

    def _layer(self, files: Mapping[str, tuple[bytes, bool]]) -> tuple[dict[str, Any], str]:
        tar = layer_tar(files)
        zipped = self._content.compression == "gzip"
        return _add(self.blobs, _gzip(tar) if zipped else tar, f"{LAYER}+gzip" if zipped else LAYER), digest_of(tar)


def _initrds(profile: Profile, targets: Iterable[str]) -> dict[str, str]:
    """Target -> path of the initial RAM disk, of those targets that get one."""
    paths = {target: profile.initrd_of(target) for target in targets}
    return {target: path for target, path in paths.items() if path is not None}


def _platform(architecture: str) -> dict[str, Any]:
    platform: dict[str, Any] = {"architecture": architecture, "os": "linux"}
    if architecture in VARIANTS:
        platform["variant"] = VARIANTS[architecture]
    return platform


def write(layout: Layout, directory: Path, tag: str) -> bool:
    """Make directory an OCI image layout of exactly this image. Returns whether anything was not so before."""
    index = layout.blobs[layout.digest]
    entry = {"mediaType": INDEX, "digest": layout.digest, "size": len(index), "annotations": {REF_NAME: tag}}
    files = {f"blobs/sha256/{digest.partition(':')[2]}": blob for digest, blob in layout.blobs.items()}
    files["oci-layout"] = LAYOUT_VERSION
    files["index.json"] = json_bytes({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    changed = False
    for name, blob in files.items():
        path = directory / name
        if not path.is_file() or path.read_bytes() != blob:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
            changed = True
    blob_directory = directory / "blobs" / "sha256"
    for path in blob_directory.iterdir():
        if f"sha256:{path.name}" not in layout.blobs:
            path.unlink()
            changed = True
    return changed


def matches(layout: Layout, directory: Path, tag: str) -> bool:
    """Whether directory already is this layout."""
    try:
        document = json.loads((directory / "index.json").read_text())
        entries = [(entry["digest"], entry.get("annotations", {}).get(REF_NAME)) for entry in document["manifests"]]
        blobs = {f"sha256:{path.name}" for path in (directory / "blobs" / "sha256").iterdir()}
        whole = all(
            (directory / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes() == blob for digest, blob in layout.blobs.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return entries == [(layout.digest, tag)] and blobs == set(layout.blobs) and whole and (directory / "oci-layout").is_file()


def is_layout(directory: Path) -> bool:
    """Whether directory looks like an OCI image layout, and so may be removed as one."""
    return (directory / "oci-layout").is_file() and (directory / "index.json").is_file()


def remove(directory: Path) -> None:
    """Remove a layout with all that is in it. Raises UnifleetError when the directory is something else."""
    if not is_layout(directory):
        raise UnifleetError(f"{directory} is not an OCI image layout, so it is not removed", "remove it by hand")
    shutil.rmtree(directory)


class LayoutDirectory:
    """An OCI image layout on disk, whoever wrote it; every blob is verified as it is read."""

    def __init__(self, directory: Path) -> None:
        if not is_layout(directory):
            raise UnifleetError(f"{directory} is not an OCI image layout", "name a directory with oci-layout and index.json")
        self.directory = directory

    def tags(self) -> dict[str, str]:
        """Tag -> digest; an image without a tag is under ""."""
        try:
            entries = json.loads((self.directory / "index.json").read_bytes())["manifests"]
            return {str((entry.get("annotations") or {}).get(REF_NAME, "")): str(entry["digest"]) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnifleetError(f"{self.directory}/index.json cannot be read: {error}", "write the layout anew") from error

    def digest(self, tag: str = "") -> str:
        """The digest of the image with this tag; "" is the only image that there is. Raises UnifleetError naming the tags."""
        tags = self.tags()
        if tag in tags:
            return tags[tag]
        if not tag and len(set(tags.values())) == 1:
            return next(iter(tags.values()))
        raise UnifleetError(
            f"{self.directory} has no image {tag or 'of its own'}; it has {', '.join(sorted(tags)) or 'none'}", "name one of them"
        )

    def blob(self, digest: str) -> bytes:
        """A blob's bytes. Raises UnifleetError when it is missing or corrupt."""
        name = digest.partition(":")[2]
        if not is_digest(digest):
            raise UnifleetError(f"{self.directory}: {digest[:80]!r} is not a sha256 digest", "write the layout anew")
        try:
            content = (self.directory / "blobs" / "sha256" / name).read_bytes()
        except OSError as error:
            raise UnifleetError(f"{self.directory}: blob {digest} cannot be read: {error.strerror}", "write the layout anew") from error
        if digest_of(content) != digest:
            raise UnifleetError(f"{self.directory}: blob {digest} is corrupt", "write the layout anew")
        return content

    def verify(self, digest: str) -> None:
        """Read all that this index or manifest names. Raises UnifleetError for the first blob that is missing or corrupt."""
        todo = [digest]
        seen: set[str] = set()
        while todo:
            digest = todo.pop()
            content = self.blob(digest)
            seen.add(digest)
            try:
                document = json.loads(content)
                named = [*document.get("manifests", []), document.get("config"), *document.get("layers", [])]
                digests = [entry["digest"] for entry in named if entry]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UnifleetError(f"{self.directory}: {digest} is not an index or manifest", "write the layout anew") from error
            leaves = set(digests) if "config" in document else set()
            for leaf in leaves - seen:
                self.blob(leaf)
            seen |= leaves
            todo += [other for other in digests if other not in seen]

    def config(self, manifest: str) -> bytes:
        """The config of the manifest with this digest."""
        try:
            return self.blob(str(json.loads(self.blob(manifest))["config"]["digest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UnifleetError(f"{self.directory}: {manifest} is not an image manifest", "write the layout anew") from error


def summary(layout: Layout) -> dict[str, Any]:
    """What an image is, for a diff: its digest, and config and files' digests by platform."""
    index = json.loads(layout.blobs[layout.digest])
    platforms = {}
    for entry in index["manifests"]:
        manifest = json.loads(layout.blobs[entry["digest"]])
        config = json.loads(layout.blobs[manifest["config"]["digest"]])
        profile = json.loads(manifest["annotations"][PROFILE_ANNOTATION])
        platforms[platform_name(entry["platform"])] = {"digest": entry["digest"], "config": config["config"], "profile": profile}
    return {"digest": layout.digest, "platforms": platforms}


def platform_name(platform: Mapping[str, Any]) -> str:
    """A platform in one word: linux/arm/v7, or linux/amd64+xen for the manifest of one hypervisor."""
    name = "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key))
    features = platform.get("os.features")
    marks = [str(feature) for feature in features] if isinstance(features, list) else []
    return name + "".join("+" + mark.replace(HYPERVISOR_FEATURE, "", 1) for mark in marks)


def _config(content: ImageContent, profile: Profile, architecture: str, diff_ids: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"Entrypoint": [_program(profile, architecture), *content.fixed_args]}
    if content.args:
        config["Cmd"] = list(content.args)
    if content.env:
        config["Env"] = [f"{name}={value}" for name, value in content.env]
    if content.labels:
        config["Labels"] = dict(content.labels)
    return {**_platform(architecture), "config": config, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}


def _program(profile: Profile, architecture: str) -> str:
    """What a container runtime finds as the program: the one for processes, else the first kernel for this architecture."""
    targets = sorted(target for target in profile.kernels if target.endswith(f"/{architecture}"))
    return profile.kernels.get(f"process/{architecture}", profile.kernels[targets[0]])


def _gzip(content: bytes) -> bytes:
    """Gzip without a time in it; gzip.compress writes another header in older Pythons."""
    compressor = zlib.compressobj(9, wbits=31)
    return compressor.compress(content) + compressor.flush()


def _add(blobs: dict[str, bytes], blob: bytes, media_type: str) -> dict[str, Any]:
    blobs[digest_of(blob)] = blob
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def digest_of(blob: bytes) -> str:
    """The digest of these bytes."""
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def json_bytes(document: Any) -> bytes:
    """A document as the same bytes each time."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def read_files(sources: Sequence[tuple[str, Path, bool]]) -> dict[str, tuple[bytes, bool]]:
    """Read (path in the image, file, executable) from disk. Raises UnifleetError naming a file that cannot be read."""
    files: dict[str, tuple[bytes, bool]] = {}
    for target, source, executable in sources:
        name = target.lstrip("/")
        try:
            body = source.read_bytes()
        except OSError as error:
            raise UnifleetError(f"{source} cannot be read: {error.strerror}", "build it first, or mend the path") from error
        known: Optional[tuple[bytes, bool]] = files.get(name)
        if known is not None and known[0] != body:
            raise UnifleetError(f"two different files are to be /{name} in the image", "give one of them another name")
        files[name] = (body, executable or (known is not None and known[1]))
    return files
