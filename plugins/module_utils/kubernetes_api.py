# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of the Kubernetes API on raw JSON, for modules: standard library only, one kept connection, a client certificate.

Modules run on control plane hosts that have no Kubernetes library, and do a handful of requests. The long-lived programs on hosts
have their own asynchronous client (plugins/host/kube).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Optional
from urllib.parse import urlencode, urlsplit

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

MERGE_PATCH = "application/merge-patch+json"


class ApiRefusedError(UnifleetError):
    """The API server answered with a status of 400 or more; reason is Kubernetes' own word, such as NotFound or AlreadyExists."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ClusterApi:
    """One connection to one API server; a context manager."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, token: str = "", timeout: float = 30) -> None:
        self._where = f"{host}:{port}"
        self._token = token
        self._connection = http.client.HTTPSConnection(host, port, context=context, timeout=timeout)

    @classmethod
    def from_kubeconfig(cls, path: str, timeout: float = 30) -> ClusterApi:
        """Open with the current context of a kubeconfig file: JSON, or YAML where PyYAML is installed."""
        try:
            document = load_document(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UnifleetError(f"{path}: {error.strerror}", "the control plane writes its admin kubeconfig; was it set up?") from error
        except ValueError as error:
            raise UnifleetError(f"{path}: not a kubeconfig: {error}") from error
        try:
            context = _named(document, "contexts", document["current-context"])["context"]
            cluster = _named(document, "clusters", context["cluster"])["cluster"]
            user = _named(document, "users", context["user"])["user"]
            server = urlsplit(cluster["server"])
            authority = _inline(cluster, "certificate-authority", path)
            certificate, key = _inline(user, "client-certificate", path), _inline(user, "client-key", path)
        except (KeyError, TypeError) as error:
            raise UnifleetError(f"{path}: not a usable kubeconfig: {error} is missing") from error
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if certificate and key:
            _load_client_certificate(tls, certificate, key)
        return cls(server.hostname or "", server.port or 443, tls, user.get("token", ""), timeout)

    def __enter__(self) -> ClusterApi:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self._connection.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self.request("GET", path, query=query)

    def find(self, path: str) -> Optional[dict[str, Any]]:
        """Like get, but None for an object that does not exist."""
        try:
            return self.get(path)
        except ApiRefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("POST", path, body)

    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any, kind: str = MERGE_PATCH) -> dict[str, Any]:
        return self.request("PATCH", path, body, content_type=kind)

    def delete(self, path: str) -> None:
        try:
            self.request("DELETE", path)
        except ApiRefusedError as refused:
            if refused.status != 404:
                raise

    def wait_ready(self, seconds: float) -> None:
        """Until /readyz says ok (it needs credentials here, as everything does); UnifleetError with the last answer after that time."""
        deadline, last = time.monotonic() + seconds, "no answer"
        while True:
            try:
                self._send("GET", "/readyz", None, {})
            except ssl.SSLError as error:
                raise UnifleetError(f"API server at {self._where}: {error}", "does the kubeconfig belong to this cluster?") from error
            except ApiRefusedError as refused:
                last = refused.message
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
                self._connection.close()
            else:
                return
            if time.monotonic() >= deadline:
                hint = "journalctl -u kube-apiserver -u etcd on the control plane host says why"
                raise UnifleetError(f"API server at {self._where} not ready after {seconds:.0f} s: {last}", hint)
            time.sleep(0.25)

    def request(
        self, method: str, path: str, body: Any = None, query: Optional[Mapping[str, str]] = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One request; ApiRefusedError for a refusal, UnifleetError when the server cannot be reached."""
        target = path + ("?" + urlencode(query) if query else "")
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        try:
            answer: dict[str, Any] = json.loads(self._send(method, target, None if body is None else json.dumps(body), headers))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnifleetError(f"API server at {self._where}: {error}", "is it running, and reachable from here?") from error
        except ValueError as error:
            raise UnifleetError(f"API server at {self._where}: {method} {path} was not answered with JSON") from error
        return answer

    def _send(self, method: str, target: str, body: Optional[str], headers: dict[str, str]) -> bytes:
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        self._connection.request(method, target, body, headers)
        response = self._connection.getresponse()
        content: bytes = response.read()
        if response.status >= 400:
            raise _refusal(method, target, response.status, content)
        return content


def load_document(text: str) -> dict[str, Any]:
    """A JSON document, or a YAML one where PyYAML is there; ValueError otherwise."""
    try:
        document = json.loads(text)
    except ValueError:
        try:
            import yaml
        except ImportError:
            raise ValueError("YAML, and PyYAML is not installed here") from None
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError("no mapping at the top")  # noqa: TRY004 - the contents are wrong, not the argument's type
    return document


def _refusal(method: str, target: str, status: int, content: bytes) -> ApiRefusedError:
    try:
        answer = json.loads(content)
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = content.decode(errors="replace").strip()[:300], ""
    return ApiRefusedError(status, reason, f"{method} {target}: {status} {message}")


def _named(document: Mapping[str, Any], section: str, name: str) -> dict[str, Any]:
    for item in document[section]:
        if item["name"] == name:
            return dict(item)
    raise KeyError(f"{section}: {name}")


def _inline(section: Mapping[str, Any], key: str, path: str) -> bytes:
    """Content of KEY-data, or of the file that KEY names (relative to the kubeconfig, as kubectl reads it)."""
    if section.get(f"{key}-data"):
        return base64.b64decode(section[f"{key}-data"])
    if section.get(key):
        return (Path(path).parent / str(section[key])).read_bytes()
    return b""


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """ssl reads client certificates from files only: from one that is private, and gone right after."""
    handle, name = tempfile.mkstemp(prefix="unifleet-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
