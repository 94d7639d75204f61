# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls as they go wrong: a real registry (docker-registry on loopback) behind a proxy that corrupts, refuses, counts or speaks TLS; real
skopeo. What a pod's status and events say of it is in test_agent_images.py.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import aiohttp
import pytest
from aiohttp import web

from ansible_collections.unifleet.hybrid.plugins.host.images.cache import disk_usage
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import CollectLimits
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import ImageError, RegistryCredentials, RegistrySettings
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import ImageContent, pack, write
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import Profile
from tests.system.loopback_registry import LoopbackRegistry
from tests.system.test_image_registry import registry

__all__ = ["registry"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@dataclass
class Proxy:
    """Stands before a registry. login: "USER:PASSWORD" that it wants. spoil: what becomes of each blob. seen: (method, path, login)."""

    upstream: str
    login: str = ""
    spoil: Callable[[bytes], bytes] = lambda body: body
    endless: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def blobs(self) -> list[str]:
        return [path for method, path, _login in self.seen if "/blobs/" in path and method == "GET"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        said = base64.b64decode(header.partition(" ")[2]).decode() if header.startswith("Basic ") else ""
        self.seen.append((request.method, request.path, said))
        if self.login and said != self.login:
            return web.Response(
                status=401, headers={"WWW-Authenticate": 'Basic realm="test"'}, text="unauthorized: authentication required"
            )
        accept = {"Accept": ", ".join(request.headers.getall("Accept", ["*/*"]))}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, f"http://{self.upstream}{request.raw_path}", headers=accept) as answer,
        ):
            body = await answer.read()
            kept = {key: value for key, value in answer.headers.items() if key in {"Content-Type", "Docker-Content-Digest"}}
            if "/blobs/" not in request.path or request.method != "GET" or answer.status != 200:
                return web.Response(status=answer.status, body=body, headers=kept)
            if not self.endless:
                return web.Response(status=200, body=self.spoil(body), headers=kept)
            flood = web.StreamResponse(headers=kept)
            await flood.prepare(request)
            with_zeros = b"\0" * (1 << 20)
            for _number in range(512):
                await flood.write(with_zeros)
            return flood


@contextmanager
def proxy(upstream: str, certificate: Optional[Path] = None, **options: Any) -> Iterator[Proxy]:
    made, started, loop = Proxy(upstream, **options), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", made.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        context = None
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        made.address = f"127.0.0.1:{runner.addresses[0][1]}"
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def push(address: str, directory: Path, name: str = "humidity-daemon:latest", marker: bytes = b"1") -> None:
    """A small image, as an ordinary client pushes it."""
    kernels = {target: f"/bin/{target.replace('/', '-')}" for target in ("process/amd64", "process/arm64", "simulated/amd64")}
    files = {path[1:]: (path.encode() + marker * 100_000, True) for path in kernels.values()}
    layout = directory / f"layout-{marker.hex()}"
    write(pack(ImageContent(Profile("plain", kernels), files, ("--sensor", "humidity"), compression="none")), layout, "latest")
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{layout}:latest", f"docker://{address}/{name}"], check=True)


def store(directory: Path, proxy: Proxy, **options: Any) -> ImageStore:
    return ImageStore(directory / "store", proxy.address, (proxy.address,), "amd64", **options)


def left_over(directory: Path) -> list[str]:
    found = [*(directory / "store/work").iterdir(), *(directory / "store/images").iterdir()]
    return [str(path) for path in found]


