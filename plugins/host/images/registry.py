# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registries, through skopeo: the manifest behind a reference, and all blobs of one manifest into a directory.

skopeo speaks to every registry there is, honours /etc/containers (registries.conf, certs.d with private CAs, policy.json) and verifies
digests. Logins go through a file that only we can read, never through arguments.

A registry's mirrors are asked first, in order, then the registry itself; any failure leads on to the next. A mirror gets only logins
that name it: what is for the registry is not shown to others. A mirror that cannot be reached is left out for a minute, so that one
which swallows packets costs its time-out once. A registry cannot fill the disk: skopeo ends when it writes more than the manifest says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import ImageError, RegistryCredentials, RegistrySettings
from ansible_collections.unifleet.hybrid.plugins.host.images.logins import fitting
from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import digest_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference

PULL_FAILED = "ErrImagePull"
MIRROR_REST = 60.0
_SPARE = 1 << 20
"""Bytes that a pull may write beside its blobs: the manifest, skopeo's own small files."""
_LOOK = 0.25
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
    ("Digest did not match", "push the image anew; the registry's disk, or something before it, corrupts what it sends"),
    ("manifest unknown", "see that this name and tag were pushed"),
    ("name unknown", "see that this name and tag were pushed"),
    ("unauthorized", "give the pod an imagePullSecrets login for this registry"),
    ("authentication required", "give the pod an imagePullSecrets login for this registry"),
    ("denied", "give the pod an imagePullSecrets login for this registry"),
    ("HTTP response to HTTPS client", "serve the registry over TLS, or name it in insecure_registries"),
    ("certificate", "put the registry's CA into the agent's images.registries, or into /etc/containers/certs.d/REGISTRY/ca.crt"),
    ("connection refused", "see that the registry runs and that the reference names it"),
    ("no such host", "see that the reference names a registry that this host can resolve"),
)
_UNREACHABLE = ("connection refused", "no such host", "no route to host", "network is unreachable", "i/o timeout", "was not pulled within")


