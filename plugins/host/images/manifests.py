# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry says of an image: index, manifest and config, read strictly from bytes that anybody may have written. Pure.

OCI image-spec 1.1 and Docker's schema 2, which differ in media types only. Of an index the entry is chosen as containerd does
(platforms.Only): the first of the host's architecture and the best variant of it, else the first of one that it runs too; entries for
another system and attestations never match. One thing more than containerd: among the entries that fit equally, one that is marked
for the host's hypervisor (os.features "unifleet.hypervisor.NAME") goes before one that is marked for none; one marked for
another, or for anything else, is left alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import is_digest
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import HYPERVISOR_FEATURE, platform_name

BYTES_MOST = 4 << 20
LAYERS_MOST = 256
INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_RUNS = {
    "amd64": (("amd64", ("", "v1")), ("386", ("",))),
    "arm64": (("arm64", ("", "v8")), ("arm", ("v8",)), ("arm", ("", "v7")), ("arm", ("v6",)), ("arm", ("v5",))),
    "arm": (("arm", ("", "v7")), ("arm", ("v6",)), ("arm", ("v5",))),
}
"""Architecture of the host -> what it runs, best first: architecture, and variants that are alike (containerd/platforms, compare.go)."""


KRAFT_SYSTEMS = {"qemu": "kvm", "kvm": "kvm", "xen": "xen"}
"""What kraft writes as "os" of an image -> our hypervisor. Firecracker's and kraftcloud's kernels boot on neither."""
KRAFT_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Descriptor:
    """A blob: its digest "sha256:HEX" and size in bytes."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class Manifest:
    """One platform's image."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Config:
    """The parts of an image's config that a host acts on; diff_ids are the digests of the unpacked layers."""

    architecture: str
    system: str
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_directory: str
    user: str


def digest_of(content: bytes) -> str:
    """The digest of these bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One image of an index that is for Linux. platform: as people write it, linux/arm/v7 or linux/amd64+xen."""

    descriptor: Descriptor
    platform: str
    architecture: str
    variant: str = ""
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The entry that a host takes, and why. others: the platforms that the index offers besides."""

    entry: Entry
    why: str
    others: tuple[str, ...] = ()


def entries_of(content: bytes) -> Optional[tuple[Entry, ...]]:
    """The entries of an index that are for Linux, in its order; None when content is a single manifest. Raises UnifleetError."""
    document = _document(content, "manifest")
    if document.get("mediaType") not in INDEX_TYPES and not ("manifests" in document and "config" not in document):
        return None
    entries = []
    for entry in _list(document, "manifests", "index"):
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict) or not isinstance(platform.get("architecture"), str):
            continue
        platform = _as_ours(platform)
        if platform.get("os", "linux") != "linux":
            continue
        features, variant = platform.get("os.features") or [], platform.get("variant") or ""
        if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features) or not isinstance(variant, str):
            continue
        name = platform_name({**platform, "os": "linux", "os.features": features})
        entries.append(Entry(_descriptor(entry, "index"), name[:200], platform["architecture"], variant, tuple(features)))
    return tuple(entries)


def choose(content: bytes, architecture: str, hypervisor: str = "") -> Optional[Descriptor]:
    """The entry of an index for this host; None when content is a single manifest. Raises UnifleetError when there is none."""
    choice = choose_entry(content, architecture, hypervisor)
    return None if choice is None else choice.entry.descriptor


def choose_entry(content: bytes, architecture: str, hypervisor: str = "") -> Optional[Choice]:
    """As choose, with the reason. hypervisor: the host's kind of machines; "" is what containerd would take."""
    entries = entries_of(content)
    if entries is None:
        return None
    mine = (f"{HYPERVISOR_FEATURE}{hypervisor}",) if hypervisor else ()
    for wanted, variants in _RUNS.get(architecture, ((architecture, ("",)),)):
        fitting = [entry for entry in entries if entry.architecture == wanted and entry.variant in variants]
        marked = [entry for entry in fitting if mine and entry.features == mine]
        plain = [entry for entry in fitting if not entry.features]
        chosen = next(iter(marked or plain), None)
        if chosen is not None:
            why = (
                f"the first entry for linux/{wanted}"
                if chosen in plain
                else f"the entry for linux/{wanted} that is marked for {hypervisor}"
            )
            if wanted != architecture:
                why += f", which linux/{architecture} runs too"
            return Choice(chosen, why, tuple(entry.platform for entry in entries if entry is not chosen))
    offers = ", ".join(dict.fromkeys(entry.platform for entry in entries)) or "nothing for Linux"
    raise UnifleetError(f"the image has no entry for linux/{architecture}; it has {offers[:200]}", "build it for this architecture")


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest's bytes. Raises UnifleetError."""
    document = _document(content, "manifest")
    if document.get("schemaVersion") != 2 or document.get("mediaType", MANIFEST_TYPES[0]) not in MANIFEST_TYPES:
        kind = str(document.get("mediaType", f"schema version {document.get('schemaVersion')}"))[:100]
        raise UnifleetError(f"the image's manifest is of an unknown kind, {kind}", "push it as an OCI image")
    config = _descriptor(document.get("config"), "manifest")
    if config.media_type not in CONFIG_TYPES:
        raise UnifleetError(f"this is not a container image but an artifact of type {config.media_type[:100]!r}", "use an image")
    layers = tuple(_descriptor(layer, "manifest") for layer in _list(document, "layers", "manifest"))
    if len(layers) > LAYERS_MOST:
        raise UnifleetError(f"the image has {len(layers)} layers", f"at most {LAYERS_MOST} are allowed")
    return Manifest(config, layers)


