# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU that a unikernel runs in: its command line (pure), and its process, which has no more than it needs.

QEMU is started directly. Through libvirt's embedded driver the same machine costs more than 100 ms and 46 MB while it is built, needs a
warm capability cache, hangs under a child sub-reaper with a cold one, and is called experimental by its authors; here everything that
QEMU is to have is an open file that it inherits, so it needs no path, no name and no privilege of its own: a user of its own without
capabilities, no new privileges, its seccomp sandbox with everything denied, and death when the monitor dies.
"""

from __future__ import annotations

import os
import resource
import zlib
from dataclasses import dataclass, field

from ansible_collections.unifleet.hybrid.plugins.host.runu import syscalls
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

QBOOT = "/usr/share/qemu/qboot.rom"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_MIB = 1 << 20


@dataclass(frozen=True)
class Hardware:
    """What a machine is made of. program: QEMU's absolute path. accelerator: kvm or tcg. cpu: QEMU's model name. nic: virtio or QEMU's name
    of another card. debug_exit: the port of an isa-debug-exit device, 0 for none."""

    program: str
    accelerator: str
    cpu: str
    machine: str = "pc"
    architecture: str = "x86_64"
    nic: str = "virtio"
    virtio_console: bool = False
    debug_exit: int = 0


@dataclass(frozen=True)
class Card:
    """A network card. tap: the open tap's descriptor."""

    tap: int
    mac: str
    mtu: int = 1500


@dataclass(frozen=True)
class Machine:
    """One machine. kernel, initrd, console, control: descriptors that QEMU inherits. extra: words of the vm object, when allowed."""

    title: str
    kernel: int
    command_line: str
    memory_bytes: int
    cpus: int
    console: int
    control: int
    initrd: int | None = None
    card: Card | None = None
    disk: tuple[int, str] | None = None
    extra: tuple[str, ...] = field(default_factory=tuple)

    def descriptors(self) -> tuple[int, ...]:
        """Those that QEMU keeps."""
        found = [self.kernel, self.console, self.control, self.initrd, self.card.tap if self.card else None]
        found.append(self.disk[0] if self.disk else None)
        return tuple(number for number in found if number is not None)


def arguments(machine: Machine, hardware: Hardware) -> list[str]:
    """QEMU's argv; the machine is built and waits. Raises UnifleetError for a machine that QEMU cannot be told of."""
    if "\0" in machine.command_line:
        raise UnifleetError("the kernel command line holds a NUL byte", "take it out")
    words = [hardware.program, "-name", _comma(f"guest={machine.title},process=runu-qemu", machine.title), "-S"]
    words += ["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-sandbox", SANDBOX]
    words += ["-machine", _machine_type(hardware), "-cpu", hardware.cpu, "-smp", str(machine.cpus)]
    words += ["-m", f"size={max(1, machine.memory_bytes // _MIB)}M"]
    if hardware.machine in ("pc", "q35"):
        words += ["-bios", QBOOT]
    if hardware.debug_exit and hardware.architecture == "x86_64":
        words += ["-device", f"isa-debug-exit,iobase={hardware.debug_exit:#x},iosize=2"]
    virtio = "device" if hardware.machine in ("microvm", "virt") else "pci"
    words += ["-chardev", f"socket,id=console,fd={machine.console}"]
    if hardware.virtio_console:
        words += ["-device", f"virtio-serial-{virtio}", "-device", "virtconsole,chardev=console"]
    else:
        words += ["-serial", "chardev:console"]
    words += ["-chardev", f"socket,id=control,fd={machine.control}", "-mon", "chardev=control,mode=control"]
    words += ["-kernel", f"/proc/self/fd/{machine.kernel}", "-append", machine.command_line]
    if machine.initrd is not None:
        words += ["-initrd", f"/proc/self/fd/{machine.initrd}"]
    if machine.card:
        words += ["-netdev", f"tap,id=net0,fd={machine.card.tap},vhost=off"]
        model, options = (f"virtio-net-{virtio}", f",host_mtu={machine.card.mtu}") if hardware.nic == "virtio" else (hardware.nic, "")
        rom = ",romfile=" if hardware.nic != "virtio" or virtio == "pci" else ""
        words += ["-device", f"{model},netdev=net0,mac={machine.card.mac}{options}{rom}"]
    if machine.disk:
        number, form = machine.disk
        words += [
            "-add-fd",
            f"fd={number},set=1",
            "-blockdev",
            f"driver={form},node-name=disk0,file.driver=file,file.filename=/dev/fdset/1",
        ]
        words += ["-device", f"virtio-blk-{virtio},drive=disk0"]
    return words + list(machine.extra)


def _machine_type(hardware: Hardware) -> str:
    kind = hardware.machine
    if kind == "microvm":
        kind += ",auto-kernel-cmdline=on,isa-serial=on,rtc=on,acpi=on"
    return (
        f"{kind},accel={hardware.accelerator},usb=off,dump-guest-core=off"
        if kind in ("pc", "q35")
        else f"{kind},accel={hardware.accelerator}"
    )


def _comma(text: str, inner: str) -> str:
    """QEMU's option lists escape a comma by another one."""
    return text.replace(inner, inner.replace(",", ",,"), 1)


def user_of(container: str, first: int, count: int) -> int:
    """The user that this container's QEMU runs as: one of a range that nobody else uses, so that no two machines share theirs."""
    return first + zlib.crc32(container.encode()) % count


def launch(machine: Machine, hardware: Hardware, user: int, errors: int) -> int:
    """Start QEMU as a child of this process. errors: the descriptor that becomes its stderr. Returns its pid."""
    argv = arguments(machine, hardware)
    groups = _groups(hardware)
    mother = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        keep = machine.descriptors()
        for number in keep:
            os.set_inheritable(number, True)
        _close_all_but({0, 1, 2, *keep})
        os.umask(0o077)
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setgroups(groups)
        os.setgid(user)
        os.setuid(user)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)  # after setuid, which clears it
        if os.getppid() == mother:
            os.execve(argv[0], argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    except BaseException as error:
        os.write(2, f"cannot start {argv[0]}: {error}".encode())
    finally:
        os._exit(127)


def _groups(hardware: Hardware) -> list[int]:
    """The group of /dev/kvm, where QEMU needs it and it is not root's."""
    if hardware.accelerator != "kvm":
        return []
    try:
        found = os.stat("/dev/kvm")
    except OSError as error:
        raise UnifleetError("there is no /dev/kvm any more", "load the kvm module, or run `runu probe`") from error
    return [found.st_gid] if found.st_gid and found.st_mode & 0o060 == 0o060 else []


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue
