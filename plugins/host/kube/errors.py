# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the API server says no."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

Object = dict[str, Any]
"""An API object as the JSON that it is."""


class ApiError(UnifleetError):
    """The API server refused or could not be reached.

    status: the HTTP code, 0 when there was no answer. reason: the Status object's reason (NotFound, Conflict, Forbidden, ...),
    "Unreachable" when there was no answer. retry_after: seconds that the server asked us to wait, 0 when it did not.
    """

    def __init__(self, message: str, status: int, reason: str, retry_after: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed later without anybody doing anything."""
        return self.status in {0, 429} or self.status >= 500


def refusal(request: str, status: int, phrase: str, headers: Mapping[str, str], payload: bytes) -> ApiError:
    """What an answer of 400 or more says. request: "GET /api/v1/nodes"; payload: a Status object, or whatever a proxy in between says."""
    reason, message = phrase, ""
    try:
        answer = json.loads(payload)
        reason = str(answer.get("reason") or reason)
        message = str(answer.get("message") or "")
    except (ValueError, AttributeError):
        message = payload[:200].decode("utf-8", "replace")
    try:
        retry_after = float(headers.get("Retry-After", 0))
    except ValueError:
        retry_after = 0.0
    return ApiError(f"{request}: {status} {reason}: {message}", status, reason, retry_after)


def strip(item: Any) -> None:
    """Drop managedFields: a third of a pod's JSON that nobody here reads."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
