# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's HTTPS side, where the API server comes for logs: kubelet's paths, on kubelet's port.

Everything is asked for by somebody (server_auth.py), /healthz too. What this agent cannot do yet answers 501 with a sentence, never with a
silent success. The certificate is loaded again when it changes; connections that are open stay on the old one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Optional, Union

from aiohttp import web

from ansible_collections.unifleet.hybrid.plugins.host.kubelet.logs import LogOptionError, LogOptions, LogReader, parse_options
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_controller import PodController
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_worker import PodWorker
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.server_auth import Reviewer, request_for
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Phase
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

LOG = logging.getLogger("unifleet.server")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LATER = {
    "exec": "running a command in a container",
    "run": "running a command in a container",
    "attach": "attaching to a container",
    "portForward": "port forwarding",
    "stats": "resource statistics",
    "metrics": "metrics",
    "logs": "reading the node's own log files",
    "configz": "showing the configuration",
    "checkpoint": "checkpointing",
    "debug": "debugging",
}


class NoLogError(UnifleetError):
    """There is no such log, or not yet; status: 400 or 404."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def server_context(certificate: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer; a client certificate is welcome, and verified against the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class KubeletServer:
    """certificate(): the PEM file (certificate and key) to serve with now; reload() reads it again. port 0 takes a free one.

    port holds the real one after start().
    """

    def __init__(
        self,
        pods: PodController,
        reviewer: Reviewer,
        *,
        certificate: Callable[[], Path],
        client_ca: Path,
        address: str = "",
        port: int = 10250,
        healthy: Optional[Callable[[], Awaitable[None]]] = None,
    ) -> None:
        self.pods = pods
        self.reviewer = reviewer
        self.certificate = certificate
        self.client_ca = client_ca
        self.address = address
        self.port = port
        self.healthy = healthy
        self.context: Optional[ssl.SSLContext] = None
        self._runner: Optional[web.AppRunner] = None
        self._readers: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen. Raises UnifleetError when the address or the certificate cannot be used."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/healthz/{check}", self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/pods/", self._pods)
        app.router.add_get("/runningpods/", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for name in LATER:
            app.router.add_route("*", f"/{name}", self._later)
            app.router.add_route("*", f"/{name}/{{rest:.*}}", self._later)
        try:
            self.context = server_context(self.certificate(), self.client_ca)
            self._runner = web.AppRunner(app, access_log=None)
            await self._runner.setup()
            site = web.TCPSite(self._runner, self.address or None, self.port, ssl_context=self.context)
            await site.start()
        except (OSError, ssl.SSLError) as error:
            where = f"{self.address or '*'}:{self.port}"
            raise UnifleetError(f"cannot serve HTTPS on {where}: {error}", "is another kubelet running on this host?") from error
        self.port = int(self._runner.addresses[0][1])
        LOG.info("serving on %s port %d", self.address or "every address", self.port)

    async def run(self) -> None:
        """start() unless that was done, then serve until cancelled."""
        if self._runner is None:
            await self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Close every connection; who follows a log is cut off, not waited for."""
        for task in self._readers:
            task.cancel()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def reload(self) -> None:
        """The certificate has changed: new connections get the new one. A bad file is told and the old one stays."""
        if self.context is None:
            return
        try:
            server_context(self.certificate(), self.client_ca)
            self.context.load_cert_chain(self.certificate())
        except (OSError, ssl.SSLError) as error:
            LOG.warning("the serving certificate %s cannot be used: %s", self.certificate(), error)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets further without a name and a permission."""
        ssl_object = request.transport.get_extra_info("ssl_object") if request.transport else None
        certificate = ssl_object.getpeercert() if ssl_object else None
        wanted = request_for(request.method, request.path)
        try:
            user = await self.reviewer.authenticate(certificate, request.headers.get("Authorization", ""))
            if user is None:
                return _text(401, "Unauthorized")
            if not await self.reviewer.authorize(user, wanted):
                what = f"verb={wanted.verb}, resource=nodes, subresource={wanted.subresources[0]}"
                return _text(403, f"Forbidden (user={user.name}, {what})")
        except UnifleetError as error:
            LOG.warning("%s %s: %s", request.method, request.path, error)
            return _text(500, "the API server could not be asked who you are or what you may do")
        try:
            return await handler(request)
        except NoLogError as error:
            return _text(error.status, error.message)
        except LogOptionError as error:
            return _text(400, error.message)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        if request.match_info.get("check") not in {None, "ping", "log", "syncloop"}:
            return _text(404, "there is no such check")
        if self.healthy:
            try:
                await self.healthy()
            except UnifleetError as error:
                return _text(500, f"unhealthy: {error}")
        return _text(200, "ok")

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods.pods()})

    async def _later(self, request: web.Request) -> web.StreamResponse:
        name = request.path.lstrip("/").partition("/")[0]
        return _text(501, f"{LATER[name]} is not supported by this virtual kubelet yet")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        options = parse_options(request.query, time.time())
        namespace, pod, container = (request.match_info[name] for name in ("namespace", "pod", "container"))
        worker = self.pods.find(namespace, pod)
        if worker is None:
            raise NoLogError(404, f'pod "{pod}" not found in namespace "{namespace}" on this node')
        attempt = attempt_for(worker, container, options)
        path = worker.shared.runtime.logs.log(worker.pod, container, attempt)

        def over() -> bool:
            transport = request.transport
            return transport is None or transport.is_closing() or has_ended(worker, container, attempt)

        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        reader = asyncio.current_task()
        if reader:
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        try:
            async for piece in LogReader(path, options, over).stream():
                await response.write(piece)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            LOG.debug("%s: the reader of %s left", worker.pod.title, container)
            raise
        return response


def attempt_for(worker: PodWorker, container: str, options: LogOptions) -> int:
    """Which attempt's log is meant. Raises NoLogError with kubelet's sentences (validateContainerLogStatus)."""
    pod = worker.pod
    if container not in {known.name for known in pod.every_container}:
        raise NoLogError(400, f'container "{container}" in pod "{pod.name}" is not known')
    run = worker.runs.get(container)
    begun = run is not None and run.phase is not Phase.CREATED
    if run is None or (not begun and run.last is None):
        state: Union[str, Any] = worker.report.waiting_reason(container)
        raise NoLogError(400, f'container "{container}" in pod "{pod.name}" is waiting to start: {state}')
    newest = run.number if begun else run.number - 1
    wanted = newest - 1 if options.previous and begun else newest
    if wanted < 0 or (options.previous and run.last is None):
        raise NoLogError(400, f'previous terminated container "{container}" in pod "{pod.name}" not found')
    return wanted


def has_ended(worker: PodWorker, container: str, attempt: int) -> bool:
    """Whether this attempt can write nothing more (its log was completed before its end was told)."""
    run = worker.runs.get(container)
    return run is None or run.number != attempt or run.phase is Phase.STOPPED


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n" if status != 200 else text)
