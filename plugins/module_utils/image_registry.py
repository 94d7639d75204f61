# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module unikernel_image and the command unikernel-image do with registries: look, push, pull, copy, list, delete.

skopeo does the talking; it honours /etc/containers. Who runs it is passed in, as a module and a command line start programs in
different ways. Logins go through a file that only we can read, never through arguments.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import oci_layout
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference, parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile

Run = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, bytes, str]"]
"""skopeo's arguments and variables to set -> exit code, standard output, standard error."""

_ABSENT = ("manifest unknown", "name unknown", "name_unknown", "not found", "404")
_HINTS = (
    ("HTTP response to HTTPS client", "do not validate certificates where a registry speaks plain HTTP"),
    ("certificate", "put the registry's CA into /etc/containers/certs.d/REGISTRY/ca.crt"),
    ("unauthorized", "log in"),
    ("authentication required", "log in"),
    ("denied", "log in as somebody who may do this"),
    ("connection refused", "see that the registry runs and that the reference names it"),
    ("no such host", "see that the reference names a registry that can be resolved here"),
)


def parse_source(text: str) -> Source:
    """REFERENCE of a registry, or oci:DIRECTORY[:TAG]. Raises UnifleetError."""
    if not text.startswith("oci:"):
        return Source(parse_reference(text))
    directory, colon, tag = text[len("oci:") :].rpartition(":")
    if not colon or "/" in tag:
        directory, tag = text[len("oci:") :], ""
    if not directory:
        raise UnifleetError(f"{text!r} names no directory", "write oci:DIRECTORY or oci:DIRECTORY:TAG")
    return Source(directory=Path(directory).expanduser(), tag=tag)


@dataclass(frozen=True)
class Login:
    """One registry's user."""

    username: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Source:
    """Where an image comes from: a reference of a registry, or a tag ("" is the only one) of an OCI layout's directory."""

    reference: Optional[ImageReference] = None
    directory: Optional[Path] = None
    tag: str = ""

    def __str__(self) -> str:
        return str(self.reference) if self.reference else f"oci:{self.directory}" + (f":{self.tag}" if self.tag else "")


