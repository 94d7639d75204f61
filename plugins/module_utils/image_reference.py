# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references: `humidity-daemon`, `lab:5000/sensors/humidity:1.2`, `name@sha256:...`, read as containerd and docker read them.

Grammar: the reference grammar of the distribution project (github.com/distribution/reference, reference.go), which containerd's CRI
plugin uses too. A name without a registry gets the default registry of the host's configuration; only docker.io puts
`library/` before a name of one component. Without tag and digest the tag is `latest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

DOCKER_HUB = "docker.io"
NAME_MOST = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageReference:
    """A whole reference. domain "host:port", path "a/b"; tag may be empty only when digest ("sha256:HEX") is given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.domain}/{self.path}"

    def at(self, digest: str) -> str:
        """The name at this digest, which is what a registry is asked for and what a container's imageID shows."""
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether text is a digest of the one algorithm that registries use, sha256."""
    return _SHA256.fullmatch(text) is not None


def parse_reference(text: str, default_registry: str = DOCKER_HUB) -> ImageReference:
    """Read a reference. Raises UnifleetError that says which part is wrong."""
    if not text:
        raise UnifleetError("the image reference is empty", "write NAME, NAME:TAG or REGISTRY/NAME:TAG")
    rest, digest = _cut_digest(text)
    rest, tag = _cut_tag(rest, text)
    domain, path = _split_domain(rest, default_registry)
    if domain in {DOCKER_HUB, "index.docker.io"}:
        domain = DOCKER_HUB
        path = path if "/" in path else f"library/{path}"
    if _DOMAIN.fullmatch(domain) is None:
        raise UnifleetError(f"image reference {text!r}: {domain!r} is not a registry", "write HOST or HOST:PORT")
    if _PATH.fullmatch(path) is None:
        upper = path.lower() != path and _PATH.fullmatch(path.lower()) is not None
        hint = "a repository name is lower case" if upper else "use a-z, 0-9 and single . _ - or / between them"
        raise UnifleetError(f"image reference {text!r}: {path!r} is not a repository name", hint)
    if len(domain) + 1 + len(path) > NAME_MOST:
        raise UnifleetError(f"image reference {text[:60]!r}...: the name is longer than {NAME_MOST} characters", "shorten it")
    if not tag and not digest:
        tag = "latest"
    return ImageReference(domain, path, tag, digest)


def _cut_digest(text: str) -> tuple[str, str]:
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise UnifleetError(f"image reference {text!r}: {digest!r} is not a digest", "a digest is sha256: and 64 digits 0-9a-f")
    return rest, digest


def _cut_tag(rest: str, text: str) -> tuple[str, str]:
    slash = rest.rfind("/")
    colon = rest.rfind(":")
    if colon <= slash:
        return rest, ""
    tag = rest[colon + 1 :]
    if _TAG.fullmatch(tag) is None:
        raise UnifleetError(
            f"image reference {text!r}: {tag!r} is not a tag", "a tag has up to 128 of A-Z a-z 0-9 _ . - and begins with none of . -"
        )
    return rest[:colon], tag


def _split_domain(rest: str, default_registry: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    if slash and (any(c in first for c in ".:[") or first == "localhost" or first.lower() != first):
        return first, path
    return default_registry, rest


def tag_of(text: str) -> Optional[str]:
    """The tag that a reference names itself, or None; for the rule that :latest is always pulled anew."""
    reference = parse_reference(text)
    return reference.tag or None
