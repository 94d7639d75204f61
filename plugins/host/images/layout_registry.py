# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI layout on disk in the place of a registry, so that a host's own code looks at an image before it is pushed anywhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.registry import Registry
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import LayoutDirectory


class LayoutRegistry(Registry):
    """One directory as if it were a registry; only name() is its repository."""

    def __init__(self, directory: Path, tag: str = "") -> None:
        super().__init__()
        self._layout = LayoutDirectory(directory)
        self._tag = tag

    def name(self) -> str:
        """The reference under which the image is there: localhost/DIRECTORY@DIGEST."""
        path = re.sub(r"[^a-z0-9]+", "-", self._layout.directory.resolve().name.lower()).strip("-")
        return f"localhost/{path or 'layout'}@{self._layout.digest(self._tag)}"

    def manifest(self, reference: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> bytes:
        """See Registry."""
        del credentials, work
        return self._layout.blob(reference.digest or self._layout.digest(self._tag))

    def fetch(self, reference: ImageReference, digest: str, credentials: Sequence[RegistryCredentials], work: Path, size: int) -> Path:
        """See Registry."""
        del reference, credentials, size
        target = work / "blobs"
        target.mkdir()
        content = self._layout.blob(digest)
        try:
            manifest = json.loads(content)
            digests = [str(blob["digest"]) for blob in [manifest["config"], *manifest["layers"]]]
        except (ValueError, KeyError, TypeError) as error:
            raise UnifleetError(f"{digest} is not an image manifest", "write the layout anew") from error
        for blob in digests:
            self._layout.blob(blob)
            shutil.copyfile(self._layout.directory / "blobs" / "sha256" / blob.partition(":")[2], target / blob.partition(":")[2])
        (target / "manifest.json").write_bytes(content)
        return target