def test_a_name_without_registry_and_tag_is_pulled_once_and_always_only_asks_for_the_digest(
    registry: LoopbackRegistry, tmp_path: Path
) -> None:
    push(registry.address, tmp_path)
    with proxy(registry.address) as front:
        images = store(tmp_path, front)
        image = images.pull("humidity-daemon", "Always")
        assert image.reference == f"{front.address}/humidity-daemon:latest"
        assert len(front.blobs()) == 2
        before = len(front.seen)
        assert images.pull("humidity-daemon", "Always") == image
        assert len(front.blobs()) == 2
        print("asked for an unchanged image:", front.seen[before:])
        assert images.pull("humidity-daemon", "IfNotPresent") == image
        asked = len(front.seen)
        assert images.pull("humidity-daemon", "Never") == image
        assert len(front.seen) == asked
        push(registry.address, tmp_path, marker=b"2")
        assert images.pull("humidity-daemon", "Always").digest != image.digest


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda body: body[:-7] + b"x" + body[-6:], "igest"),
        (lambda body: body[: len(body) // 2], "igest|EOF|size"),
        (lambda body: b"", "igest|EOF|size"),
        (lambda body: b"{}" + body, "igest|size|more than"),
    ],
    ids=["flipped", "cut", "empty", "longer"],
)
def test_a_blob_that_is_not_what_its_digest_says_is_an_error_and_leaves_nothing(
    registry: LoopbackRegistry, tmp_path: Path, spoil: Callable[[bytes], bytes], named: str
) -> None:
    push(registry.address, tmp_path)
    with proxy(registry.address, spoil=spoil) as front:
        images = store(tmp_path, front)
        with pytest.raises(ImageError, match=named) as caught:
            images.pull("humidity-daemon")
        print(caught.value)
        assert caught.value.reason == "ErrImagePull"
        assert left_over(tmp_path) == []
        front.spoil = lambda body: body
        assert images.pull("humidity-daemon").root.is_dir()


def test_a_registry_that_never_stops_sending_fills_no_disk(registry: LoopbackRegistry, tmp_path: Path) -> None:
    push(registry.address, tmp_path)
    most = 0
    with proxy(registry.address, endless=True) as front:
        images = store(tmp_path, front)
        trouble: list[ImageError] = []

        def pull() -> None:
            try:
                images.pull("humidity-daemon")
            except ImageError as error:
                trouble.append(error)

        thread = threading.Thread(target=pull)
        thread.start()
        while thread.is_alive():
            try:
                most = max(most, disk_usage(tmp_path / "store"))
            except FileNotFoundError:
                continue
            time.sleep(0.02)
    assert len(trouble) == 1
    print(trouble[0], f"(at most {most} bytes on disk)")
    assert trouble[0].reason == "ErrImagePull"
    assert most < 16 << 20
    assert left_over(tmp_path) == []


def test_each_login_that_fits_is_tried_and_no_other_is_shown(registry: LoopbackRegistry, tmp_path: Path) -> None:
    push(registry.address, tmp_path)
    with proxy(registry.address, login="joe:right") as front:
        images = store(tmp_path, front)
        with pytest.raises(ImageError, match="imagePullSecrets") as caught:
            images.pull("humidity-daemon")
        print(caught.value)
        other = RegistryCredentials("hub", "secret", "https://index.docker.io/v1/")
        wrong = RegistryCredentials("joe", "wrong", f"http://{front.address}/v1/")
        right = RegistryCredentials("joe", "right", front.address)
        with pytest.raises(ImageError):
            images.pull("humidity-daemon", credentials=[other, wrong])
        assert images.pull("humidity-daemon", credentials=[other, wrong, right]).root.is_dir()
        assert {login for _method, _path, login in front.seen} - {"", ":"} == {"joe:wrong", "joe:right"}


