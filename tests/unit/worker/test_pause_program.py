# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pause program is what its source says, waits, reaps what it inherits, and ends when it is told to; its image is read by others."""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.filter.pause_image import pause_image
from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_layer import Link
from ansible_collections.unifleet.hybrid.plugins.module_utils.pause_program import CODE, SOURCES, program

TOOLS = {"amd64": ("as", "objcopy"), "arm64": ("aarch64-linux-gnu-as", "aarch64-linux-gnu-objcopy")}
RUNNERS = {"amd64": [], "arm64": ["qemu-aarch64-static"]}


@pytest.mark.parametrize("architecture", sorted(CODE))
def test_the_code_is_what_the_assembler_makes_of_the_source(architecture: str, tmp_path: Path) -> None:
    assembler, copier = TOOLS[architecture]
    if not shutil.which(assembler) or (architecture == "amd64" and platform.machine() != "x86_64"):
        pytest.skip(f"{assembler} for {architecture} is not here")
    source, object_file, code = tmp_path / "pause.S", tmp_path / "pause.o", tmp_path / "pause.bin"
    source.write_text(_gas(SOURCES[architecture]), encoding="ascii")
    subprocess.run([assembler, "-o", str(object_file), str(source)], check=True)
    subprocess.run([copier, "-O", "binary", "-j", ".text", str(object_file), str(code)], check=True)
    assert code.read_bytes() == CODE[architecture]


def _gas(source: str) -> str:
    """Without the comments: each assembler has its own character for them."""
    return "".join(line.partition("//")[0].rstrip() + "\n" for line in source.splitlines())


@pytest.mark.parametrize("architecture", sorted(CODE))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_until_it_is_told_to_end(architecture: str, number: signal.Signals, tmp_path: Path) -> None:
    runner = RUNNERS[architecture]
    if (architecture == "amd64" and platform.machine() != "x86_64") or not all(shutil.which(word) for word in runner):
        pytest.skip(f"programs for {architecture} do not run here")
    path = tmp_path / "pause"
    path.write_bytes(program(architecture))
    path.chmod(0o755)
    with subprocess.Popen([*runner, str(path)]) as running:
        for _attempt in range(100):  # until it has blocked the signal: before that the kernel would end it
            status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
            blocked = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
            if blocked & (1 << (number - 1)) or runner:
                break
            time.sleep(0.02)
        time.sleep(0.5 if runner else 0)
        assert running.poll() is None
        os.kill(running.pid, signal.SIGWINCH)
        running.send_signal(number)
        assert running.wait(10) == 0


def test_an_architecture_without_a_program_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="no pause program for s390x"):
        pause_image("localhost/p:1", "s390x")


def test_the_image_has_the_program_as_entrypoint_and_the_same_bytes_each_time() -> None:
    packed = base64.b64decode(pause_image("localhost/unifleet/pause:1", "arm64"))
    assert packed == base64.b64decode(pause_image("localhost/unifleet/pause:1", "arm64"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/unifleet/pause:1"
    manifest = json.loads(files["blobs/sha256/" + entry["digest"][7:]])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]])
    assert (config["architecture"], config["config"]) == ("arm64", {"Entrypoint": ["/pause"]})
    with tarfile.open(fileobj=io.BytesIO(files["blobs/sha256/" + manifest["layers"][0]["digest"][7:]])) as layer:
        pause = layer.getmember("pause")
        assert pause.mode == 0o755
        assert layer.extractfile(pause).read() == program("arm64")  # type: ignore[union-attr]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not here")
def test_skopeo_reads_the_image_and_finds_its_links(tmp_path: Path) -> None:
    files = {"bin/busybox": (b"#!", True), "bin/sh": Link("/bin/busybox")}
    (tmp_path / "image.tar").write_bytes(archive(ContainerImage("x/y:1", "amd64", files, args=("/bin/sh",), labels={"a": "b"})))
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci-archive:{tmp_path / 'image.tar'}"], check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["config"] == {"Cmd": ["/bin/sh"], "Labels": {"a": "b"}}


@pytest.mark.parametrize("name", ["/bin/sh", "../x", "a//b", ""])
def test_a_path_out_of_the_image_is_refused(name: str) -> None:
    with pytest.raises(UnifleetError, match="not a path in an image"):
        archive(ContainerImage("x:1", "amd64", {name: (b"", False)}))
