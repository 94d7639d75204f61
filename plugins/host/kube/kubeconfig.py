# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubeconfig files: the little of them that a node needs, read strictly and written atomically.

We write JSON (which is YAML) so that no YAML library is needed on a host; a kubeconfig that somebody else wrote in YAML is read
when Debian's python3-yaml is there. Exec and auth-provider plugins are refused by name: a node has a certificate or a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass(frozen=True)
class Kubeconfig:
    """One cluster and one user. Of each pair (file, data) at most one is set; data is PEM.

    server: https://HOST:PORT[/PREFIX]. token_file is read again for every new connection pool, so a rotated token is taken over.
    """

    server: str
    ca_file: Optional[Path] = None
    ca_data: bytes = b""
    client_certificate: Optional[Path] = None
    client_key: Optional[Path] = None
    client_certificate_data: bytes = b""
    client_key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: Optional[Path] = None

    def bearer_token(self) -> str:
        """The token to send, or "" when the client certificate is all."""
        if self.token_file is not None:
            try:
                return self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise UnifleetError(f"cannot read the token file {self.token_file}: {error.strerror}") from error
        return self.token

    def ssl_context(self) -> ssl.SSLContext:
        """TLS for this cluster and user: the cluster's CA alone is trusted, the files are read now."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None, cadata=self.ca_data.decode() or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.client_certificate is not None:
                context.load_cert_chain(str(self.client_certificate), str(self.client_key or self.client_certificate))
            elif self.client_certificate_data:
                # OpenSSL reads key pairs from files alone.
                with tempfile.NamedTemporaryFile() as pair:
                    pair.write(self.client_certificate_data + b"\n" + self.client_key_data)
                    pair.flush()
                    context.load_cert_chain(pair.name)
        except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
            files = ", ".join(str(path) for path in (self.ca_file, self.client_certificate, self.client_key) if path) or "inline data"
            raise UnifleetError(
                f"cannot use the TLS files of {self.server} ({files}): {error}", "check that they exist and are PEM"
            ) from error
        return context


def load_kubeconfig(path: Path, context: str = "") -> Kubeconfig:
    """Read a kubeconfig; context "" means its current-context. Relative paths in it are taken from its directory.

    Raises UnifleetError that names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnifleetError(f"cannot read the kubeconfig {path}: {error}") from error
    return parse_kubeconfig(_decode(text, path), path, context)


def parse_kubeconfig(document: Any, path: Path, context: str = "") -> Kubeconfig:
    """The Kubeconfig in a decoded document; path is for messages and relative file names."""
    root = _mapping(document, path, "the document")
    wanted = context or str(root.get("current-context") or "")
    if not wanted:
        raise UnifleetError(f"{path}: current-context is not set", "set it, or name a context")
    chosen = _named(root, "contexts", "context", wanted, path)
    cluster = _named(root, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _named(root, "users", "user", str(chosen.get("user", "")), path)
    for key in ("exec", "auth-provider", "username", "password"):
        if user.get(key):
            raise UnifleetError(
                f"{path}: user {chosen.get('user')!r} uses {key!r}, which is not supported", "use a client certificate or a token"
            )
    if cluster.get("insecure-skip-tls-verify"):
        raise UnifleetError(f"{path}: insecure-skip-tls-verify is not supported", "name the cluster's CA in certificate-authority")
    if cluster.get("tls-server-name"):
        raise UnifleetError(f"{path}: tls-server-name is not supported", "use a server address that the API server's certificate names")
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith("https://"):
        raise UnifleetError(f"{path}: server {server!r} is not an https:// address")
    return Kubeconfig(
        server=server,
        ca_file=_file(cluster, "certificate-authority", path),
        ca_data=_data(cluster, "certificate-authority-data", path),
        client_certificate=_file(user, "client-certificate", path),
        client_key=_file(user, "client-key", path),
        client_certificate_data=_data(user, "client-certificate-data", path),
        client_key_data=_data(user, "client-key-data", path),
        token=str(user.get("token") or ""),
        token_file=_file(user, "tokenFile", path),
    )


def render_kubeconfig(config: Kubeconfig) -> str:
    """The JSON text of a kubeconfig file that says the same; stable for equal input."""
    cluster: dict[str, Any] = {"server": config.server}
    user: dict[str, Any] = {}
    _put(cluster, "certificate-authority", config.ca_file, config.ca_data)
    _put(user, "client-certificate", config.client_certificate, config.client_certificate_data)
    _put(user, "client-key", config.client_key, config.client_key_data)
    if config.token_file:
        user["tokenFile"] = str(config.token_file)
    elif config.token:
        user["token"] = config.token
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": cluster}],
        "users": [{"name": "default", "user": user}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "current-context": "default",
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner reads; a crash leaves the old file or the new one, never a half."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def _decode(text: str, path: Path) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UnifleetError(f"{path} is not valid JSON: {error}") from error
    try:
        import yaml
    except ImportError as error:
        raise UnifleetError(f"{path} is YAML and this Python has no YAML library", "write it as JSON, or install python3-yaml") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UnifleetError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def _mapping(value: Any, path: Path, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnifleetError(f"{path}: {what} is not a mapping")
    return value


def _named(root: Mapping[str, Any], listing: str, kind: str, name: str, path: Path) -> Mapping[str, Any]:
    entries = root.get(listing) or []
    if isinstance(entries, Sequence):
        for entry in entries:
            if isinstance(entry, Mapping) and entry.get("name") == name:
                return _mapping(entry.get(kind) or {}, path, f"{kind} {name!r}")
    raise UnifleetError(f"{path}: there is no {kind} named {name!r} in {listing}")


def _file(section: Mapping[str, Any], key: str, path: Path) -> Optional[Path]:
    value = section.get(key)
    return path.parent / str(value) if value else None


def _data(section: Mapping[str, Any], key: str, path: Path) -> bytes:
    try:
        return base64.b64decode(str(section.get(key) or ""), validate=True)
    except binascii.Error as error:
        raise UnifleetError(f"{path}: {key} is not base64: {error}") from error


def _put(section: dict[str, Any], key: str, file: Optional[Path], data: bytes) -> None:
    if file is not None:
        section[key] = str(file)
    elif data:
        section[f"{key}-data"] = base64.b64encode(data).decode()
