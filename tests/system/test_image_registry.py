# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images through a real registry (Debian's docker-registry on loopback) and real skopeo: the module pushes, the store pulls."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import ImageError, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from tests.system.loopback_registry import LoopbackRegistry, loopback_registry

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LoopbackRegistry]:
    with loopback_registry(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def build() -> Path:
    subprocess.run(["make", "-s", "-C", str(ROOT / "guest")], check=True)
    return ROOT / "guest" / "build"


def run_module(name: str, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
    """Run a module as Ansible does; its result."""
    command = ["ansible", "-i", "localhost,", "-c", "local", "localhost", "-m", f"unifleet.hybrid.{name}"]
    command += ["-e", "ansible_python_interpreter={{ ansible_playbook_python }}", "-a", json.dumps(arguments), *flags]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "0"})
    start = done.stdout.find("=> {")
    assert start >= 0, done.stdout + done.stderr
    result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start + 3 :])[0]
    result["printed"] = done.stdout
    return result


def module(registry: LoopbackRegistry, build: Path, *flags: str, **changes: Any) -> dict[str, Any]:
    """Run unikernel_image as Ansible does; its result."""
    arguments: dict[str, Any] = {
        "name": f"{registry.address}/humidity-daemon:1",
        "validate_certs": False,
        "kernels": {
            target: str(build / f"sensor-{target.replace('/', '-')}") for target in ("kvm/amd64", "process/amd64", "process/arm64")
        },
        "fixed_args": ["--sensor", "humidity"],
        "memory": "8Mi",
        **changes,
    }
    if "source" in changes:
        arguments = {"validate_certs": False, **changes}
    return run_module("unikernel_image", arguments, *flags)


def info(name: str, **arguments: Any) -> dict[str, Any]:
    """Run unikernel_image_info; its result."""
    return run_module("unikernel_image_info", {"name": name, "validate_certs": False, **arguments})


def store(directory: Path, registry: LoopbackRegistry, architecture: str = "amd64") -> ImageStore:
    return ImageStore(directory / f"store-{architecture}", registry.address, (registry.address,), architecture)


