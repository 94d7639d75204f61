# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine a lab runs on: the one place where the lab's modules change it, each change in the ledger first.

Everything that is made outside the lab's directory goes through `make`, everything that is taken away through `undo`;
both can be interrupted anywhere and repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from ansible_collections.unifleet.hybrid.plugins.module_utils import lab_ledger
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_ledger import Kind, Ledger, Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.lab_names import Lab

Runner = Callable[..., Any]
"""AnsibleModule.run_command: (words, data=..., check_rc=...) -> (status, output, errors)."""

NAMESPACES = "/run/netns"
"""A mount that the first `ip netns add` of a machine makes; others may have put namespaces of their own there since."""

BINFMT = "/proc/sys/fs/binfmt_misc"
"""The mount in which the kernel lists the foreign programs that it can run, binfmt_misc(5)."""

PACKAGES = {
    "depmod": "kmod",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tar": "tar",
    "update-binfmts": "binfmt-support",
}
"""Commands of the machine that the lab uses, and the Debian package of each."""


class Machine:
    """The running machine, seen from one lab."""

    def __init__(self, lab: Lab, runner: Runner) -> None:
        self.lab = lab
        self._runner = runner

    @contextlib.contextmanager
    def alone(self, host: str | None) -> Iterator[None]:
        """Wait until no other run works on the host (None: on the lab): one whose Ansible was killed may still be at it."""
        self.lab.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for name, how in (("lab", fcntl.LOCK_SH if host else fcntl.LOCK_EX), (f"host-{host}", fcntl.LOCK_EX)):
                if host or name == "lab":
                    lock = stack.enter_context((self.lab.directory / f"{name}.lock").open("w", encoding="ascii"))
                    fcntl.flock(lock, how)
            yield

    # --- commands and the ledger

    def run(self, words: Sequence[str], data: str | None = None, may_fail: bool = False) -> str:
        """The command's output; UnifleetError with its last error line when it fails, unless it may."""
        status, output, errors = self._runner(list(words), data=data, binary_data=True, encoding="utf-8", errors="replace")
        if status != 0 and not may_fail:
            said = [line for line in (errors or output).strip().splitlines() if line.strip()] or [f"exit status {status}"]
            raise UnifleetError(f"{' '.join(words[:6])}: {' | '.join(said[-3:])}")
        return str(output)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Path]:
        """The ledger's path, with no other module of this lab at work on it."""
        self.lab.directory.mkdir(parents=True, exist_ok=True)
        with (self.lab.directory / "state.lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.lab.ledger

    def ledger(self) -> Ledger:
        """What the lab made in this boot of the machine."""
        boot = boot_id()
        try:
            text = self.lab.ledger.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Ledger(self.lab.name, boot)
        found = lab_ledger.load(text, str(self.lab.ledger)).after_boot(boot)
        if found.lab != self.lab.name:
            raise UnifleetError(
                f"{self.lab.directory} holds the state of the lab {found.lab!r}, not of {self.lab.name!r}",
                "give each lab a directory of its own",
            )
        return found

    def note(self, record: Record) -> None:
        with self._locked() as path:
            before = self.ledger()
            self._write(path, before.noted(record))

    def open_ledger(self) -> None:
        """Have a ledger of this boot, if with nothing in it: from then on the lab stands."""
        with self._locked() as path:
            self._write(path, self.ledger())

    def strike(self, record: Record) -> None:
        with self._locked() as path:
            self._write(path, self.ledger().struck(record))

    @staticmethod
    def _write(path: Path, ledger: Ledger) -> None:
        replace_text(path, lab_ledger.dump(ledger))

    def make(self, record: Record, do: Callable[[], object]) -> bool:
        """Record the thing and make it, unless the lab has it already; a thing of that name that is not the lab's is an error."""
        if self.present(record):
            if record in self.ledger():
                return False
            raise UnifleetError(
                f"{record.kind.value} {record.name} exists already and was not made by this lab",
                "choose another lab_host_name, or remove it",
            )
        self.note(record)
        do()
        return True

    def edit_lines(self, path: Path, keep: Callable[[str], bool], add: str | None) -> None:
        """Rewrite a file of lines in the lab's directory: those to keep, then the one to add. The hosts of a lab share such files."""
        with self._locked():
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            text = "".join(line + "\n" for line in [*filter(keep, lines), *([add] if add is not None else [])])
            if path.parent.is_dir():
                path.write_text(text, encoding="utf-8")

    # --- what is there, and taking it away

    def present(self, record: Record) -> bool:
        """Whether the thing that the record names is on the machine now."""
        if record.kind in (Kind.CGROUP, Kind.SYSCTL):
            return Path(record.name).exists()
        if record.kind is Kind.NAMESPACE:
            return Path("/run/netns", record.name).exists()
        if record.kind is Kind.LINK:
            return Path("/sys/class/net", record.name).exists()
        if record.kind is Kind.MOUNT:
            return record.name in mount_points()
        if record.kind is Kind.BINFMT:
            return Path(BINFMT, record.name).exists()
        if record.kind is Kind.TABLE:
            return f"table ip {record.name}" in self.run(["nft", "list", "tables", "ip"]).splitlines()
        return "ActiveState=active" in self.run(["systemctl", "show", "--property=ActiveState", record.name], may_fail=True)

    def as_it_is(self, record: Record) -> Record:
        """The record with the value that a setting of the kernel has now, for putting it back."""
        return replace(record, was=Path(record.name).read_text(encoding="ascii").strip()) if record.kind is Kind.SYSCTL else record

    def undo(self, record: Record) -> None:
        """Take the thing away (if it is there) and strike the record out."""
        self.take_away(record)
        self.strike(record)

    def take_away(self, record: Record) -> None:
        """Take the thing away, or give it its old value, if it is there; a mount in which others have put something stays."""
        if self.present(record):
            if record.kind is Kind.CGROUP:
                remove_group(Path(record.name))
            elif record.kind is Kind.UNIT:
                self.run(["systemctl", "kill", "--signal=KILL", record.name], may_fail=True)
                self.run(["systemctl", "stop", record.name], may_fail=True)
            elif record.kind is Kind.NAMESPACE:
                self.run(["ip", "netns", "del", record.name])
            elif record.kind is Kind.LINK:
                self.run(["ip", "link", "del", record.name])
            elif record.kind is Kind.MOUNT and not _holds_anything(record.name):
                self._unmount(record.name)
            elif record.kind is Kind.TABLE:
                self.run(["nft", "delete", "table", "ip", record.name])
            elif record.kind is Kind.SYSCTL:
                Path(record.name).write_text(record.was, encoding="ascii")
            elif record.kind is Kind.BINFMT:
                self.run(["update-binfmts", "--disable", record.name])
        if record.kind is Kind.MOUNT and record.name.startswith("/run/"):
            with contextlib.suppress(OSError):
                Path(record.name).rmdir()

    def _unmount(self, path: str) -> None:
        """Unmount, waiting for the last processes of a killed host to let go."""
        for _attempt in range(50):
            status, _output, errors = self._runner(["umount", "--recursive", path])
            if path not in mount_points():
                return
            time.sleep(0.1 if status else 0)
        raise UnifleetError(f"cannot unmount {path}: {errors.strip()}", "see who uses it: fuser -vm " + path)

    def remove_state(self) -> None:
        """Remove what the lab keeps in its directory, once nothing is left in the ledger; other files in there stay."""
        under = [point for point in mount_points() if point.startswith(f"{self.lab.directory}/")]
        if under:
            raise UnifleetError(f"{under[0]} is still mounted", f"umount {under[0]}, then try again")
        for name in ("hosts", "ssh", "modules"):
            shutil.rmtree(self.lab.directory / name, ignore_errors=True)
        for path in (*(self.lab.directory / name for name in ("admin.kubeconfig", "state.json")), *self.lab.directory.glob("*.lock")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with contextlib.suppress(OSError):
            self.lab.directory.rmdir()


def _holds_anything(mount: str) -> bool:
    """Whether there is a namespace, or a binfmt entry, in a mount that the machine's programs share."""
    empty: dict[str, frozenset[str]] = {NAMESPACES: frozenset(), BINFMT: frozenset({"register", "status"})}
    return mount in empty and any(path.name not in empty[mount] for path in Path(mount).iterdir())


def boot_id() -> str:
    """The machine's boot (random(4)), as everything that must not outlive it names it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def replace_text(path: Path, text: str) -> None:
    """Write the file so that whoever reads it, also after a crash, finds the old text or the new one."""
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)


def preflight(find: Callable[[str], str | None], commands: Sequence[str]) -> None:
    """Raise one sentence about the first thing that the machine lacks for a lab; `find` is AnsibleModule.get_bin_path."""
    if os.geteuid() != 0:
        raise UnifleetError(
            "the lab needs root: it makes network namespaces, mounts and systemd containers", "run it as root, or with sudo"
        )
    missing = [command for command in commands if find(command) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES.get(command, command) for command in missing}))
        raise UnifleetError(f"the lab needs {', '.join(missing)}, which this machine lacks", f"apt-get install {packages}")
    supported = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "overlay" not in supported and not Path("/lib/modules", os.uname().release, "kernel/fs/overlayfs").exists():
        raise UnifleetError("this machine's kernel has no overlay file system, so hosts cannot share a base image")
    for kind in ("mnt", "net", "pid", "uts", "ipc"):
        if not Path("/proc/self/ns", kind).exists():
            raise UnifleetError(f"this machine's kernel has no {kind} namespaces, so it cannot hold lab hosts")


def may_unshare(run: Callable[[Sequence[str]], tuple[int, str, str]]) -> None:
    """Raise when root may not make namespaces or mounts here, as in an ordinary container."""
    status, _output, errors = run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"])
    if status != 0:
        raise UnifleetError(
            f"root may not make namespaces and mounts on this machine: {errors.strip()}",
            "in a container, start it privileged, or use a virtual machine",
        )


def mount_points() -> frozenset[str]:
    """Every mount point of the calling process's mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return frozenset(line.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape") for line in lines)


def processes(group: Path) -> frozenset[int]:
    """The processes in a control group and the groups below it."""
    found: set[int] = set()
    for directory, _below, _files in os.walk(group):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in Path(directory, "cgroup.procs").read_text(encoding="ascii").split())
    return frozenset(found)


def remove_group(group: Path) -> None:
    """Kill everything in a control group and remove it with the groups below it."""
    deadline = time.monotonic() + 20
    while True:
        left = processes(group)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left and _remove_directories(group):
            return
        if time.monotonic() > deadline:
            raise UnifleetError(
                f"control group {group} cannot be removed", f"processes {sorted(left)} do not end" if left else "see what is in it"
            )
        time.sleep(0.05)


def _remove_directories(group: Path) -> bool:
    try:
        for directory, _below, _files in os.walk(group, topdown=False):
            Path(directory).rmdir()
    except FileNotFoundError:
        return not group.exists()
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since boot (proc(5) stat field 22); None when there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
