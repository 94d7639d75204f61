# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's terminal: a pty whose master goes to whoever listens on the console socket (runc's docs/terminals.md)."""

from __future__ import annotations

import _socket
import array
import os
import termios

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


def open_terminal(console_socket: str) -> int:
    """Make a pty, send its master over the socket, return the slave, raw: what is typed is the guest's. Raises UnifleetError."""
    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave)
        attributes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON | termios.ISTRIP)
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        with_socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            with_socket.connect(_short(console_socket))
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [master]))]
            with_socket.sendmsg([os.ttyname(slave).encode()], ancillary)
        finally:
            with_socket.close()
    except OSError as error:
        os.close(slave)
        raise UnifleetError(
            f"the console socket {console_socket} does not take a terminal: {error.strerror}", "see --console-socket"
        ) from error
    finally:
        os.close(master)
    return slave


def _short(path: str) -> str:
    """A socket's path in fewer than 108 bytes, through its directory."""
    if len(os.fsencode(path)) < 108:
        return path
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{directory}/{os.path.basename(path)}"