def test_mirrors_are_asked_in_order_and_get_no_login_of_the_registry(registry: LoopbackRegistry, tmp_path: Path) -> None:
    push(registry.address, tmp_path)
    push(registry.address, tmp_path, "copy/humidity-daemon:latest")
    with proxy(registry.address, login="joe:right") as upstream, proxy(registry.address) as mirror:
        settings = {
            upstream.address: RegistrySettings(mirrors=("127.0.0.1:9", f"{mirror.address}/copy"), insecure=True),
            mirror.address: RegistrySettings(insecure=True),
        }
        login = [RegistryCredentials("joe", "right", upstream.address)]
        images = ImageStore(tmp_path / "store", upstream.address, registries=settings)
        image = images.pull("humidity-daemon", credentials=login)
        assert image.reference == f"{upstream.address}/humidity-daemon:latest"
        assert upstream.seen == []
        assert all(path.startswith("/v2/copy/") or path == "/v2/" for _method, path, _login in mirror.seen)
        assert {said for _method, _path, said in mirror.seen} == {""}
        push(registry.address, tmp_path, "only-upstream:latest", b"2")
        assert images.pull("only-upstream", credentials=login).root.is_dir()
        with pytest.raises(ImageError) as caught:
            images.pull("nowhere", credentials=login)
        print(caught.value)
        assert "before that mirror" in caught.value.message
        mirror.spoil = lambda body: b"x" + body
        push(registry.address, tmp_path, "copy/third:latest", b"3")
        push(registry.address, tmp_path, "third:latest", b"3")
        assert images.pull("third", credentials=login).root.is_dir()


def certificates(directory: Path) -> tuple[Path, str]:
    """A server's certificate with its key for 127.0.0.1, and the PEM text of the authority that made it."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, key: Any, issuer: str, signer: Any, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        builder = builder.issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return builder.add_extension(address, critical=False).sign(signer, hashes.SHA256())

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _number in range(2))
    ca = certificate("ca", ca_key, "ca", ca_key, True).public_bytes(serialization.Encoding.PEM)
    leaf = certificate("registry", key, "ca", ca_key, False).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "server.pem"
    path.write_bytes(leaf + private)
    return path, ca.decode()


def test_a_registry_of_a_private_authority_is_trusted_where_that_is_configured_and_only_there(
    registry: LoopbackRegistry, tmp_path: Path
) -> None:
    push(registry.address, tmp_path)
    server, ca = certificates(tmp_path)
    with proxy(registry.address, certificate=server) as front:
        with pytest.raises(ImageError, match="certificate") as caught:
            ImageStore(tmp_path / "distrusting", front.address).pull("humidity-daemon")
        print(caught.value)
        settings = {front.address: RegistrySettings(ca=ca)}
        assert ImageStore(tmp_path / "store", front.address, registries=settings).pull("humidity-daemon").root.is_dir()
    with proxy(registry.address) as plain:
        with pytest.raises(ImageError, match="HTTP response to HTTPS client") as caught:
            ImageStore(tmp_path / "strict", plain.address).pull("humidity-daemon")
        print(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_disk_that_fills_up_is_emptied_to_the_low_mark_and_what_is_used_stays(
    registry: LoopbackRegistry, tmp_path: Path, small_disk: Path
) -> None:
    images = ImageStore(small_disk / "store", registry.address, (registry.address,), "amd64")
    limits = CollectLimits(minimum_age=0.0)
    digests = []
    for number in range(8):
        push(registry.address, tmp_path, f"unit{number}:1", bytes([65 + number]))
        digests.append(images.pull(f"unit{number}:1").digest)
    assert images.collect(limits, ()).removed == ()
    push(registry.address, tmp_path, "big:1", b"big" * 4)
    with pytest.raises(ImageError, match="disk has left|make room|No space") as caught:
        images.pull("big:1")
    print(caught.value)
    filler = small_disk / "filler"
    disk = os.statvfs(small_disk)
    filler.write_bytes(b"x" * int(disk.f_bavail * disk.f_frsize - 0.1 * disk.f_blocks * disk.f_frsize))
    done = images.collect(limits, {digests[0]})
    disk = os.statvfs(small_disk)
    print(f"freed {done.freed} bytes, {100 * disk.f_bavail / disk.f_blocks:.0f} % of the disk are free")
    assert done.missing == 0
    assert list(done.removed) == digests[1 : 1 + len(done.removed)]
    assert disk.f_bavail >= 0.2 * disk.f_blocks
    assert images.pull("unit0:1", "Never").digest == digests[0]
    filler.write_bytes(filler.read_bytes() + b"x" * int(disk.f_bavail * disk.f_frsize * 0.9))
    done = images.collect(limits, set(digests))
    assert (done.removed, done.missing > 0) == ((), True)
