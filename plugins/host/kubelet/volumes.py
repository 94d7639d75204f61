# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service account token that Kubernetes mounts into nearly every pod, as real files for processes.

Up to Kubernetes 1.20 it is a Secret; later a token that is requested for this very pod and renewed at 80 % of its life, with the
cluster's CA and the namespace beside it. The Node authorizer lets a node do just this much for its own pods. Only root can enter the
directory above; the process sees the files through a bind mount.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_fields import TOKEN_PATH
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Container, Pod, TokenVolume, parse_time
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Mount
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TOKEN_SECRET_TYPE = "kubernetes.io/service-account-token"  # noqa: S105
RENEW_AFTER = 0.8


class VolumeError(UnifleetError):
    """A volume cannot be filled; told as a FailedMount event."""


class VolumeApi(Protocol):
    """What this file needs of the API server."""

    async def get(self, path: str) -> dict[str, Any]:
        """GET."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST."""


@dataclass
class TokenVolumes:
    """The token files of this node's pods, under root/POD_UID/VOLUME. renew_at: pod UID -> when ensure() is due again."""

    api: VolumeApi
    root: Path
    clock: Callable[[], float] = time.time
    renew_at: dict[str, float] = field(default_factory=dict)

    async def ensure(self, pod: Pod) -> None:
        """Write or renew the files of every token volume of the pod. Raises VolumeError."""
        for volume in pod.token_volumes:
            files = await (self._from_secret(pod, volume) if volume.secret else self._bound(pod, volume))
            try:
                _write(self._directory(pod.uid, volume.name), files, self.root)
            except OSError as error:
                raise VolumeError(f"volume {volume.name!r}: {error}", "the disk or tmpfs of the agent's run directory") from error

    def mounts(self, pod: Pod, container: Container) -> tuple[Mount, ...]:
        """What prepare() needs for a container; ensure() has run."""
        return tuple(Mount(self._directory(pod.uid, name), TOKEN_PATH) for name in container.token_volumes)

    def remove(self, uid: str) -> None:
        """The pod is gone."""
        self.renew_at.pop(uid, None)
        shutil.rmtree(self.root / uid, ignore_errors=True)

    def sweep(self, keep: set[str]) -> None:
        """Remove the files of every pod but these (by UID)."""
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name not in keep:
                self.remove(path.name)

    def _directory(self, uid: str, name: str) -> Path:
        return self.root / uid / name

    async def _from_secret(self, pod: Pod, volume: TokenVolume) -> Mapping[str, bytes]:
        secret = await self._get(pod, volume, "secrets", volume.secret)
        if secret.get("type") != TOKEN_SECRET_TYPE:
            raise VolumeError(
                f"volume {volume.name!r}: secret {volume.secret!r} is of type {secret.get('type')!r}",
                "secret volumes are not supported yet, service account tokens excepted",
            )
        return {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}

    async def _bound(self, pod: Pod, volume: TokenVolume) -> Mapping[str, bytes]:
        request: dict[str, Any] = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [volume.audience] if volume.audience else [],
                "expirationSeconds": volume.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
            },
        }
        asked_at = self.clock()
        try:
            answer = await self.api.create(f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.service_account}/token", request)
        except UnifleetError as error:
            raise VolumeError(f"volume {volume.name!r}: no token for service account {pod.service_account!r}: {error}") from error
        expires: Optional[str] = answer["status"].get("expirationTimestamp")
        life = parse_time(expires) - asked_at if expires else float(volume.expiration_seconds)
        self.renew_at[pod.uid] = asked_at + max(10.0, life * RENEW_AFTER)
        files = {"token": answer["status"]["token"].encode(), "namespace": pod.namespace.encode()}
        if volume.root_ca_configmap:
            data = (await self._get(pod, volume, "configmaps", volume.root_ca_configmap)).get("data") or {}
            files["ca.crt"] = data.get("ca.crt", "").encode()
        return files

    async def _get(self, pod: Pod, volume: TokenVolume, kind: str, name: str) -> dict[str, Any]:
        try:
            return await self.api.get(f"/api/v1/namespaces/{pod.namespace}/{kind}/{name}")
        except UnifleetError as error:
            raise VolumeError(f"volume {volume.name!r}: {error}") from error


def _write(directory: Path, files: Mapping[str, bytes], root: Path) -> None:
    """Each file is replaced in one step, so that a reader sees the old token or the new one."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    directory.parent.chmod(0o700)
    for name, content in files.items():
        if "/" in name or name in {".", ".."}:
            raise VolumeError(f"{name!r} is no file name")
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(directory / name)
        except OSError:
            Path(temporary).unlink()
            raise