class ImageRegistry:
    """skopeo for one piece of work. work: a private directory. login: for all registries that are named."""

    def __init__(self, run: Run, work: Path, *, validate_certs: bool = True, login: Optional[Login] = None) -> None:
        self._run_skopeo = run
        self._work = work
        self._verify = "true" if validate_certs else "false"
        self._login = login

    def document(self, reference: ImageReference) -> Optional[bytes]:
        """The index or manifest that is there under this reference; None when there is none. Raises UnifleetError."""
        code, out, err = self._run(reference, "inspect", "--raw", f"--tls-verify={self._verify}", _url(reference))
        if code == 0:
            return out
        if _says_absent(err):
            return None
        raise _failed(reference, "asked for", err)

    def manifest(self, reference: ImageReference, digest: str) -> bytes:
        """One manifest of an index, by digest. Raises UnifleetError."""
        there = self.document(ImageReference(reference.domain, reference.path, digest=digest))
        if there is None or oci_layout.digest_of(there) != digest:
            raise UnifleetError(f"{reference.at(digest)} is named by {reference} and is not in the registry", "push the image anew")
        return there

    def config(self, reference: ImageReference, digest: str) -> bytes:
        """The config of one manifest. Raises UnifleetError."""
        url = f"docker://{reference.at(digest)}"
        code, out, err = self._run(reference, "inspect", "--raw", "--config", f"--tls-verify={self._verify}", url)
        if code:
            raise _failed(reference, "inspected", err)
        return out

    def tags(self, reference: ImageReference) -> list[str]:
        """The tags of the reference's repository; none when it is not there. Raises UnifleetError."""
        code, out, err = self._run(reference, "list-tags", f"--tls-verify={self._verify}", f"docker://{reference.name}")
        if code:
            if _says_absent(err):
                return []
            raise _failed(reference, "listed", err)
        try:
            tags = json.loads(out)["Tags"] or []
            return sorted(str(tag) for tag in tags)
        except (ValueError, KeyError, TypeError) as error:
            raise UnifleetError(f"the tags of {reference.name} cannot be read: {error}", "see what answers there") from error

    def copy(self, source: Source, target: Source, *, quiet: bool = True) -> None:
        """Copy an image with all its platforms, byte for byte. A target directory must be new or empty. Raises UnifleetError."""
        named = target.reference or source.reference
        arguments = ["--policy", str(self._policy()), "copy", *(["--quiet"] if quiet else []), "--all", "--preserve-digests"]
        arguments += [f"--{side}-tls-verify={self._verify}" for side, end in (("src", source), ("dest", target)) if end.reference]
        code, _out, err = self._run(named, *arguments, _end(source), _end(target))
        if code:
            raise _failed(source, f"copied to {target}", err)

    def look(self, source: Source) -> Optional[bytes]:
        """The index or manifest of a source; None when there is none. Raises UnifleetError."""
        if source.reference is not None:
            return self.document(source.reference)
        if source.directory is None or not source.directory.exists():
            return None
        layout = oci_layout.LayoutDirectory(source.directory)
        return layout.blob(layout.digest(source.tag))

    def fetch(self, source: Source, directory: Path, tag: str, *, quiet: bool = True) -> None:
        """Make directory a layout of exactly the source's image; it is replaced when all has arrived. Raises UnifleetError."""
        new, old = (directory.with_name(f".{directory.name}.{suffix}") for suffix in ("new", "old"))
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            self.copy(source, Source(directory=new, tag=tag), quiet=quiet)
            layout = oci_layout.LayoutDirectory(new)
            layout.verify(layout.digest(tag))
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
        except OSError as error:
            raise UnifleetError(f"{source} was not written to {directory}: {error.strerror}", "see that the disk has room") from error
        finally:
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)

    def push(self, layout: oci_layout.Layout, reference: ImageReference, *, quiet: bool = True) -> None:
        """Copy a packed image into the registry and see that it arrived as it is. Raises UnifleetError."""
        directory = self._work / "layout"
        oci_layout.write(layout, directory, "image")
        self.copy(Source(directory=directory, tag="image"), Source(reference), quiet=quiet)
        if self.document(reference) != layout.blobs[layout.digest]:
            raise UnifleetError(f"{reference} is not in the registry as it was pushed", "see whether something else pushes there")

    def delete(self, reference: ImageReference) -> None:
        """Remove what the reference names, and nothing else: other tags of the same image stay. Raises UnifleetError.

        Registries delete manifests, and with one all its tags. So a tag that is not alone is moved to something else first.
        """
        there = self.document(reference)
        others = [tag for tag in self.tags(reference) if tag != reference.tag] if reference.tag else []
        if any(self.document(ImageReference(reference.domain, reference.path, tag)) == there for tag in others):
            self.push(_placeholder(), reference)
        code, _out, err = self._run(reference, "delete", f"--tls-verify={self._verify}", _url(reference))
        if code:
            forbidden = "405" in err or "unsupported" in err.lower()
            raise _failed(reference, "removed", err, "allow deletion in the registry's configuration" if forbidden else "")

    def _policy(self) -> Path:
        policy = self._work / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        return policy

    def _run(self, reference: Optional[ImageReference], *arguments: str) -> tuple[int, bytes, str]:
        if self._login is None or reference is None:
            return self._run_skopeo(arguments, {})
        auth = self._work / "auth.json"
        token = base64.b64encode(f"{self._login.username}:{self._login.password}".encode()).decode()
        with os.fdopen(os.open(auth, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"auths": {reference.domain: {"auth": token}}}, file)
        try:
            return self._run_skopeo(arguments, {"REGISTRY_AUTH_FILE": str(auth)})
        finally:
            auth.unlink()


def _placeholder() -> oci_layout.Layout:
    """An image that nobody else has."""
    profile = Profile("plain", {"process/amd64": "/nothing"})
    return oci_layout.pack(oci_layout.ImageContent(profile, {"nothing": (os.urandom(16), False)}))


def _url(reference: ImageReference) -> str:
    """skopeo before 1.13 refuses a tag beside a digest; the digest alone says which image."""
    return f"docker://{reference.at(reference.digest)}" if reference.digest else f"docker://{reference}"


def _end(end: Source) -> str:
    return _url(end.reference) if end.reference else f"oci:{end.directory}:{end.tag}"


def _says_absent(err: str) -> bool:
    return any(sign in err.lower() for sign in _ABSENT)


def _failed(what: object, done: str, err: str, hint: str = "") -> UnifleetError:
    lines = err.strip().splitlines() or ["skopeo said nothing"]
    text = lines[-1].partition(' msg="')[2].rstrip('"').replace('\\"', '"') or lines[-1]
    found = next((known for sign, known in _HINTS if sign in text), "")
    return UnifleetError(f"{what} was not {done}: {text[:500]}", hint or found)
