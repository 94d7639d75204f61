# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are imported when they are first used, for what the libraries of other rooms import and a start of a container never needs.

dataclasses imports inspect for one sentence of documentation, the images room imports what unpacks archives: together that is more than
half of what `runu create` would cost. A stand-in takes the module's place until somebody asks it for something.
"""

from __future__ import annotations

import sys
from types import ModuleType

LATER = ("inspect", "tarfile", "shutil", "hashlib", "bz2", "lzma", "ipaddress", "platform", "tempfile", "subprocess")


class _StandIn(ModuleType):
    """A module that is not imported yet. What is asked of it is asked of the real one."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)  # the import system looks for these, and finds nothing to wait for
        wanted = self.__name__
        if sys.modules.get(wanted) is self:
            del sys.modules[wanted]
        return getattr(__import__(wanted), name)


def postpone() -> None:
    """Put stand-ins where the modules are not imported."""
    for name in LATER:
        if name not in sys.modules:
            sys.modules[name] = _StandIn(name)