class Registry:
    """skopeo, with this host's settings. Blocking; safe from any thread. insecure_registries: more of them than settings say so."""

    def __init__(
        self,
        insecure_registries: Sequence[str] = (),
        timeout: float = 600.0,
        program: str = "skopeo",
        settings: Optional[Mapping[str, RegistrySettings]] = None,
    ) -> None:
        self._settings = dict(settings or {})
        for domain in insecure_registries:
            self._settings[domain] = replace(self._of(domain), insecure=True)
        self._timeout = timeout
        self._program = program
        self._policy = [] if any(path.exists() for path in _POLICIES) else ["--insecure-policy"]
        self._resting: dict[str, float] = {}

    def manifest(self, reference: ImageReference, credentials: Sequence[RegistryCredentials], work: Path) -> bytes:
        """The bytes of the manifest or index behind the reference. work: a private directory. Raises ImageError."""

        def ask(source: ImageReference, options: list[str]) -> bytes:
            content = self._skopeo(["inspect", "--raw", *options, _docker(source)], source, work)
            if reference.digest and digest_of(content) != reference.digest:
                raise ImageError(
                    PULL_FAILED,
                    f"image {source} cannot be pulled: the registry sent other content, {digest_of(content)}",
                    "do not trust this registry",
                )
            return content

        return self._ask(reference, credentials, work, ask)

    def fetch(self, reference: ImageReference, digest: str, credentials: Sequence[RegistryCredentials], work: Path, size: int) -> Path:
        """Copy the one manifest and its blobs, as they are. size: bytes of all blobs, as the manifest says.

        Returns the directory: manifest.json, and a file HEX for each blob. Raises ImageError.
        """
        target = work / "blobs"

        def ask(source: ImageReference, options: list[str]) -> bytes:
            shutil.rmtree(target, ignore_errors=True)
            options = ["--src-" + option[2:] if option.startswith("--") else option for option in options]
            command = ["copy", "--quiet", *options, f"docker://{source.at(digest)}", f"dir:{target}"]
            return self._skopeo(command, source, work, size + _SPARE)

        self._ask(reference, credentials, work, ask)
        return target

    def _of(self, domain: str) -> RegistrySettings:
        return self._settings.get(domain) or RegistrySettings()

    def _ask(
        self,
        reference: ImageReference,
        credentials: Sequence[RegistryCredentials],
        work: Path,
        ask: Callable[[ImageReference, list[str]], bytes],
    ) -> bytes:
        failures: list[str] = []
        for source, logins in self._sources(reference, credentials):
            try:
                return self._ask_one(source, logins, work, ask)
            except ImageError as error:
                if source == reference:
                    before = "".join(f"; before that mirror {failure}" for failure in failures)
                    raise ImageError(error.reason, f"{error.message}{before}", error.hint) from error
                failures.append(error.message.replace("image ", "", 1))
                if any(sign in error.message for sign in _UNREACHABLE):
                    self._resting[source.domain] = time.monotonic() + MIRROR_REST
        raise ImageError(PULL_FAILED, f"image {reference} was not pulled")

    def _sources(
        self, reference: ImageReference, credentials: Sequence[RegistryCredentials]
    ) -> Iterator[tuple[ImageReference, Sequence[RegistryCredentials]]]:
        """Where to ask, each with the logins that it may see."""
        for mirror in self._of(reference.domain).mirrors:
            domain, _slash, prefix = mirror.partition("/")
            if time.monotonic() >= self._resting.get(domain, 0.0):
                source = replace(reference, domain=domain, path=f"{prefix}/{reference.path}" if prefix else reference.path)
                yield source, fitting(source, [login for login in credentials if login.registry])
        yield reference, fitting(reference, credentials)

    def _ask_one(
        self,
        source: ImageReference,
        logins: Sequence[RegistryCredentials],
        work: Path,
        ask: Callable[[ImageReference, list[str]], bytes],
    ) -> bytes:
        failure: Optional[ImageError] = None
        options = [f"--tls-verify={'false' if self._of(source.domain).insecure else 'true'}", "--authfile", str(work / "auth.json")]
        if self._of(source.domain).ca:
            (work / "certificates").mkdir(exist_ok=True)
            (work / "certificates" / "ca.crt").write_text(self._of(source.domain).ca)
            options += ["--cert-dir", str(work / "certificates")]
        for login in logins or (RegistryCredentials(),):
            _write_login(work / "auth.json", source.domain, login)
            try:
                return ask(source, options)
            except ImageError as error:
                failure = error if failure is None or _refused(failure) else failure
            finally:
                (work / "auth.json").unlink(missing_ok=True)
        raise failure or ImageError(PULL_FAILED, f"image {source} was not pulled")

    def _skopeo(self, arguments: list[str], reference: ImageReference, work: Path, most: int = _SPARE) -> bytes:
        """Run it; most: bytes that it may have in work at any time."""
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
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
                out, err = self._wait(process, reference, work, most)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise
        if process.returncode:
            text = err.decode("utf-8", "replace")
            raise _too_much(reference, most) if "SIGXFSZ" in text or "file too large" in text else _failure(reference, text)
        return out

    def _wait(self, process: subprocess.Popen[bytes], reference: ImageReference, work: Path, most: int) -> tuple[bytes, bytes]:
        until = time.monotonic() + self._timeout
        while True:
            try:
                return process.communicate(timeout=min(_LOOK, max(0.001, until - time.monotonic())))
            except subprocess.TimeoutExpired as error:
                if _size(work) > most + _SPARE:
                    raise _too_much(reference, most) from error
                if time.monotonic() >= until:
                    message = f"image {reference} was not pulled within {self._timeout:g} seconds"
                    raise ImageError(PULL_FAILED, message, "see whether the registry is slow or the network is down") from error


def _size(directory: Path) -> int:
    total = 0
    for folder, _names, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(Path(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _too_much(reference: ImageReference, most: int) -> ImageError:
    message = f"image {reference} cannot be pulled: the registry sends more than the {most - _SPARE} bytes that the image's manifest says"
    return ImageError(PULL_FAILED, message, "do not trust this registry")


def _refused(error: ImageError) -> bool:
    """Whether it was the login: another login's failure then tells more."""
    return any(sign in error.message for sign in ("unauthorized", "denied", "authentication required"))


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