def test_what_is_pushed_once_is_pulled_everywhere_and_runs(registry: LoopbackRegistry, build: Path, tmp_path: Path) -> None:
    planned = module(registry, build, "--check")
    assert planned["changed"]
    assert not registry.storage.joinpath("docker/registry/v2/repositories/humidity-daemon").exists()
    pushed = module(registry, build)
    assert pushed["changed"]
    assert pushed["digest"] == planned["digest"]
    again = module(registry, build)
    assert (again["changed"], again["digest"]) == (False, pushed["digest"])
    for architecture, emulator in (("amd64", []), ("arm64", ["qemu-aarch64-static"])):
        images = store(tmp_path, registry, architecture)
        began = time.monotonic()
        image = images.pull("humidity-daemon:1", "Always")
        cold = time.monotonic() - began
        began = time.monotonic()
        assert images.pull("humidity-daemon:1", "Always") == image
        print(f"{architecture}: pulled in {cold * 1000:.0f} ms, looked up again in {(time.monotonic() - began) * 1000:.0f} ms")
        program = images.resolve(image, "process", architecture).kernel
        done = subprocess.run([*emulator, str(program), *image.entrypoint[1:], "--count", "1"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("sensor=humidity value=")
        assert store(tmp_path, registry, architecture).pull(pushed["reference"]).digest == image.digest
    kernel = images.resolve(store(tmp_path, registry).pull("humidity-daemon:1"), "kvm", "amd64").kernel
    assert kernel.read_bytes() == (build / "sensor-kvm-amd64").read_bytes()


def test_stock_tools_see_an_ordinary_image_for_each_architecture(registry: LoopbackRegistry, build: Path) -> None:
    module(registry, build)
    for architecture in ("amd64", "arm64"):
        command = ["skopeo", "inspect", "--tls-verify=false", "--override-arch", architecture, "--config"]
        done = subprocess.run([*command, f"docker://{registry.address}/humidity-daemon:1"], capture_output=True, check=True)
        config = json.loads(done.stdout)
        assert config["architecture"] == architecture
        assert config["config"]["Entrypoint"] == [f"/bin/process-{architecture}", "--sensor", "humidity"]


def test_a_changed_image_moves_the_tag_and_the_diff_shows_both(registry: LoopbackRegistry, build: Path, tmp_path: Path) -> None:
    first = module(registry, build)
    images = store(tmp_path, registry)
    old = images.pull("humidity-daemon:1")
    second = module(registry, build, "--diff", env={"SENSOR_PERIOD": "2"})
    assert second["changed"]
    assert second["digest"] != first["digest"]
    assert "--- before" in second["printed"]
    assert "SENSOR_PERIOD=2" in second["printed"]
    assert images.pull("humidity-daemon:1", "IfNotPresent") == old
    assert images.pull("humidity-daemon:1", "Always").env == (("SENSOR_PERIOD", "2"),)


def test_absent_removes_the_image_and_is_content_when_it_is_gone(registry: LoopbackRegistry, build: Path, tmp_path: Path) -> None:
    pushed = module(registry, build)
    assert module(registry, build, state="absent")["digest"] == pushed["digest"]
    assert module(registry, build, state="absent")["changed"] is False
    with pytest.raises(ImageError, match="manifest unknown"):
        store(tmp_path, registry).pull("humidity-daemon:1")


def test_absent_spares_the_other_tags_of_the_same_image(registry: LoopbackRegistry, build: Path, tmp_path: Path) -> None:
    one = module(registry, build)
    two = module(registry, build, name=f"{registry.address}/humidity-daemon:2")
    assert one["digest"] == two["digest"]
    assert module(registry, build, state="absent")["changed"]
    assert info(f"{registry.address}/humidity-daemon:1")["exists"] is False
    left = info(f"{registry.address}/humidity-daemon:2", tags=True)
    assert (left["image"]["digest"], left["tags"]) == (two["digest"], ["2"])
    assert store(tmp_path, registry).pull("humidity-daemon:2").profile is not None


def test_an_image_is_pulled_to_a_directory_and_promoted_from_it_byte_for_byte(
    registry: LoopbackRegistry, build: Path, tmp_path: Path
) -> None:
    pushed = module(registry, build, split=True)
    layout = tmp_path / "kept/humidity"
    pull = {"source": f"{registry.address}/humidity-daemon:1", "layout": str(layout)}
    assert module(registry, build, "--check", **pull)["changed"]
    assert not layout.exists()
    assert [module(registry, build, **pull)[key] for key in ("changed", "digest")] == [True, pushed["digest"]]
    assert module(registry, build, **pull)["changed"] is False
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1])
    assert module(registry, build, **pull)["changed"] is True
    push = {"source": f"oci:{layout}:1", "name": f"{registry.address}/released/humidity:1"}
    assert [module(registry, build, **push)[key] for key in ("changed", "digest")] == [True, pushed["digest"]]
    assert module(registry, build, **push)["changed"] is False
    assert info(f"oci:{layout}")["image"] == info(push["name"])["image"]
    missing = module(registry, build, source=f"{registry.address}/nothing:1", layout=str(layout))
    assert "has no such image" in missing["msg"]
    assert layout.is_dir()


def test_info_says_what_an_image_is_without_its_layers(registry: LoopbackRegistry, build: Path) -> None:
    hardware = {"kvm/amd64": {"machine": "q35"}}
    pushed = module(registry, build, split=True, hardware=hardware, exit={"codes": {"3": 0}}, args=["--count", "1"], env={"A": "b"})
    image = info(f"{registry.address}/humidity-daemon:1")["image"]
    assert image["digest"] == pushed["digest"]
    assert image["size"] == pushed["size"]
    assert [entry["platform"] for entry in image["platforms"]] == ["linux/amd64", "linux/arm64", "linux/amd64+kvm", "linux/amd64+process"]
    fat, kvm = image["platforms"][0], image["platforms"][2]
    assert fat["kernels"] == {"kvm/amd64": "/boot/kvm-amd64", "process/amd64": "/bin/process-amd64"}
    assert (fat["args"], fat["env"], fat["entrypoint"][1:]) == (["--count", "1"], {"A": "b"}, ["--sensor", "humidity"])
    assert kvm["profile"]["hardware"] == hardware
    assert kvm["profile"]["exit"] == {"codes": {"3": 0}}
    assert info(f"{registry.address}/humidity-daemon:2", tags=True)["image"] is None


