# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread that keeps the CRI logs of all machines up to date.

It sleeps in poll(2) on an inotify descriptor, so an idle host is not woken for its logs; a look at every file each few seconds covers
file systems that tell nothing. Written against inotify itself (ctypes), as Debian's Python has no binding in its standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.machines.cri_log import CriLog

_LOG = logging.getLogger(__name__)
_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_EVENT = struct.Struct("iIII")
_SLOW_LOOK = 5.0
_FAST_LOOK = 0.2
_GATHER = 0.02
"""Seconds that events are gathered for, so that a machine that writes byte by byte does not cost a wake-up each."""


class ConsoleLog:
    """attach() a machine's raw files to a CRI log file; detach() when it has stopped. A context manager; all calls thread-safe.

    After a restart of the agent, attach() with the same paths goes on exactly where the log ends.
    """

    def __init__(self, max_bytes: int = 10 << 20, max_files: int = 5) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lock = threading.RLock()
        self._logs: dict[str, _Attached] = {}
        self._directories: dict[int, set[str]] = {}
        self._inotify = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: Optional[threading.Thread] = None
        self._closed = False

    def __enter__(self) -> ConsoleLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attach(self, key: str, raw: Iterable[tuple[str, Path]], log_path: Path) -> None:
        """Translate these raw files (Machines.raw_console) into log_path from now on. Twice is no error; a new log_path ends the old."""
        files = tuple(raw)
        with self._lock:
            if self._closed:
                return
            present = self._logs.get(key)
            if present is not None and present.log.path == log_path:
                return
            if present is not None:
                self.detach(key)
            attached = _Attached(CriLog(files, log_path, self._max_bytes, self._max_files))
            self._logs[key] = attached
            for directory in {path.parent for _stream, path in files}:
                directory.mkdir(parents=True, exist_ok=True)
                wanted = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
                watch = _LIBC.inotify_add_watch(self._inotify, os.fsencode(directory), wanted) if self._inotify >= 0 else -1
                if watch >= 0:
                    self._directories.setdefault(watch, set()).add(key)
                    attached.watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="console-log", daemon=True)
                self._thread.start()
        attached.pump(key)

    def detach(self, key: str, drain: bool = True) -> None:
        """Stop translating. drain: the machine has stopped; first write all that it wrote, down to a last line without newline."""
        with self._lock:
            attached = self._logs.pop(key, None)
            if attached is None:
                return
            for watch in attached.watches:
                keys = self._directories.get(watch, set())
                keys.discard(key)
                if not keys:
                    self._directories.pop(watch, None)
                    _LIBC.inotify_rm_watch(self._inotify, watch)
        attached.finish(key, drain)

    def close(self) -> None:
        """Stop translating everything; nothing is lost, the next attach() goes on."""
        with self._lock:
            self._closed = True
            keys = list(self._logs)
        for key in keys:
            self.detach(key, drain=False)
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        for fd in (self._inotify, self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if self._inotify >= 0:
            poll.register(self._inotify, select.POLLIN)
        look = _SLOW_LOOK if self._inotify >= 0 else _FAST_LOOK
        while not self._closed:
            ready = poll.poll(look * 1000)
            with self._lock:
                keys = self._told() if ready else set(self._logs)
                logs = [(key, self._logs[key]) for key in keys if key in self._logs]
            for key, attached in logs:
                attached.pump(key)
            if ready and not self._closed:
                threading.Event().wait(_GATHER)

    def _told(self) -> set[str]:
        """The machines that inotify names."""
        try:
            data = os.read(self._inotify, 64 << 10)
        except OSError:
            return set()
        keys: set[str] = set()
        position = 0
        while position + _EVENT.size <= len(data):
            watch, _mask, _cookie, length = _EVENT.unpack_from(data, position)
            keys |= set(self._logs) if watch < 0 else self._directories.get(watch, set())
            position += _EVENT.size + length
        return keys


class _Attached:
    """One log, its lock, and the inotify watches that speak for it."""

    def __init__(self, log: CriLog) -> None:
        self.log = log
        self.watches: set[int] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._troubled = False

    def pump(self, key: str) -> None:
        with self._lock:
            if not self._closed:
                self._pump(key, final=False)

    def finish(self, key: str, drain: bool) -> None:
        with self._lock:
            if drain:
                self._pump(key, final=True)
            self._closed = True
            self.log.close()

    def _pump(self, key: str, final: bool) -> None:
        try:
            self.log.pump(final)
            self._troubled = False
        except OSError as error:
            if not self._troubled:
                _LOG.error("cannot write the log %s of machine %s: %s; it goes on when there is room", self.log.path, key, error)
            self._troubled = True
