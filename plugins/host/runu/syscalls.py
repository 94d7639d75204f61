# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few system calls that Python's os module lacks (before 3.12), called through _ctypes: ctypes itself takes 5 ms to import."""

from __future__ import annotations

import os
import struct

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_LIBC: list[int] = []


def _call(name: str, *arguments: object) -> int:
    import _ctypes

    if not _LIBC:
        _LIBC.append(_ctypes.dlopen(None, 2))  # type: ignore[arg-type]  # RTLD_NOW
    ctypes_call = _ctypes.call_function
    return int(ctypes_call(_ctypes.dlsym(_LIBC[0], name), arguments))


def setns(path: str, kind: int) -> None:
    """Put this process into the namespace at path. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        native = getattr(os, "setns", None)
        if native is not None:
            native(descriptor, kind)
        elif _call("setns", descriptor, kind) != 0:
            raise OSError(22, f"setns to {path} failed")
    finally:
        os.close(descriptor)


def unshare(kind: int) -> None:
    """Give this process a namespace of its own. Raises OSError."""
    native = getattr(os, "unshare", None)
    if native is not None:
        native(kind)
    elif _call("unshare", kind) != 0:
        raise OSError(1, "unshare failed")


def prctl(option: int, argument: object) -> None:
    """prctl(2) with one argument. Raises OSError."""
    if _call("prctl", option, argument, 0, 0, 0) != 0:
        raise OSError(22, f"prctl {option} failed")


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open a path below the directory root, symbolic links as if it were / (openat2 with RESOLVE_IN_ROOT, Linux 5.6). Raises OSError."""
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    descriptor = _call("syscall", _OPENAT2, root, os.fsencode(path), how, len(how))
    if descriptor < 0:
        raise OSError(2, f"{path} cannot be opened inside of it")
    return descriptor
