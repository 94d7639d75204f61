# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask dpkg first, and apt only for what is missing: on a Raspberry Pi that is most of the time of a run that changes nothing."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase

ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "list", "elements": "str", "required": True},
    "start": {"type": "bool", "default": True},
}
LISTS_SECONDS = 86400
LOCK_SECONDS = 300
"""An unattended upgrade may hold dpkg's lock for minutes."""
POLICY_FORBIDS = 101
"""invoke-rc.d(8): policy-rc.d's answer "action forbidden by policy"."""


class ActionModule(ActionBase):
    """One module call for a host that has the packages, two for a host that has not."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Returns missing, and apt's own result where apt was asked."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)
        found = self._execute_module("unifleet.hybrid.host_packages", wanted, task_vars=task_vars)
        missing = found.get("missing", [])
        if not missing:
            return {**result, **found}
        if self._task.check_mode:
            diff = {"before": "", "after": "".join(f"{name}\n" for name in missing), "after_header": "packages"}
            return {**result, "changed": True, "missing": missing, "diff": diff}
        arguments = {
            "name": missing,
            "install_recommends": False,
            "update_cache": True,
            "cache_valid_time": LISTS_SECONDS,
            "lock_timeout": LOCK_SECONDS,
            **({} if wanted["start"] else {"policy_rc_d": POLICY_FORBIDS}),
        }
        installed = self._execute_module("ansible.builtin.apt", arguments, task_vars=task_vars)
        return {**result, **installed, "missing": missing}