def test_an_agent_fetches_the_kernel_of_its_own_hypervisor_from_a_split_image(
    registry: LoopbackRegistry, build: Path, tmp_path: Path
) -> None:
    module(registry, build, split=True)
    fat = store(tmp_path / "fat", registry).pull("humidity-daemon:1")
    for hypervisor in ("kvm", "process"):
        images = ImageStore(tmp_path / hypervisor, registry.address, (registry.address,), "amd64", hypervisor=hypervisor)
        image = images.pull("humidity-daemon:1")
        assert image.digest != fat.digest
        bootable = images.resolve(image, hypervisor, "amd64")
        assert bootable.kernel.read_bytes() == (build / f"sensor-{hypervisor}-amd64").read_bytes()
        assert image.profile is not None
        assert list(image.profile.kernels) == [f"{hypervisor}/amd64"]
    assert images.resolve(store(tmp_path / "fat", registry).pull("humidity-daemon:1"), "kvm", "amd64").target == "kvm/amd64"


def test_what_cannot_be_packed_is_named_before_anything_is_pushed(registry: LoopbackRegistry, build: Path) -> None:
    result = module(registry, build, hardware={"kvm/amd64": {"xml": "<hostdev/>"}})
    assert "FAILED!" in result["printed"]
    assert "hardware[kvm/amd64].xml' (an image cannot bring libvirt XML; known: machine, nic, console)" in result["msg"]
    assert not registry.storage.joinpath("docker/registry/v2/repositories").exists()


@pytest.mark.parametrize("which", ["layer", "config", "manifest", "index"])
def test_flipped_bytes_on_the_registrys_disk_are_never_run(registry: LoopbackRegistry, build: Path, tmp_path: Path, which: str) -> None:
    pushed = module(registry, build)
    index = json.loads(registry.blob(pushed["digest"]).read_bytes())
    manifest = json.loads(registry.blob(index["manifests"][0]["digest"]).read_bytes())
    digests = {
        "index": pushed["digest"],
        "manifest": index["manifests"][0]["digest"],
        "config": manifest["config"]["digest"],
        "layer": manifest["layers"][0]["digest"],
    }
    path = registry.blob(digests[which])
    good = path.read_bytes()
    path.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    images = store(tmp_path, registry)
    reference = f"humidity-daemon@{pushed['digest']}"
    with pytest.raises(ImageError) as caught:
        images.pull(reference)
    print(caught.value)
    assert caught.value.reason == "ErrImagePull"
    assert list((tmp_path / "store-amd64/images").iterdir()) == []
    assert list((tmp_path / "store-amd64/work").iterdir()) == []


def test_a_registry_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    images = ImageStore(tmp_path, "127.0.0.1:1", ("127.0.0.1:1",))
    with pytest.raises(ImageError, match="connection refused"):
        images.pull("x", credentials=[RegistryCredentials("joe", "hidden")])


def test_a_login_never_shows_in_arguments_or_files(tmp_path: Path) -> None:
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nls -l "$HOME"/auth.json >> {tmp_path}/said\nexit 1\n')
    spy.chmod(0o755)
    from ansible_collections.unifleet.hybrid.plugins.host.images.registry import Registry

    images = ImageStore(tmp_path / "store", registry=Registry(program=str(spy)))
    with pytest.raises(ImageError):
        images.pull("r.example/x", credentials=[RegistryCredentials("joe", "hidden")])
    said = (tmp_path / "said").read_text()
    assert "hidden" not in said
    assert "-rw-------" in said
    assert list((tmp_path / "store/work").iterdir()) == []