def parse_config(content: bytes) -> Config:
    """Read a config's bytes. Raises UnifleetError naming the field."""
    document = _document(content, "config")
    inner = document.get("config") or {}
    rootfs = document.get("rootfs")
    if not isinstance(inner, dict) or not isinstance(rootfs, dict):
        raise _wrong("config", "config and rootfs must be objects")
    env = []
    for variable in _strings(inner, "Env"):
        name, equals, value = variable.partition("=")
        if not equals or not name:
            raise _wrong("config", f"Env has {variable[:60]!r}, which is not NAME=VALUE")
        env.append((name, value))
    return Config(
        architecture=KRAFT_ARCHITECTURES.get(_string(document, "architecture"), _string(document, "architecture")),
        system=_string(document, "os"),
        diff_ids=_strings(rootfs, "diff_ids"),
        entrypoint=_strings(inner, "Entrypoint"),
        command=_strings(inner, "Cmd"),
        env=tuple(env),
        working_directory=_string(inner, "WorkingDir") or "/",
        user=_string(inner, "User"),
    )


def _as_ours(platform: dict[str, Any]) -> dict[str, Any]:
    """A platform of kraft's (os: qemu, xen) as a Linux one that is marked for the hypervisor; its features are build options, not needs."""
    hypervisor = KRAFT_SYSTEMS.get(platform.get("os") or "") if isinstance(platform.get("os"), str) else None
    if hypervisor is None:
        return platform
    architecture = platform["architecture"]
    marked = {"os": "linux", "architecture": KRAFT_ARCHITECTURES.get(architecture, architecture)}
    return {**marked, "os.features": [f"{HYPERVISOR_FEATURE}{hypervisor}"]}


def _document(content: bytes, what: str) -> dict[str, Any]:
    if len(content) > BYTES_MOST:
        raise _wrong(what, f"it has {len(content)} bytes; at most {BYTES_MOST} are allowed")
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_int=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        raise _wrong(what, f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _wrong(what, "it is not a JSON object")
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers that differ in which of two equal keys counts would see two images behind one digest."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return document


def _number(text: str) -> int:
    """Up to 64 bits; a number of a million digits takes old Pythons minutes to read."""
    if len(text) > 20 or not text.lstrip("-").isdigit():
        raise ValueError(f"{text[:20]!r} is no number that belongs there")
    return int(text)


def _descriptor(value: Any, what: str) -> Descriptor:
    digest = value.get("digest") if isinstance(value, dict) else None
    size = value.get("size") if isinstance(value, dict) else None
    media_type = value.get("mediaType", "") if isinstance(value, dict) else ""
    if not isinstance(digest, str) or not is_digest(digest):
        raise _wrong(what, f"{str(digest)[:80]!r} is not a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(media_type, str):
        raise _wrong(what, f"the descriptor of {digest} lacks a size or media type")
    return Descriptor(digest, size, media_type)


def _list(document: dict[str, Any], key: str, what: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise _wrong(what, f"{key} is not a list")
    return value


def _strings(document: dict[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise _wrong("config", f"{key} is not a list of strings")
    return tuple(value)


def _string(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise _wrong("config", f"{key} is not a string")
    return value


def _wrong(what: str, why: str) -> UnifleetError:
    return UnifleetError(f"the image's {what} cannot be read: {why}", "push the image anew")
