# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of an OCI runtime as runc has it, read without argparse, which would cost more than all of `runu kill`.

Globals come before the command and options before or after the operands. What containerd-shim-runc-v2, CRI-O, docker and people say is
accepted; an option that runc has and that means nothing to a unikernel is accepted and dropped; anything else is an error. Beside runc's
syntax there are `create ID BUNDLE` and `kill --signal NAME ID`.
"""

from __future__ import annotations

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_ROOT = "/run/runu"

_GLOBAL_VALUES = frozenset({"root", "log", "log-format", "criu", "rootless"})
_GLOBAL_FLAGS = frozenset({"debug", "systemd-cgroup", "help", "h", "version", "v"})

# Command -> options, those with a value marked by =, and the least and the most operands.
_BUNDLE = "bundle= b= pid-file= console-socket= preserve-fds= pidfd-socket= no-pivot no-new-keyring"
_CRIU = "tcp-established ext-unix-sk shell-job lazy-pages file-locks auto-dedup manage-cgroups-mode= empty-ns= image-path= work-path="
COMMANDS: Mapping[str, tuple[str, int, int]] = {
    "create": (_BUNDLE, 1, 2),
    "start": ("", 1, 1),
    "state": ("", 1, 1),
    "kill": ("signal= s= all a", 1, 2),
    "delete": ("force f", 1, 1),
    "list": ("format= f= quiet q", 0, 0),
    "ps": ("format= f=", 1, 999),
    "pause": ("", 1, 1),
    "resume": ("", 1, 1),
    "update": (
        "resources= r= memory= memory-reservation= memory-swap= kernel-memory= kernel-memory-tcp= blkio-weight= cpu-burst= cpu-idle= "
        "cpu-period= cpu-quota= cpu-rt-period= cpu-rt-runtime= cpu-share= cpuset-cpus= cpuset-mems= "
        "pids-limit= l3-cache-schema= mem-bw-schema=",
        1,
        1,
    ),
    "exec": (
        "process= p= console-socket= pid-file= cwd= env= e= user= u= additional-gids= g= cap= c= apparmor= process-label= cgroup= "
        "preserve-fds= pidfd-socket= tty t detach d no-new-privs ignore-paused no-subreaper",
        1,
        99999,
    ),
    "spec": ("bundle= b= kernel= initrd= memory= family= arg= env= rootless", 0, 1),
    "run": (f"{_BUNDLE} detach d keep no-subreaper", 1, 2),
    "events": ("interval= stats", 1, 1),
    "checkpoint": (f"{_CRIU} parent-path= status-fd= page-server= leave-running pre-dump", 1, 1),
    "restore": (f"{_CRIU} {_BUNDLE} lsm-profile= lsm-mount-context= detach d no-subreaper", 1, 1),
    "features": ("", 0, 0),
    "probe": ("", 0, 0),
    "help": ("", 0, 1),
    "version": ("", 0, 0),
}
_SHORT = {
    "b": "bundle",
    "a": "all",
    "d": "detach",
    "p": "process",
    "q": "quiet",
    "s": "signal",
    "r": "resources",
    "e": "env",
    "u": "user",
    "t": "tty",
}
_REPEATED = frozenset({"arg", "env", "cap", "additional-gids"})


class Command:
    """One call. options: by long name without dashes; flags are "true", what may be repeated is joined by NUL. operands: the rest."""

    __slots__ = ("globals", "name", "operands", "options")

    def __init__(self, name: str, globals_: dict[str, str], options: dict[str, str], operands: list[str]) -> None:
        self.name = name
        self.globals = globals_
        self.options = options
        self.operands = operands

    @property
    def root(self) -> str:
        """The directory that holds a directory for each container."""
        return self.globals.get("root") or DEFAULT_ROOT

    @property
    def container(self) -> str:
        """The container's id. Raises UnifleetError for one that could lead out of the root directory."""
        name = self.operands[0]
        if not 0 < len(name) <= 1024 or name in (".", "..") or any(not (c.isalnum() and c.isascii()) and c not in "_+-." for c in name):
            raise UnifleetError(f"invalid container id {name[:100]!r}", "an id has letters, digits, and the signs _ + - .")
        return name

    def flag(self, name: str) -> bool:
        return self.options.get(name) == "true"


def parse(argv: Sequence[str]) -> Command:
    """The call that argv (without the program) makes. Raises UnifleetError saying what is wrong."""
    words = list(argv)
    globals_ = _options(words, (_GLOBAL_VALUES, _GLOBAL_FLAGS), "runu", None)
    if globals_.get("version") or globals_.get("v"):
        return Command("version", globals_, {}, [])
    if not words or globals_.get("help") or globals_.get("h"):
        return Command("help", globals_, {}, words[:1])
    name = words.pop(0)
    if name not in COMMANDS:
        raise UnifleetError(f"there is no command {name[:100]!r}", "see runu help")
    known, least, most = COMMANDS[name]
    values = frozenset(word[:-1] for word in known.split() if word.endswith("="))
    flags = frozenset(word for word in known.split() if not word.endswith("="))
    operands: list[str] = []
    options = _options(words, (values, flags | {"help", "h"}), f"runu {name}", operands, stop_at_first=name in ("exec", "ps"))
    if options.pop("help", None) or options.pop("h", None) == "true":
        return Command("help", globals_, {}, [name])
    if not least <= len(operands) <= most:
        wanted = "no operand" if most == 0 else "a container id" if least else "at most one operand"
        raise UnifleetError(f"runu {name} wants {wanted}, and got {len(operands)} operands", f"see runu help {name}")
    return Command(name, globals_, {_long(name, key): value for key, value in options.items()}, operands)


def _long(command: str, key: str) -> str:
    if key == "f":
        return "force" if command == "delete" else "format"
    if key in ("g", "c"):
        return "additional-gids" if key == "g" else "cap"
    return _SHORT.get(key, key)


def _options(
    words: list[str], known: tuple[frozenset[str], frozenset[str]], who: str, operands: list[str] | None, stop_at_first: bool = False
) -> dict[str, str]:
    """Take the options from the front of words, in Go's manner (one dash or two, --name value or --name=value).

    Without operands it ends at the first word that is no option; with them, they are collected from between the options.
    """
    values, flags = known
    found: dict[str, str] = {}
    while words:
        word = words[0]
        if not word.startswith("-") or word == "-":
            if operands is None:
                return found
            operands.append(words.pop(0))
            if stop_at_first:
                operands.extend(words)
                words.clear()
            continue
        words.pop(0)
        if word == "--":
            if operands is not None:
                operands.extend(words)
                words.clear()
            return found
        name, equals, value = word.lstrip("-").partition("=")
        if name in values:
            if not equals:
                if not words:
                    raise UnifleetError(f"{who}: option --{name} wants a value", "see runu help")
                value = words.pop(0)
            found[name] = f"{found[name]}\0{value}" if name in _REPEATED and name in found else value
        elif name in flags:
            if equals and value not in ("true", "false"):
                raise UnifleetError(f"{who}: option --{name} is true or false, not {value[:100]!r}", "see runu help")
            found[name] = value or "true"
        else:
            raise UnifleetError(f"{who}: there is no option {word[:100]!r}", "see runu help")
    return found
