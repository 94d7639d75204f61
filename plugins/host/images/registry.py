# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries, through skopeo: the manifest behind a reference, and all blobs of one manifest into a directory.

skopeo speaks to every registry there is, honours /etc/containers (registries.conf with its mirrors, certs.d with private CAs,
policy.json) and verifies digests. Logins go through a file that only we can read, never through arguments.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import ImageError, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference

PULL_FAILED = "ErrImagePull"
_KEPT_VARIABLES = (
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_POLICIES = (Path("/etc/containers/policy.json"), Path("/usr/share/containers/policy.json"))
_HINTS = (
    ("manifest unknown", "see that this name and tag were pushed"),
    ("name unknown", "see that this name and tag were pushed"),
    ("unauthorized", "give the pod an imagePullSecrets login for this registry"),
    ("denied", "give the pod an imagePullSecrets login for this registry"),
    ("HTTP response to HTTPS client", "serve the registry over TLS, or name it in insecure_registries"),
    ("certificate", "put the registry's CA into /etc/containers/certs.d/REGISTRY/ca.crt"),
    ("connection refused", "see that the registry runs and that the reference names it"),
    ("no such host", "see that the reference names a registry that this host can resolve"),
)


class Registry:
    """skopeo, with this host's settings. Blocking; safe from any thread."""

    def __init__(self, insecure_registries: Sequence[str] = (), timeout: float = 600.0, program: str = "skopeo") -> None:
        self._insecure = frozenset(insecure_registries)
        self._timeout = timeout
        self._program = program
        self._policy = [] if any(path.exists() for path in _POLICIES) else ["--insecure-policy"]

    def manifest(self, reference: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> bytes:
        """The bytes of the manifest or index behind the reference. work: a private directory. Raises ImageError."""
        command = ["inspect", "--raw", f"--tls-verify={self._verify(reference)}", "--authfile", str(work / "auth.json"), _docker(reference)]
        return self._run(command, reference, credentials, work)

    def fetch(self, reference: ImageReference, digest: str, credentials: Sequence[RegistryCredentials], work: Path) -> Path:
        """Copy the one manifest and its blobs, as they are. Returns the directory: manifest.json, and a file HEX for each blob."""
        target = work / "blobs"
        source = f"docker://{reference.at(digest)}"
        command = ["copy", "--quiet", f"--src-tls-verify={self._verify(reference)}", "--src-authfile", str(work / "auth.json")]
        self._run([*command, source, f"dir:{target}"], reference, credentials, work)
        return target

    def _verify(self, reference: ImageReference) -> str:
        return "false" if reference.domain in self._insecure else "true"

    def _run(self, arguments: list[str], reference: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> bytes:
        failure: ImageError | None = None
        for login in credentials or (RegistryCredentials(),):
            _write_login(work / "auth.json", reference.domain, login)
            try:
                return self._skopeo(arguments, reference, work)
            except ImageError as error:
                failure = error if failure is None or _refused(failure) else failure
            finally:
                (work / "auth.json").unlink(missing_ok=True)
        raise failure or ImageError(PULL_FAILED, f"image {reference} was not pulled")

    def _skopeo(self, arguments: list[str], reference: ImageReference, work: Path) -> bytes:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment.update(HOME=str(work), TMPDIR=str(work), XDG_RUNTIME_DIR=str(work), LC_ALL="C")
        try:
            process = subprocess.Popen(
                [self._program, *self._policy, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            message = f"image {reference} cannot be pulled: {self._program} does not run: {error.strerror}"
            raise ImageError(PULL_FAILED, message, "install the package skopeo") from error
        with process:
            try:
                out, err = process.communicate(timeout=self._timeout)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                message = f"image {reference} was not pulled within {self._timeout:g} seconds"
                raise ImageError(PULL_FAILED, message, "see whether the registry is slow or the network is down") from error
        if process.returncode:
            raise _failure(reference, err.decode("utf-8", "replace"))
        return out


def _refused(error: ImageError) -> bool:
    """Whether it was the login: another login's failure then tells more."""
    return "unauthorized" in error.message or "denied" in error.message


def _docker(reference: ImageReference) -> str:
    """skopeo before 1.13 refuses a tag beside a digest; the digest alone says which image."""
    return f"docker://{reference.at(reference.digest)}" if reference.digest else f"docker://{reference}"


def _write_login(path: Path, domain: str, login: RegistryCredentials) -> None:
    auths = {}
    if login.username or login.password:
        auths[domain] = {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"auths": auths}, file)


def _failure(reference: ImageReference, err: str) -> ImageError:
    found = _FATAL.findall(err)
    text = found[-1] if found else (err.strip().splitlines() or ["skopeo said nothing"])[-1]
    text = text.replace('\\"', '"').replace("\\n", " ")[:500]
    hint = next((hint for sign, hint in _HINTS if sign in text), "")
    return ImageError(PULL_FAILED, f"image {reference} cannot be pulled: {text}", hint)
