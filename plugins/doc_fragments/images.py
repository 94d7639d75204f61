# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say how to reach a registry, written once."""

from __future__ import annotations


class ModuleDocFragment:
    """Modules that use a registry."""

    DOCUMENTATION = r"""
requirements:
  - skopeo, when a registry is named
attributes:
  action_group:
    support: full
    membership:
      - unifleet.hybrid.images
    description: Use C(group/unifleet.hybrid.images) in C(module_defaults) to say once how the registry is reached.
options:
  validate_certs:
    description: Set to V(false) for a registry that speaks plain HTTP or has a certificate that cannot be checked.
    type: bool
    default: true
  username:
    description: Login name at the registry. Without it the environment variable E(UNIFLEET_REGISTRY_USERNAME) is used.
    type: str
  password:
    description: Password at the registry. Without it the environment variable E(UNIFLEET_REGISTRY_PASSWORD) is used.
    type: str
"""
