# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may ask this agent for what, as kubelet decides it: a client certificate of the cluster's CA or a bearer token says who, the API
server says whether. There is no anonymous access and no way to switch it on.

Attributes follow pkg/kubelet/server/auth.go: nodes/stats, nodes/metrics, nodes/log, nodes/spec by path, nodes/proxy for the rest, with the
finer names of KEP-2862 (nodes/pods, nodes/healthz, nodes/configz) tried first. An API server that does not answer means no.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Optional, Protocol, TypeVar

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
COARSE = {"stats": "stats", "metrics": "metrics", "logs": "log", "spec": "spec"}
FINE = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}
TOKEN_SECONDS, ALLOW_SECONDS, DENY_SECONDS = 120.0, 300.0, 30.0
REMEMBERED = 512

T = TypeVar("T")


class ReviewApi(Protocol):
    """What this file needs of the API server."""

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST."""


@dataclass(frozen=True)
class User:
    """Somebody who was authenticated. extra: sorted pairs of a key and its values."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Request:
    """What somebody wants, in the words of RBAC: nodes/SUBRESOURCE, the first of which that is allowed will do."""

    verb: str
    subresources: tuple[str, ...]


@dataclass
class Cache(Generic[T]):
    """Answers for a while; the oldest go first."""

    clock: Callable[[], float]
    entries: OrderedDict[Any, tuple[float, T]] = field(default_factory=OrderedDict)

    def get(self, key: Any) -> Optional[T]:
        """The answer, if it still counts."""
        entry = self.entries.get(key)
        return entry[1] if entry and entry[0] > self.clock() else None

    def put(self, key: Any, value: T, seconds: float) -> None:
        """Remember an answer."""
        self.entries[key] = (self.clock() + seconds, value)
        self.entries.move_to_end(key)
        while len(self.entries) > REMEMBERED:
            self.entries.popitem(last=False)


def request_for(method: str, path: str) -> Request:
    """The attributes of an HTTP request."""
    first = path.lstrip("/").partition("/")[0]
    coarse = COARSE.get(first, "proxy")
    return Request(VERBS.get(method, method.lower()), (FINE[first], coarse) if first in FINE else (coarse,))


def user_of_certificate(certificate: Optional[Mapping[str, Any]]) -> Optional[User]:
    """The user that a verified client certificate (ssl.SSLSocket.getpeercert()) stands for: CN is the name, each O a group."""
    if not certificate:
        return None
    pairs = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    name = next((value for key, value in pairs if key == "commonName"), "")
    return User(name, tuple(value for key, value in pairs if key == "organizationName")) if name else None


def bearer_token(header: str) -> str:
    """The token of an Authorization header, "" when it holds none."""
    scheme, _separator, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Reviewer:
    """Asks the API server, and remembers for a while what it said: tokens 2 min, yes 5 min, no 30 s."""

    def __init__(self, api: ReviewApi, node_name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.api = api
        self.node_name = node_name
        self.users: Cache[tuple[Optional[User]]] = Cache(clock)
        self.verdicts: Cache[bool] = Cache(clock)

    async def authenticate(self, certificate: Optional[Mapping[str, Any]], authorization: str) -> Optional[User]:
        """Who it is, or None. Raises UnifleetError when the API server cannot be asked."""
        user = user_of_certificate(certificate)
        token = bearer_token(authorization)
        if user or not token:
            return user
        key = hashlib.sha256(token.encode()).digest()
        known = self.users.get(key)
        if known:
            return known[0]
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        answer = await self.api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
        status = answer.get("status") or {}
        found = _user(status.get("user") or {}) if status.get("authenticated") is True else None
        self.users.put(key, (found,), TOKEN_SECONDS if found else DENY_SECONDS)
        return found

    async def authorize(self, user: User, request: Request) -> bool:
        """Whether the user may. Raises UnifleetError when the API server cannot be asked."""
        for subresource in request.subresources:
            if await self._allowed(user, request.verb, subresource):
                return True
        return False

    async def _allowed(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        known = self.verdicts.get(key)
        if known is not None:
            return known
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": list(user.groups),
                "uid": user.uid,
                "extra": {name: list(values) for name, values in user.extra},
                "resourceAttributes": {
                    "verb": verb,
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self.node_name,
                },
            },
        }
        answer = await self.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        status = answer.get("status") or {}
        verdict = status.get("allowed") is True and status.get("denied") is not True
        self.verdicts.put(key, verdict, ALLOW_SECONDS if verdict else DENY_SECONDS)
        return verdict


def _user(said: Mapping[str, Any]) -> Optional[User]:
    extra: Mapping[str, Sequence[str]] = said.get("extra") or {}
    name = str(said.get("username") or "")
    if not name:
        return None
    return User(
        name,
        tuple(said.get("groups") or ()),
        str(said.get("uid") or ""),
        tuple(sorted((key, tuple(values)) for key, values in extra.items())),
    )
