# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runu-node: install runu on this node, or take it away, for clusters that Ansible does not manage.

The DaemonSet in deploy/ hands it an archive of the collection's programs and runs it in the node's own mount namespace. It does what
the role runu does, with the same code: versions side by side behind a `current` link, the runtime in containerd's file in place, the node's
label last, so that no pod comes before all is there. It can be repeated at any time, and a broken step leaves the version before in place.

    runu-node install --archive PROGRAMS.tar.gz --manifest MANIFEST --version VERSION
    runu-node uninstall
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_file import ContainerdFile
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_registration import Registration
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.host_app_install import Installation
from ansible_collections.unifleet.hybrid.plugins.module_utils.kubernetes_api import ClusterApi

DIRECTORY = Path("/opt/unifleet/runu")
BIN = Path("/opt/unifleet/bin")
CONFIGURATION = Path("/etc/unifleet/runu.json")
FOUND_OUT = Path("/run/unifleet-runu")
"""Where runu keeps what it found out about the node."""
KEEP = 2
LABEL = "unifleet.io/runu"
STATE = Path("/run/containerd/runc/k8s.io")
"""Where the shim tells runtimes to keep their state; runu's containers have a runu.json there."""


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="runu-node", description="Install runu on this node, or take it away.")
    parser.add_argument("action", choices=["install", "uninstall"])
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--version")
    parser.add_argument("--handler", default="runu")
    parser.add_argument("--kubeconfig", type=Path, help="with it, the label of the node is set and removed")
    parser.add_argument("--node", default=os.uname().nodename)
    parser.add_argument("--config", type=Path, default=Path("/etc/containerd/config.toml"))
    options = parser.parse_args()
    try:
        if options.action == "install":
            if not (options.archive and options.manifest and options.version):
                raise UnifleetError("install needs --archive, --manifest and --version")
            install(options)
        else:
            uninstall(options)
    except UnifleetError as error:
        print(f"runu-node: {error}", file=sys.stderr)
        return 1
    return 0


def install(options: argparse.Namespace) -> None:
    """Bring the node to this version."""
    needs(("containerd", "runc", f"qemu-system-{os.uname().machine}"))
    installation = Installation(DIRECTORY, BIN)
    manifest = options.manifest.read_text(encoding="utf-8")
    why = installation.fault(options.version, manifest, str(sys.implementation.cache_tag))
    if why:
        say(f"installing {options.version}: {why}")
        installation.install(options.version, manifest, options.archive, compile_sources)
    installation.activate(options.version)
    installation.link(["runu"])
    installation.prune(KEEP)
    write_configuration()
    register(options, runtime(options))
    checked([str(BIN / "runu"), "probe"])
    label_node(options, "true")
    say(f"runu {options.version} is ready")


def uninstall(options: argparse.Namespace) -> None:
    """Take everything away, the label first; refused while unikernels run, because nothing could stop them then."""
    label_node(options, None)
    living = sorted(path.parent.name for path in STATE.glob("*/runu.json"))
    if living:
        raise UnifleetError(f"{len(living)} unikernels run on this node ({living[0][:12]}, ...)", "delete their pods first")
    register(options, None)
    for path in (BIN / "runu", CONFIGURATION):
        if path.is_symlink() or (path.is_file() and written_by_us(path)):
            path.unlink()
    for directory in (DIRECTORY, FOUND_OUT):
        shutil.rmtree(directory, ignore_errors=True)
    for directory in (BIN, DIRECTORY.parent):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
    say("runu is gone")


def runtime(options: argparse.Namespace) -> Runtime:
    """The runtime as containerd shall know it, with the driver of control groups that runc has there."""
    document = containerd_settings.read(containerd_file(options).text, str(options.config))
    version = containerd_settings.file_version(document, str(options.config))
    runc = containerd_settings.present_runtime(document, version, "runc") or {}
    systemd = bool((runc.get("options") or {}).get("SystemdCgroup", False))
    shim_options = {"BinaryName": str(BIN / "runu"), "SystemdCgroup": systemd}
    return Runtime(options.handler, options=shim_options, pod_annotations=("io.unifleet.*",))


def register(options: argparse.Namespace, wanted: Optional[Runtime]) -> None:
    """Have containerd know the runtime, or know it no longer; its containers go on when it is restarted."""
    registration = Registration(containerd_file(options), options.handler, options.config.parent / "conf.d")
    changes = registration.texts(wanted)
    if changes:
        registration.apply(changes)
        say(f"{registration.home.path} changed; containerd is restarted")
        checked(["systemctl", "restart", "containerd.service"])


def containerd_file(options: argparse.Namespace) -> ContainerdFile:
    return ContainerdFile(options.config, run, shutil.which("containerd"))


def write_configuration() -> None:
    """runu's configuration, unless somebody else keeps one there."""
    probe = DIRECTORY / "current/probe/sensor-kvm-amd64"
    text = json.dumps({"probe_kernel": str(probe)}) + "\n"
    if not CONFIGURATION.exists():
        CONFIGURATION.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        CONFIGURATION.write_text(text, encoding="utf-8")


def written_by_us(path: Path) -> bool:
    """Whether a configuration file is still the one that write_configuration made."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and set(document) == {"probe_kernel"} and str(document["probe_kernel"]).startswith(f"{DIRECTORY}/")


def compile_sources(staging: Path, final: Path) -> None:
    """Byte-compile what lies below staging as if it lay in final."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # a version never changes
    if not compileall.compile_dir(str(staging), stripdir=str(staging), prependdir=str(final), quiet=1, invalidation_mode=mode):
        raise UnifleetError(f"the programs do not compile with Python {sysconfig.get_python_version()}", "Python 3.9 or newer is needed")


def label_node(options: argparse.Namespace, value: Optional[str]) -> None:
    """Say on the Node whether pods of the runtime class may come; None takes the label away."""
    if options.kubeconfig is None:
        return
    with ClusterApi.from_kubeconfig(str(options.kubeconfig)) as api:
        api.patch(f"/api/v1/nodes/{options.node}", {"metadata": {"labels": {LABEL: value}}})
    say(f"node {options.node}: {LABEL}={value}" if value else f"node {options.node} has no {LABEL} any more")


def needs(programs: Sequence[str]) -> None:
    """Raise when the node lacks a program, naming Debian's package of each."""
    packages = {
        "containerd": "containerd",
        "runc": "runc",
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-system-aarch64": "qemu-system-arm",
    }
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        names = " ".join(packages.get(program, program) for program in missing)
        raise UnifleetError(f"this node lacks {', '.join(missing)}", f"install the packages {names} on it")


def run(command: Sequence[str]) -> Any:
    """(status, output, errors), as AnsibleModule.run_command gives them."""
    done = subprocess.run(list(command), check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def checked(command: Sequence[str]) -> None:
    """Run a command that must succeed."""
    status, out, err = run(command)
    if status != 0:
        raise UnifleetError(f"{' '.join(command)} fails: {(err or out).strip()[-500:]}")


def say(text: str) -> None:
    print(f"runu-node: {text}", flush=True)
