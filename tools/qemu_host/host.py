# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running host: booted once, frozen, and thawed in a second or two ever after.

The image and the state of the booted machine (QEMU's migration to a file) are cached by content; each host has a throw-away overlay of
the frozen disk, so any number of them may run, and none can spoil another. The host is reached by ssh on a port of the loopback
interface and is 10.0.2.15/24 on QEMU's user network. It may have a second card, on a tap that its user made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.tools.qemu_host.image import ArchiveUnavailableError, Disk, Image, build

BOOT_SECONDS = 240
"""Under a heavy load; on a quiet machine it takes 15."""

_PLAIN = ("-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
_SECOND = "-device virtio-net-pci,netdev=second,romfile=,mac=52:54:00:75:66:02"


@dataclass(frozen=True)
class Kind:
    """A kind of host. machine: words that say what it is made of. boot: the words that say what is booted of an image.

    up: what its console says when it is up. down: what its console says when it never will be. settle: a shell command that returns when
    it may be frozen. second_card: whether it has one.
    """

    disk: Disk
    machine: tuple[str, ...]
    boot: Callable[[Image], tuple[str, ...]]
    up: str
    down: tuple[str, ...]
    settle: str = "true"
    second_card: bool = False

    @property
    def name(self) -> str:
        return self.disk.name


class QemuHost:
    """A host that runs in this directory until close(). tap: the open descriptor of a tap device, for the second card."""

    def __init__(
        self,
        kind: Kind,
        image: Image,
        directory: Path,
        backing: tuple[Path, str],
        *,
        state: Optional[Path] = None,
        tap: Optional[int] = None,
    ) -> None:
        self.kind = kind
        self.image = image
        self.directory = directory
        self.port = _free_port()
        self.console = directory / "console"
        self._control = directory / "control"
        disk = directory / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing[0]), "-F", backing[1], str(disk)], check=True)
        second = "user,id=second,restrict=on,ipv6=off" if tap is None else f"tap,id=second,fd={tap}"
        command = [
            *("qemu-system-x86_64", *_PLAIN, *kind.machine, *kind.boot(image)),
            *("-drive", f"file={disk},if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk"),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22", "-device", "virtio-net-pci,netdev=net,romfile="),
            *(("-netdev", second, *_SECOND.split()) if kind.second_card else ()),
            *("-serial", f"file:{self.console}", "-qmp", f"unix:{self._control},server=on,wait=off"),
            *(("-incoming", "defer") if state else ()),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=() if tap is None else (tap,)
        )
        try:
            if state:
                self._thaw(state)
            else:
                self._wait_for_boot()
        except BaseException:
            self.close()
            raise

    def run(self, command: str, data: bytes = b"", seconds: float = 120) -> str:
        """The output of a shell command on the host. Raises UnifleetError when it fails or takes longer."""
        try:
            done = subprocess.run([*self.ssh(), command], input=data, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise UnifleetError(f"the host {self.kind.name} did not end {command!r} in {seconds} s") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise UnifleetError(f"on the host {self.kind.name}, {command!r} ended with {done.returncode}: {said}")
        return done.stdout.decode(errors="surrogateescape")

    def put(self, path: str, content: bytes) -> None:
        """Write a file on the host."""
        self.run(f"cat > '{path}'", content)

    def ssh(self) -> list[str]:
        """The words that open a shell on the host; one connection serves all."""
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "20",
            "ControlMaster": "auto",
            "ControlPath": str(self.directory / "ssh"),
            "ControlPersist": "600",
        }
        words = ["ssh", "-i", str(self.image.key), "-p", str(self.port), "-l", "root"]
        return [*words, *(word for name, value in options.items() for word in ("-o", f"{name}={value}")), "127.0.0.1"]

    def freeze(self, state: Path) -> None:
        """Write the machine's state to a file, and end it."""
        self._close_connection()
        self._qmp("stop")
        self._qmp("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        self._migrate("migrate", {"uri": f"exec:cat > '{state}'"})
        self._qmp("quit")
        self.process.wait(timeout=30)

    def close(self) -> None:
        self._close_connection()
        self.process.kill()
        self.process.communicate()

    def _close_connection(self) -> None:
        if (self.directory / "ssh").exists():
            subprocess.run([*self.ssh(), "-O", "exit"], capture_output=True, check=False)

    def _thaw(self, state: Path) -> None:
        self._migrate("migrate-incoming", {"uri": f"exec:cat '{state}'"})
        self._qmp("cont")
        self._wait_for_ssh(60)
        # Its clock stands where it was frozen.
        self.run(f"date -s @{int(time.time())} > /dev/null")

    def _wait_for_boot(self) -> None:
        until = time.monotonic() + BOOT_SECONDS
        while True:
            said = self.console.read_text(errors="replace") if self.console.exists() else ""
            if self.kind.up in said:
                break
            if time.monotonic() > until or self.process.poll() is not None or any(word in said for word in self.kind.down):
                raise UnifleetError(f"the host {self.kind.name} did not boot: {self._why()} {said[-500:]!r}")
            time.sleep(0.1)
        self._wait_for_ssh(60)

    def _wait_for_ssh(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._answers():
            if time.monotonic() > until or self.process.poll() is not None:
                raise UnifleetError(f"the host {self.kind.name} does not let anybody in: {self._why()}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return self.run("true", seconds=30) == ""
        except UnifleetError:
            return False

    def _why(self) -> str:
        if self.process.poll() is None or self.process.stderr is None:
            return ""
        return self.process.stderr.read().decode(errors="replace").strip()

    def _migrate(self, command: str, arguments: dict[str, Any]) -> None:
        self._qmp(command, arguments)
        until = time.monotonic() + 120
        while (status := self._qmp("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > until:
                raise UnifleetError(
                    f"the state of the host {self.kind.name} did not pass ({command}: {status})", "remove it from the cache"
                )
            time.sleep(0.02)

    def _qmp(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        until = time.monotonic() + 20
        while not self._control.exists():
            if time.monotonic() > until or self.process.poll() is not None:
                raise UnifleetError(f"QEMU did not start: {self._why()}")
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self._control))
            stream = connection.makefile("rw")
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments or {}}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer: dict[str, Any] = {}
                while "return" not in answer:
                    answer = json.loads(stream.readline())
                    if "error" in answer:
                        raise UnifleetError(f"QEMU refuses {command}: {answer['error']['desc']}")
        found = answer["return"]
        return found if isinstance(found, dict) else {}


@contextmanager
def running(kind: Kind, tap: Optional[int] = None) -> Iterator[QemuHost]:
    """A host, from the cache where it is there. Raises ArchiveUnavailableError when it cannot be built for want of packages."""
    frozen = _frozen(kind)
    with tempfile.TemporaryDirectory(prefix=f"unifleet-{kind.name}-host-") as directory:
        host = QemuHost(kind, Image(frozen), Path(directory), (frozen / "booted.qcow2", "qcow2"), state=frozen / "state", tap=tap)
        try:
            yield host
        finally:
            host.close()


def _frozen(kind: Kind) -> Path:
    """The directory with image, disk after boot, and state; built on first use."""
    for program in ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "depmod", "ssh"):
        if shutil.which(program) is None:
            raise ArchiveUnavailableError(f"{program} is not installed", "tools/prepare installs what tools/debian-packages.txt names")
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    words = [*_PLAIN, *kind.machine, *kind.boot(Image(Path())), *(_SECOND.split() if kind.second_card else ()), kind.settle]
    key = hashlib.sha256("\0".join([kind.disk.key, qemu, *words]).encode()).hexdigest()[:12]
    place = Path(os.environ.get("UNIFLEET_CACHE") or Path.home() / ".cache" / "unifleet") / kind.name / key
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return place
        unfinished = Path(f"{place}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        image = build(unfinished, kind.disk)
        with tempfile.TemporaryDirectory(prefix=f"unifleet-{kind.name}-boot-") as scratch:
            host = QemuHost(kind, image, Path(scratch), (image.disk, "raw"))
            try:
                host.run(kind.settle, seconds=BOOT_SECONDS)
                host.freeze(unfinished / "state")
            finally:
                host.close()
            shutil.move(Path(scratch) / "disk.qcow2", unfinished / "booted.qcow2")
        # The overlay's backing file is named relative to it, so that the directory may move.
        rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", image.disk.name, "booted.qcow2"]
        subprocess.run(rebase, cwd=unfinished, check=True)
        unfinished.rename(place)
    return place


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
