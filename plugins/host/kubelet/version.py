# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this agent is and of which version; the node shows it as kubeletVersion."""

from __future__ import annotations

UNIFLEET_VERSION = "0.1.0"

KUBELET_VERSION = f"v1.20.0+unifleet.{UNIFLEET_VERSION}"
"""The kubelet API that the agent speaks, then whose it is; tools parse this as a Kubernetes version (like v1.30.2+k3s1)."""
