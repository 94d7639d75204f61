# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`runu run`: create, start, wait and delete in one, for people at a terminal and for tests; no shim is needed."""

from __future__ import annotations

import os

from ansible_collections.unifleet.hybrid.plugins.host.runu import config, lifecycle, unikernel
from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle
from ansible_collections.unifleet.hybrid.plugins.host.runu.create import create
from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record
from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command
    from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log


def run(command: Command, argv: Sequence[str], log: Log) -> int:
    """Returns the guest's exit code; 0 at once with --detach."""
    from ansible_collections.unifleet.hybrid.plugins.host.runu.main import become_runc

    settings = config.read()
    bundle = Bundle.read(command.options.get("bundle") or (command.operands[1] if len(command.operands) > 1 else "."))
    if not unikernel.is_unikernel(bundle, oci_architecture(os.uname().machine)[0]):
        become_runc(settings.runc, argv)
    create(command, bundle, settings, log)
    record = Record.read(command.root, command.container)
    if record is None:
        raise UnifleetError(f"container {command.container} was deleted before it was started", "run it again")
    code = 0
    try:
        lifecycle.start(record, log)
        if command.flag("detach"):
            return 0
        _pid, status = os.waitpid(record.pid, 0)
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    finally:
        if not command.flag("detach") and not command.flag("keep"):
            lifecycle.delete(record, True, log)
    return code
