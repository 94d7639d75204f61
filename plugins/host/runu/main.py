# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runu: an OCI runtime for unikernels, for a stock containerd-shim-runc-v2 (BinaryName) and whatever else calls runc.

It decides at once whether a container is a unikernel; if not (pause, sidecars, init containers, ordinary pods) this process becomes runc
with the same arguments. Each call is one short process, so what a command does not need is not imported.
"""

from __future__ import annotations

import gc
import os
import sys

from ansible_collections.unifleet.hybrid.plugins.host.runu import arguments
from ansible_collections.unifleet.hybrid.plugins.host.runu.logfile import Log
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from ansible_collections.unifleet.hybrid.plugins.host.runu.arguments import Command


def main() -> NoReturn:
    """The program. It neither collects garbage nor tears the interpreter down: a process of some milliseconds would take as long again."""
    gc.disable()
    code = run(sys.argv[1:])
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:  # nobody reads what it said
        code = code or 1
    os._exit(code)


def run(argv: Sequence[str]) -> int:
    """Do what argv says. Errors go to stderr and, once, to the log."""
    log = Log()
    try:
        command = arguments.parse(argv)
        log = Log(command.globals.get("log", ""), command.globals.get("log-format", "text") == "json")
        return _dispatch(command, argv, log)
    except UnifleetError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or error} {error.filename or ''}".rstrip()
    log.write("error", message)
    sys.stderr.write(f"runu: {message}\n")
    return 255 if argv and "exec" in argv else 1


def _dispatch(command: Command, argv: Sequence[str], log: Log) -> int:
    name = command.name
    if name == "create":
        return _create(command, argv, log)
    if name in ("start", "state", "kill", "delete", "pause", "resume", "ps", "update", "exec", "events", "checkpoint"):
        return _existing(command, argv, log)
    from ansible_collections.unifleet.hybrid.plugins.host.runu import commands

    return commands.run(command, argv, log)


def _create(command: Command, argv: Sequence[str], log: Log) -> int:
    from ansible_collections.unifleet.hybrid.plugins.host.runu import config, unikernel
    from ansible_collections.unifleet.hybrid.plugins.host.runu.bundle import Bundle

    directory = command.options.get("bundle") or command.options.get("b") or (command.operands[1] if len(command.operands) > 1 else ".")
    bundle = Bundle.read(directory)
    settings = config.read()
    if not unikernel.is_unikernel(bundle, _architecture()):
        if len(command.operands) > 1:
            argv = [*argv[: list(argv).index("create")], "create", "--bundle", bundle.directory, *_kept_options(command), command.container]
        become_runc(settings.runc, argv)
    from ansible_collections.unifleet.hybrid.plugins.host.runu.create import create

    create(command, bundle, settings, log)
    return 0


def _kept_options(command: Command) -> list[str]:
    return [f"--{key}={value}" for key, value in command.options.items() if key != "bundle"]


def _architecture() -> str:
    from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture

    return oci_architecture(os.uname().machine)[0]


def _existing(command: Command, argv: Sequence[str], log: Log) -> int:
    from ansible_collections.unifleet.hybrid.plugins.host.runu import lifecycle
    from ansible_collections.unifleet.hybrid.plugins.host.runu.state import Record

    record = Record.read(command.root, command.container)
    if record is None:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import config

        become_runc(config.read().runc, argv)
    name = command.name
    if name == "start":
        lifecycle.start(record, log)
    elif name == "kill":
        text = command.options.get("signal") or (command.operands[1] if len(command.operands) > 1 else "TERM")
        lifecycle.kill(record, lifecycle.signal_number(text))
    elif name == "delete":
        lifecycle.delete(record, command.flag("force"), log)
    elif name in ("pause", "resume"):
        lifecycle.ask(record, name)
    else:
        from ansible_collections.unifleet.hybrid.plugins.host.runu import commands

        return commands.on_container(command, record, log)
    return 0


def become_runc(program: str, argv: Sequence[str]) -> NoReturn:
    """Never return: this process is runc from here on. Raises UnifleetError when there is none."""
    try:
        os.execvp(program, [program, *argv])
    except OSError as error:
        raise UnifleetError(
            f"this is no unikernel, and {program}, which runs ordinary containers, cannot be run: {error.strerror}",
            "install runc, or name it in /etc/unifleet/runu.json",
        ) from error


if __name__ == "__main__":
    main()
