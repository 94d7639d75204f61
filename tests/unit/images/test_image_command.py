# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""unikernel-image: packing, looking, resolving and unpacking with layouts on disk, and how it says what is wrong."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.host.images import node_settings
from ansible_collections.unifleet.hybrid.plugins.host.images.commands import credentials_of
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.layout_registry import LayoutRegistry
from ansible_collections.unifleet.hybrid.plugins.host.images.main import main, parser
from ansible_collections.unifleet.hybrid.plugins.host.images.node_settings import NodeSettings, read_settings
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_archive import pack as pack_programs
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import content_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import LayoutDirectory, pack

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("kvm/amd64", "xen/amd64", "process/amd64", "process/arm64")


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNIFLEET_AGENT_CONFIG", str(tmp_path / "none.toml"))
    node_settings.node_settings.cache_clear()


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A kernel for each target."""
    for target in TARGETS:
        (tmp_path / target.replace("/", "-")).write_bytes(target.encode())
    return [f"--kernel={target}={tmp_path}/{target.replace('/', '-')}" for target in TARGETS]


@pytest.fixture
def layout(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    name = f"oci:{tmp_path}/humidity:1"
    assert main(["pack", name, *flags, "--split", "--memory=8Mi", "--fixed-arg=--sensor", "--arg=x", "-e", "A=b=c"]) == 0
    capsys.readouterr()
    return name


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main([*argv, "--output", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unikernel-image: ")
    assert err.count("\n") == 1
    return err


def test_the_command_packs_the_same_bytes_as_the_module(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    hardware = ["--hardware=kvm/amd64:machine=q35", "--hardware=kvm/amd64:nic=e1000"]
    packed = said(capsys, "pack", f"oci:{tmp_path}/l", *flags, "--memory", "8Mi", "--env", "A=b", "--arg=--x", *hardware)
    words = {
        "kernels": {target: f"{tmp_path}/{target.replace('/', '-')}" for target in TARGETS},
        "memory": "8Mi",
        "env": {"A": "b"},
        "args": ["--x"],
        "hardware": {"kvm/amd64": {"machine": "q35", "nic": "e1000"}},
    }
    assert packed["digest"] == pack(content_of(words)).digest
    (tmp_path / "image.json").write_text(json.dumps(words))
    again = said(capsys, "pack", f"oci:{tmp_path}/l", "--from", str(tmp_path / "image.json"))
    assert (again["digest"], again["changed"]) == (packed["digest"], False)


def test_an_initrd_is_for_all_kernels_or_for_one(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a=b").write_bytes(b"i")
    said(capsys, "pack", f"oci:{tmp_path}/l", *flags, f"--initrd={tmp_path}/a=b", f"--initrd=xen/amd64={tmp_path}/kvm-amd64")
    for hypervisor, path in (("kvm", "/boot/initrd"), ("xen", "/boot/initrd-xen-amd64")):
        assert said(capsys, "resolve", f"oci:{tmp_path}/l", "--hypervisor", hypervisor, "--arch", "amd64")["initrd"]["path"] == path
    assert said(capsys, "resolve", f"oci:{tmp_path}/l", "--hypervisor", "process", "--arch", "amd64")["initrd"] is None


@pytest.mark.parametrize(
    ("hypervisor", "architecture", "entry", "kernel"),
    [
        ("kvm", "amd64", "linux/amd64+kvm", "/boot/kvm-amd64"),
        ("xen", "amd64", "linux/amd64+xen", "/boot/xen-amd64"),
        ("process", "amd64", "linux/amd64+process", "/bin/process-amd64"),
        ("process", "arm64", "linux/arm64", "/bin/process-arm64"),
        ("simulated", "amd64", "linux/amd64", "/boot/kvm-amd64"),
    ],
)
def test_resolve_says_what_a_host_would_run_and_why(
    layout: str, capsys: pytest.CaptureFixture[str], hypervisor: str, architecture: str, entry: str, kernel: str
) -> None:
    answer = said(capsys, "resolve", layout, "--hypervisor", hypervisor, "--arch", architecture)
    assert (answer["entry"]["platform"], answer["kernel"]["path"]) == (entry, kernel)
    assert (answer["memory"], answer["entrypoint"][1:], answer["args"], answer["env"]) == ("8Mi", ["--sensor"], ["x"], {"A": "b=c"})
    assert len(answer["entry"]["others"]) == 4
    assert main(["resolve", layout, "--hypervisor", hypervisor, "--arch", architecture]) == 0
    text = capsys.readouterr().out
    assert f"because: {answer['why']}" in text
    assert f"because: {answer['entry']['why']}" in text
    assert kernel in text


def test_what_a_host_could_not_run_is_one_line_that_names_image_host_and_remedy(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = complaint(capsys, "resolve", layout, "--hypervisor", "xen", "--arch", "arm64")
    assert f"image {layout} has no kernel for xen/arm64; it has process/arm64 (build the image for this host too" in error
    assert "no entry for linux/riscv64; it has linux/amd64, linux/arm64" in complaint(
        capsys, "resolve", layout, "--hypervisor", "kvm", "--arch", "riscv64"
    )
    assert "add --hypervisor" in complaint(capsys, "resolve", layout)


def test_a_node_resolves_for_itself(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.toml").write_text('provider = "xen"\n[images]\ndefault_registry = "lab:5000"\ninsecure_registries = ["lab:5000"]\n')
    assert said(capsys, "resolve", layout, "--arch", "amd64")["host"] == {"hypervisor": "xen", "architecture": "amd64"}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('provider = "kvm"\n[images]\ndefault_registry = "r:1"\ninsecure_registries = ["r:1"]', NodeSettings("kvm", "r:1", ("r:1",))),
        ('state_directory = "/s"', NodeSettings(image_directory=Path("/s/images"))),
        ('[images]\ndirectory = "/i"', NodeSettings(image_directory=Path("/i"))),
        ('provider = "kvm"', NodeSettings("kvm")),
        ("images = 3", NodeSettings()),
        ("[images]\ndefault_registry = 3\ninsecure_registries = 3", NodeSettings()),
        ("not toml", NodeSettings()),
        ("", NodeSettings()),
    ],
)
def test_an_agents_configuration_is_used_as_far_as_it_can_be_read(tmp_path: Path, text: str, settings: NodeSettings) -> None:
    (tmp_path / "c.toml").write_text(text)
    assert read_settings(tmp_path / "c.toml") == settings


def test_inspect_and_list_name_what_there_is(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = said(capsys, "inspect", layout)
    assert [entry["platform"] for entry in image["platforms"]][:2] == ["linux/amd64", "linux/arm64"]
    assert said(capsys, "list", layout)["tags"] == ["1"]
    assert main(["inspect", layout]) == 0
    assert "kvm/amd64, process/amd64, xen/amd64" in capsys.readouterr().out


def test_list_alone_says_what_the_agent_keeps(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.toml").write_text(f'provider = "xen"\nstate_directory = "{tmp_path}/state"\n')
    assert said(capsys, "list") == {"directory": f"{tmp_path}/state/images", "images": []}
    source = LayoutRegistry(Path(layout[4:].rpartition(":")[0]))
    image = ImageStore(tmp_path / "state/images", registry=source, hypervisor="xen").pull(source.name())
    (kept,) = said(capsys, "list")["images"]
    assert (kept["digest"], kept["references"]) == (image.digest, [source.name()])
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith(image.digest)


def test_unpack_makes_a_directory_with_the_image_and_touches_no_other(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said(capsys, "unpack", layout, str(out), "--hypervisor", "xen", "--arch", "amd64")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == ["boot/xen-amd64", "unikernel.json"]
    assert "not empty" in complaint(capsys, "unpack", layout, str(out), "--hypervisor", "xen", "--arch", "amd64")
    assert "not empty" in complaint(capsys, "unpack", layout, str(out / "unikernel.json"), "--hypervisor", "xen", "--arch", "amd64")


def test_remove_takes_a_layout_and_nothing_else(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "remove", layout)["changed"] is True
    assert said(capsys, "remove", layout)["changed"] is False
    assert "not an OCI image layout" in complaint(capsys, "remove", f"oci:{tmp_path}")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--kernel=kvm/amd64"], "'kvm/amd64' in kernels is not NAME=VALUE"),
        (["--kernel=vmware/amd64=/etc/passwd"], "a kernel for 'vmware/amd64'"),
        (["--hardware=kvm/amd64"], "is not TARGET:KEY=VALUE"),
        (["--hardware=kvm/amd64:xml=<x/>"], "cannot bring libvirt XML"),
        (["--env=A"], "is not NAME=VALUE"),
        (["--memory=lots"], "memory 'lots'"),
        (["--from=/etc/hostname"], "is not JSON"),
        (["--from=/no/such"], "No such file"),
        (["--initrd=/no/such"], "/no/such cannot be read"),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_written(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert said in complaint(capsys, "pack", f"oci:{tmp_path}/l", *flags, *more)
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize("document", ["[]", '{"kernel": {}}', '{"kernels": []}', '{"args": "x"}', '{"args": [1]}', '{"exit": 3}'])
def test_a_wrong_description_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], document: str) -> None:
    (tmp_path / "image.json").write_text(document)
    assert "image.json" in complaint(capsys, "pack", f"oci:{tmp_path}/l", "--from", str(tmp_path / "image.json"))


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither empty nor an OCI image layout" in complaint(capsys, "pack", f"oci:{tmp_path}", *flags)


def test_logins_are_found_where_docker_and_podman_keep_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert credentials_of(None, "r:1") == ()
    file = tmp_path / ".docker/config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"auths": {"r:1": {"auth": base64.b64encode(b"joe:a:b").decode()}}}))
    assert credentials_of(None, "r:1") == (RegistryCredentials("joe", "a:b"),)
    assert credentials_of(file, "other") == ()
    for wrong in ("[]", "{", '{"auths": {"r:1": {"auth": "%"}}}'):
        file.write_text(wrong)
        assert credentials_of(None, "r:1") == ()
        with pytest.raises(UnifleetError, match=r"config\.json cannot be read"):
            credentials_of(file, "r:1")


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["resolve"], ["resolve", "x", "--hypervisor", "vmware"], ["resolve", "x", "--arch", "z80"]]
)
def test_a_command_line_that_is_wrong_ends_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(argv)
    assert ended.value.code == 2


def test_it_runs_as_it_is_installed_on_hosts(tmp_path: Path, layout: str) -> None:
    app = pack_programs(ROOT, {"unikernel-image": "images"}, {}, python=sys.executable)
    for entry in app.entries:
        (tmp_path / "app" / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / entry.path).write_bytes(entry.content)
    program = [sys.executable, "-I", str(tmp_path / "app/bin/unikernel-image")]
    done = subprocess.run(
        [*program, "resolve", layout, "--hypervisor", "kvm", "--arch", "amd64"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "/boot/kvm-amd64" in done.stdout
    assert len(LayoutDirectory(tmp_path / "humidity").tags()) == 1
