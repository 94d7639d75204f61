# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary container image of a few files as one OCI archive (a tar file), the same bytes for the same input.

For images that containerd is handed directly (`ctr images import`), with no registry: the pause image, runu's installer. Unikernel
images are module_utils/oci_layout.py's. Times are 0, owners root, entries sorted, nothing compressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

_VENDOR = "application/vnd.oci.image"


@dataclass(frozen=True)
class Link:
    """A symbolic link in an image."""

    target: str


@dataclass(frozen=True)
class ContainerImage:
    """What goes into an image. files: path ("bin/sh") -> (bytes, executable), or a link."""

    name: str
    architecture: str
    files: Mapping[str, Union[tuple[bytes, bool], Link]]
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def archive(image: ContainerImage) -> bytes:
    """The OCI archive; its index names the image for containerd (io.containerd.image.name) and for skopeo (ref.name).

    Raises UnifleetError for a path that leads out of the image.
    """
    layer = _layer(image.files)
    config: dict[str, Any] = {}
    for key, value in (("Entrypoint", image.entrypoint), ("Cmd", image.args), ("Env", image.env)):
        if value:
            config[key] = list(value)
    if image.labels:
        config["Labels"] = dict(image.labels)
    described = _json(
        {"architecture": image.architecture, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]}}
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_VENDOR}.manifest.v1+json",
            "config": _described(described, "config.v1+json"),
            "layers": [_described(layer, "layer.v1.tar")],
        }
    )
    annotations = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rpartition(":")[2]}
    entry = {**_described(manifest, "manifest.v1+json"), "platform": {"architecture": image.architecture, "os": "linux"}}
    index = _json({"schemaVersion": 2, "manifests": [{**entry, "annotations": annotations}]})
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    members.update({f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, described, manifest)})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            _add(tar, name, members[name], 0o644)
    return out.getvalue()


def _layer(files: Mapping[str, Union[tuple[bytes, bool], Link]]) -> bytes:
    out = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            parts = name.split("/")
            if any(part in ("", ".", "..") for part in parts):
                raise UnifleetError(f"{name!r} is not a path in an image", "write a path without . or .. or empty parts")
            for depth in range(1, len(parts)):
                directory = "/".join(parts[:depth])
                if directory not in made:
                    made.add(directory)
                    entry = tarfile.TarInfo(directory)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            content = files[name]
            if isinstance(content, Link):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content.target, 0o777
                tar.addfile(entry)
            else:
                _add(tar, name, content[0], 0o755 if content[1] else 0o644)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, body: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(body), mode
    tar.addfile(entry, io.BytesIO(body))


def _described(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{_VENDOR}.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
