# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to say of an image from its index, manifests and configs alone, without its layers.

What the unikernel is comes from the manifest's annotation io.unifleet.unikernel, which the packer sets; hosts go by the
file /unikernel.json in the image, which it repeats. An image that somebody else packed has no annotation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import ImageRegistry, Source
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import (
    PROFILE_ANNOTATION,
    LayoutDirectory,
    digest_of,
    platform_name,
)

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS_MOST = 100

Fetch = Callable[[str], bytes]
"""The digest of a manifest -> some bytes."""


def summarize(content: bytes, manifest: Fetch, config: Fetch) -> dict[str, Any]:
    """An image as people want to see it. manifest, config: the manifest of this digest, and the config of that manifest.

    {"digest": ..., "size": bytes of all blobs, "platforms": [{"platform": "linux/amd64", "digest": ..., "size": ..., "layers": [...],
    "kernels": {target: path}, "profile": {...} or None, "entrypoint": [...], "args": [...], "env": {...}, "labels": {...}}]}.
    Raises UnifleetError when it cannot be read.
    """
    top = _object(content, "index")
    sizes = {digest_of(content): len(content)}
    if top.get("mediaType") in INDEX_TYPES or "manifests" in top:
        entries = [entry for entry in _list(top, "manifests") if isinstance(entry, dict)]
        if len(entries) > MANIFESTS_MOST:
            raise UnifleetError(f"the image has {len(entries)} manifests", f"at most {MANIFESTS_MOST} are looked at")
        platforms = [_platform(manifest(str(entry.get("digest"))), config, entry.get("platform"), sizes) for entry in entries]
    else:
        platforms = [_platform(content, config, None, sizes)]
    return {"digest": digest_of(content), "size": sum(sizes.values()), "platforms": platforms}


def summary_of(registry: ImageRegistry, source: Source) -> Optional[dict[str, Any]]:
    """summarize() of an image in a registry or a layout; None when there is none. Raises UnifleetError."""
    top = registry.look(source)
    if top is None:
        return None
    if source.reference is not None:
        reference = source.reference
        return summarize(top, lambda digest: registry.manifest(reference, digest), lambda digest: registry.config(reference, digest))
    layout = LayoutDirectory(source.directory or Path())
    return summarize(top, layout.blob, layout.config)


def tags_of(registry: ImageRegistry, source: Source) -> list[str]:
    """The tags of a repository or a layout. Raises UnifleetError."""
    if source.reference is not None:
        return registry.tags(source.reference)
    return sorted(tag for tag in LayoutDirectory(source.directory or Path()).tags() if tag)


def _platform(content: bytes, fetch_config: Fetch, platform: Optional[Any], sizes: dict[str, int]) -> dict[str, Any]:
    digest = digest_of(content)
    manifest = _object(content, "manifest")
    layers = [layer for layer in _list(manifest, "layers") if isinstance(layer, dict)]
    blobs = {digest: len(content)}
    for blob in [manifest.get("config"), *layers]:
        if isinstance(blob, dict) and isinstance(blob.get("size"), int):
            blobs[str(blob.get("digest"))] = blob["size"]
    sizes.update(blobs)
    config = _object(fetch_config(digest), "config")
    said = config.get("config")
    inner: dict[str, Any] = said if isinstance(said, dict) else {}
    named = platform if isinstance(platform, dict) else {key: config.get(key) for key in ("os", "architecture", "variant")}
    profile = _profile(manifest)
    return {
        "platform": platform_name(named),
        "digest": digest,
        "size": sum(blobs.values()),
        "layers": [str(layer.get("digest")) for layer in layers],
        "kernels": profile.get("kernels", {}) if profile else {},
        "profile": profile,
        "entrypoint": inner.get("Entrypoint") or [],
        "args": inner.get("Cmd") or [],
        "env": dict(str(entry).partition("=")[::2] for entry in inner.get("Env") or []),
        "labels": inner.get("Labels") or {},
    }


def _profile(manifest: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    annotations = manifest.get("annotations")
    text = annotations.get(PROFILE_ANNOTATION) if isinstance(annotations, dict) else None
    try:
        profile = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return profile if isinstance(profile, dict) else None


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnifleetError(f"the image's {what} is not JSON: {error}", "push the image anew") from error
    if not isinstance(document, dict):
        raise UnifleetError(f"the image's {what} is not a JSON object", "push the image anew")
    return document


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []
