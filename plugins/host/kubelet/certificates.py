# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of this node: how a request is made, followed and renewed, for the client certificate as for the serving one.

What kubelet does (pkg/kubelet/certificate, client-go/util/certificate) with two differences that users asked for: a request that is
pending is taken up again after a restart instead of littering the cluster with new ones (interLink #448), and waiting for an
approval has no end. Certificate and key are one PEM file, replaced atomically, so they always fit each other.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.kube.client import ApiError, KubeApi, Object
from ansible_collections.unifleet.hybrid.plugins.host.kube.kubeconfig import write_private
from ansible_collections.unifleet.hybrid.plugins.host.kube.pacing import Backoff
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

log = logging.getLogger("unifleet.certificates")

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
NODES = "system:nodes"

_WORKER = Path(__file__).with_name("keys.py")


@dataclass(frozen=True)
class Identity:
    """What a certificate is to say: CN system:node:NAME of the group system:nodes, and the names and addresses that it serves."""

    common_name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    organization: str = NODES


@dataclass(frozen=True)
class CertificateInfo:
    """What a certificate says; times in seconds since the epoch.

    since: when we got it. Signers date certificates back (by 5 minutes in Kubernetes), which would make a short one old at birth.
    """

    not_before: float
    not_after: float
    identity: Identity
    since: float = 0.0

    def renew_at(self, chance: float) -> float:
        """When to ask for the next one: at 80 % of the life, 5 % to and fro so that a fleet does not ask at once (chance: 0..1)."""
        start = max(self.not_before, min(self.since, self.not_after))
        return start + (self.not_after - start) * (0.75 + 0.1 * chance)

    def serves(self, wanted: Identity) -> bool:
        """Whether it is for this identity, at least for all of its names and addresses."""
        mine = self.identity
        same = (mine.common_name, mine.organization) == (wanted.common_name, wanted.organization)
        return same and set(wanted.dns) <= set(mine.dns) and set(wanted.ips) <= set(mine.ips)


class LostError(UnifleetError):
    """The certificate ended before a new one came: nothing can be asked for with it any more."""


class DeniedError(UnifleetError):
    """Somebody denied the request, or the signer failed it."""


async def ask_keys(**order: Any) -> Mapping[str, Any]:
    """Have keys.py do one order in a process of its own. Raises UnifleetError."""
    argv = [sys.executable, "-I", str(_WORKER)]

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, input=json.dumps(order).encode(), capture_output=True, timeout=60, check=False)

    try:
        child = await asyncio.to_thread(run)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnifleetError(f"cannot run {_WORKER}: {error}") from error
    if child.returncode != 0:
        last = (child.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        hint = "install python3-cryptography" if "cryptography" in last and "No module" in last else ""
        raise UnifleetError(f"cannot {order['do'].replace('_', '-')} a certificate: {last}", hint)
    answer: Mapping[str, Any] = json.loads(child.stdout)
    return answer


async def inspect(pem: str) -> CertificateInfo:
    """Read the first certificate of a PEM text. Raises UnifleetError."""
    said = await ask_keys(do="inspect", certificate=pem)
    identity = Identity(said["common_name"], tuple(said["dns"]), tuple(said["ips"]), said["organization"])
    return CertificateInfo(said["not_before"], said["not_after"], identity)


async def self_sign(identity: Identity) -> str:
    """Key and certificate that nobody vouches for, as one PEM text."""
    said = await ask_keys(do="self_sign", **_spelled(identity))
    return str(said["certificate"]) + str(said["key"])


def request_body(name: str, signer: str, pem: str) -> Object:
    """A CertificateSigningRequest for a node; the usages are exactly those that Kubernetes 1.20's signers accept."""
    purpose = "server auth" if signer == SERVING_SIGNER else "client auth"
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem.encode()).decode(),
            "signerName": signer,
            "usages": ["digital signature", "key encipherment", purpose],
        },
    }


def request_name(prefix: str, pem: str) -> str:
    """The name of a request follows from what it asks, so that asking twice (a crash in between) is asking once."""
    return f"{prefix}-{hashlib.sha256(pem.encode()).hexdigest()[:32]}"


def read_answer(request: Object) -> Optional[str]:
    """The certificate that a CertificateSigningRequest got, None while it waits. Raises DeniedError."""
    status = request.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed") and condition.get("status", "True") == "True":
            why = condition.get("message") or condition.get("reason") or "no reason given"
            raise DeniedError(f"certificate request {request['metadata']['name']} was {condition['type'].lower()}: {why}")
    certificate = status.get("certificate")
    return base64.b64decode(certificate).decode() if certificate else None


class CertificateFile:
    """One certificate of this node on disk: PATH (certificate and key) and PATH.pending (a request that waits for its answer)."""

    def __init__(self, path: Path, signer: str, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._signer = signer
        self._pending = path.with_name(f"{path.name}.pending")
        self._clock = clock

    async def current(self, wanted: Identity) -> Optional[CertificateInfo]:
        """The certificate on disk when it is valid now and for this identity."""
        try:
            info = await inspect(self.path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, UnifleetError) as error:
            log.warning("%s cannot be used: %s", self.path, error)
            return None
        if info.not_after <= self._clock() or not info.serves(wanted):
            return None
        return replace(info, since=self.path.stat().st_mtime)

    async def obtain(self, api: KubeApi, wanted: Identity, patience: float = 10.0) -> CertificateInfo:
        """Ask for a new certificate and wait for it, for ever; patience: the longest pause between two looks, seconds.

        Raises ApiError for 401 and 403 (the caller knows where its credentials come from) and DeniedError.
        """
        order = await self._order(wanted)
        backoff = Backoff(base=0.3, ceiling=patience)
        name = request_name("csr-unifleet", order["request"])
        announced = False
        while True:
            try:
                answer = read_answer(await self._posted(api, name, order["request"]))
            except DeniedError:
                self._pending.unlink(missing_ok=True)
                raise
            except ApiError as error:
                if not error.transient:
                    raise
                log.warning("%s", error.message)
                answer = None
            if answer:
                info = replace(await inspect(answer), since=self._clock())
                write_private(self.path, (answer.rstrip() + "\n" + order["key"]).encode())
                self._pending.unlink(missing_ok=True)
                log.info("certificate %s is valid until %s", self.path, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.not_after)))
                return info
            if not announced:
                log.info("certificate request %s (%s) waits for approval", name, self._signer)
                announced = True
            await asyncio.sleep(backoff.next_delay())

    async def _order(self, wanted: Identity) -> Mapping[str, str]:
        """Key and request: those that wait already when they ask for the same, else new ones, saved before they are sent."""
        spelled = _spelled(wanted)
        try:
            saved = json.loads(self._pending.read_text(encoding="utf-8"))
            if saved["identity"] == spelled:
                return {"key": saved["key"], "request": saved["request"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        made = await ask_keys(do="request", **spelled)
        order = {"key": str(made["key"]), "request": str(made["request"])}
        write_private(self._pending, json.dumps({"identity": spelled, **order}).encode())
        return order

    async def _posted(self, api: KubeApi, name: str, pem: str) -> Object:
        try:
            return await api.get(f"{REQUESTS}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        try:
            return await api.create(REQUESTS, request_body(name, self._signer, pem))
        except ApiError as error:
            if error.status != 409:
                raise
            return await api.get(f"{REQUESTS}/{name}")


async def keep(
    file: CertificateFile,
    api: KubeApi,
    identity: Callable[[], Identity],
    renewed: Callable[[], None],
    *,
    poll: float = 30.0,
    patience: float = 10.0,
    needs_itself: bool = False,
) -> None:
    """Keep a certificate fresh for ever: a new one at 80 % of its life, when it is gone, or when the identity asks for more.

    renewed() is called after each replacement. Errors are logged and tried again. needs_itself: a new one is asked for with the old
    one, so that its end (the host slept for too long) is the end: LostError.
    """
    backoff = Backoff(base=5.0, ceiling=300.0)
    chance = random.random()  # noqa: S311
    known: Optional[CertificateInfo] = None
    while True:
        wanted = identity()
        try:
            if known is None or not known.serves(wanted):
                known = await file.current(wanted)
            if needs_itself and (known is None or known.not_after <= time.time()):
                raise LostError(f"the certificate {file.path} has ended", "the agent starts again and joins anew")
            if known is None or known.renew_at(chance) <= time.time():
                known = await file.obtain(api, wanted, patience)
                renewed()
                chance = random.random()  # noqa: S311
            delay = max(0.2, min(poll, known.renew_at(chance) - time.time()))
            backoff.reset()
        except LostError:
            raise
        except UnifleetError as error:
            delay = backoff.next_delay()
            log.warning("%s: %s; next try in %.0f s", file.path.name, error, delay)
        await asyncio.sleep(delay)


def _spelled(identity: Identity) -> dict[str, Any]:
    return {
        "common_name": identity.common_name,
        "organization": identity.organization,
        "dns": list(identity.dns),
        "ips": list(identity.ips),
    }
