# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary container image of a few files as one OCI archive (a tar file), the same bytes for the same input.

For images that containerd is handed directly (`ctr images import`), with no registry: the pause image, runu's installer. Unikernel
images are module_utils/oci_layout.py's. Times are 0, owners root, entries sorted, nothing compressed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import FileOrLink, add_file, layer_tar
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import digest_of, json_bytes

_VENDOR = "application/vnd.oci.image"


@dataclass(frozen=True)
class ContainerImage:
    """What goes into an image. files: path ("bin/sh") -> (bytes, executable), or a link."""

    name: str
    architecture: str
    files: Mapping[str, FileOrLink]
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def archive(image: ContainerImage) -> bytes:
    """The OCI archive; its index names the image for containerd (io.containerd.image.name) and for skopeo (ref.name).

    Raises UnifleetError for a path that leads out of the image.
    """
    layer = layer_tar(image.files)
    config: dict[str, Any] = {}
    for key, value in (("Entrypoint", image.entrypoint), ("Cmd", image.args), ("Env", image.env)):
        if value:
            config[key] = list(value)
    if image.labels:
        config["Labels"] = dict(image.labels)
    described = json_bytes(
        {"architecture": image.architecture, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    )
    manifest = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": f"{_VENDOR}.manifest.v1+json",
            "config": _described(described, "config.v1+json"),
            "layers": [_described(layer, "layer.v1.tar")],
        }
    )
    annotations = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rpartition(":")[2]}
    entry = {**_described(manifest, "manifest.v1+json"), "platform": {"architecture": image.architecture, "os": "linux"}}
    index = json_bytes({"schemaVersion": 2, "manifests": [{**entry, "annotations": annotations}]})
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    members.update({f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (layer, described, manifest)})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            add_file(tar, name, members[name], 0o644)
    return out.getvalue()


def _described(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{_VENDOR}.{kind}", "digest": digest_of(blob), "size": len(blob)}