def test_without_skopeo_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("skopeo")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="install the package skopeo"):
        ImageStore(tmp_path / "store").pull("r.example/x")


def test_the_command_does_with_a_registry_what_the_module_does(registry: LoopbackRegistry, build: Path, tmp_path: Path) -> None:
    def run(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run([ROOT / "tools/unikernel-image", *arguments, "-o", "json"], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if not code else done.stderr

    pushed = module(registry, build)
    reference = f"{registry.address}/humidity-daemon:1"
    kernels = [f"--kernel={t}={build}/sensor-{t.replace('/', '-')}" for t in ("kvm/amd64", "process/amd64", "process/arm64")]
    flags = [*kernels, "--memory=8Mi", "--fixed-arg=--sensor", "--fixed-arg=humidity"]
    packed = run("pack", reference, "--insecure", *flags)
    assert (packed["digest"], packed["changed"]) == (pushed["digest"], False)
    assert run("pull", reference, str(tmp_path / "l"), "--insecure")["changed"] is True
    assert run("pull", reference, str(tmp_path / "l"), "--insecure")["changed"] is False
    other = f"{registry.address}/humidity-daemon:2"
    assert run("push", f"oci:{tmp_path}/l", other, "--insecure")["digest"] == pushed["digest"]
    assert run("push", f"oci:{tmp_path}/l", other, "--insecure")["changed"] is False
    assert run("list", other, "--insecure")["tags"] == ["1", "2"]
    here = run("resolve", other, "--insecure", "--hypervisor", "process", "--arch", "arm64")
    assert (here["digest"], here["kernel"]["path"]) == (pushed["digest"], "/bin/process-arm64")
    assert run("inspect", other, "--insecure")["size"] == pushed["size"]
    assert run("remove", reference, "--insecure")["changed"] is True
    assert run("list", other, "--insecure")["tags"] == ["2"]
    assert "plain HTTP" in run("inspect", other, code=1)
    assert "manifest unknown" in run("resolve", reference, "--insecure", "--hypervisor", "kvm", code=1)
    assert "there is no image" in run("inspect", reference, "--insecure", code=1)


def kraft_layout(directory: Path) -> None:
    """An OCI layout as kraft packs one: an index by platform (qemu, xen), and the kernel at a well-known path."""

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (directory / "blobs/sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    entries = []
    for system, kernel in (("xen", "grub"), ("qemu", "multiboot")):
        head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)
        head += struct.pack("<III", 0x1BADB002, 0x10003, -(0x1BADB002 + 0x10003) & 0xFFFFFFFF) + kernel.encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("unikraft/bin/kernel")
            entry.size = len(head)
            tar.addfile(entry, io.BytesIO(head))
        layer = blob(packed.getvalue())
        config = {
            "architecture": "x86_64",
            "os": system,
            "os.version": "0.16.3",
            "config": {"Cmd": ["-c", "/nginx.conf"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(json.dumps(config).encode())},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
        }
        platform = {"os": system, "architecture": "x86_64", "os.features": ["CONFIG_LIBUKBOOT=y"]}
        entries.append({"mediaType": manifest["mediaType"], **blob(json.dumps(manifest).encode()), "platform": platform})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    top = {"mediaType": index["mediaType"], **blob(json.dumps(index).encode())}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))


def test_a_kraft_image_is_pulled_for_the_hosts_hypervisor(registry: LoopbackRegistry, tmp_path: Path) -> None:
    kraft_layout(tmp_path / "kraft")
    reference = f"{registry.address}/nginx:1"
    command = ["skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/kraft", f"docker://{reference}"]
    subprocess.run(command, check=True)
    host = ImageStore(tmp_path / "store", registry.address, (registry.address,), "amd64", hypervisor="kvm")
    image = host.pull(reference, "Always")
    chosen = host.resolve(image, "kvm", "amd64")
    assert (chosen.family, chosen.target) == ("unikraft", "kvm/amd64")
    assert chosen.kernel.read_bytes().endswith(b"multiboot")
    assert image.command == ("-c", "/nginx.conf")
