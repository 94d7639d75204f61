#!/usr/bin/python
# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a service's files in one call: each task and each loop item costs a round trip, and a Raspberry Pi feels every one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Write or remove several small files in one call
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Makes files have exactly the given content, owner, group and mode, and other files be absent. Each file is replaced atomically.
  - Made for the handful of files that one service needs, which would else be a loop with a round trip for each.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path of the file. Directories above it are made, with mode 0755, when they are missing.
        type: path
        required: true
      content:
        description: >-
          The whole content. One of O(files[].content), O(files[].base64) and O(files[].secret) is needed unless the file shall be absent.
        type: str
      base64:
        description: The whole content in base64, for a file that is no text.
        type: str
      secret:
        description: The whole content, which is shown neither in the diff nor in logs.
        type: str
      mode:
        description: The mode, as four octal digits.
        type: str
        default: "0644"
      state:
        description: Whether the file shall be there.
        type: str
        choices: [present, absent]
        default: present
  owner:
    description: Owner of all files.
    type: str
    default: root
  group:
    description: Group of all files.
    type: str
    default: root
extends_documentation_fragment:
  - unifleet.hybrid.attributes
"""

EXAMPLES = r"""
- name: Configure the agent
  unifleet.hybrid.host_files:
    files:
      - path: /etc/unifleet/virtual-kubelet.toml
        content: "{{ settings | unifleet.hybrid.to_toml }}"
      - path: /var/lib/unifleet/bootstrap-token
        secret: "{{ token }}"
        mode: "0600"
"""

RETURN = r"""
changed_files:
  description: The paths of the files that were, or in check mode would be, changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/unifleet/virtual-kubelet.toml]
"""

import base64
import binascii
import grp
import hashlib
import os
import pwd
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError


@dataclass(frozen=True)
class Wanted:
    """One file as it shall be; content None means absent."""

    path: Path
    content: Optional[bytes]
    mode: int
    secret: bool
    binary: bool = False


def parse(entry: dict[str, Any]) -> Wanted:
    """Check one entry. Raises UnifleetError that names the file."""
    path = Path(entry["path"])
    if not path.is_absolute() or ".." in path.parts:
        raise UnifleetError(f"{path} is not an absolute path", "write it without ..")
    if not re.fullmatch(r"0[0-7]{3}", entry["mode"]):
        raise UnifleetError(f"{path}: mode {entry['mode']!r} is not four octal digits", 'quote it, as in "0644"')
    given = [entry[key] for key in ("content", "base64", "secret") if entry[key] is not None]
    absent = entry["state"] == "absent"
    if len(given) != (0 if absent else 1):
        raise UnifleetError(f"{path}: give {'no content, base64 or secret' if absent else 'one of content, base64 and secret'}")
    content = None if absent else _decoded(path, given[0]) if entry["base64"] is not None else given[0].encode()
    return Wanted(path, content, int(entry["mode"], 8), entry["secret"] is not None, entry["base64"] is not None)


def _decoded(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnifleetError(f"{path}: base64 is not base64: {error}") from error


def found_at(path: Path) -> tuple[Optional[bytes], Optional[os.stat_result]]:
    """Content and attributes of what is there now."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    if stat.S_ISDIR(status.st_mode):
        raise UnifleetError(f"{path} is a directory", "move it away")
    return (path.read_bytes() if stat.S_ISREG(status.st_mode) else b""), status


def write(module: AnsibleModule, wanted: Wanted, owner: int, group: int) -> None:
    """Replace the file atomically; it never exists with a wider mode than it shall have."""
    if wanted.content is None:
        wanted.path.unlink()
        return
    wanted.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{wanted.path.name}.", dir=wanted.path.parent)
    module.add_cleanup_file(temporary)
    with os.fdopen(handle, "wb") as file:
        file.write(wanted.content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), wanted.mode)
        os.fchown(file.fileno(), owner, group)
    Path(temporary).replace(wanted.path)


def difference(wanted: Wanted, content: Optional[bytes], status: Optional[os.stat_result]) -> dict[str, str]:
    """The diff of one file; of a secret only that it differs."""

    def text(value: Optional[bytes]) -> str:
        if value is None:
            return ""
        if wanted.binary:
            return f"({len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()})\n"
        return "(secret)\n" if wanted.secret else value.decode("utf-8", "replace")

    before, after = text(content), text(wanted.content)
    if wanted.secret and content is not None and content != wanted.content:
        before = "(another secret)\n"
    mode = f" (mode {status.st_mode & 0o7777:04o})" if status else " (absent)"
    after_mode = " (absent)" if wanted.content is None else f" (mode {wanted.mode:04o})"
    return {"before_header": f"{wanted.path}{mode}", "after_header": f"{wanted.path}{after_mode}", "before": before, "after": after}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare and write. Returns the module's result."""
    try:
        owner, group = pwd.getpwnam(module.params["owner"]).pw_uid, grp.getgrnam(module.params["group"]).gr_gid
    except KeyError as error:
        raise UnifleetError(f"this host has no such owner or group: {error}") from error
    changed, diffs = [], []
    for wanted in [parse(entry) for entry in module.params["files"]]:
        content, status = found_at(wanted.path)
        attributes = None if status is None else (status.st_mode & 0o7777, status.st_uid, status.st_gid, stat.S_ISREG(status.st_mode))
        as_wanted = None if wanted.content is None else (wanted.mode, owner, group, True)
        if content == wanted.content and attributes == as_wanted:
            continue
        changed.append(str(wanted.path))
        diffs.append(difference(wanted, content, status))
        if not module.check_mode:
            try:
                write(module, wanted, owner, group)
            except OSError as error:
                raise UnifleetError(f"cannot write {wanted.path}: {error.strerror}") from error
    return {"changed": bool(changed), "changed_files": changed, "diff": diffs}


def main() -> None:
    """Parse, run, answer."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "base64": {"type": "str"},
                    "secret": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0644"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except UnifleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
