#!/usr/bin/python

# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at an image or list the tags of a repository, without fetching layers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unikernel_image_info
short_description: Look at a unikernel's OCI image, or list the tags of its repository
version_added: 0.1.0
description:
  - Says of an image in a registry or an OCI layout what its index, manifests and configurations say. Layers are not fetched.
  - What kernels an image has comes from the annotation C(io.unifleet.unikernel) of its manifests, which
    M(unifleet.hybrid.unikernel_image) sets. Images that were packed by something else say nothing of kernels here.
author:
  - Unifleet developers (@unifleet)
extends_documentation_fragment:
  - unifleet.hybrid.images
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: N/A
options:
  name:
    description: An image reference with its registry, or C(oci:DIRECTORY[:TAG]).
    type: str
    required: true
  tags:
    description: Also list the tags of the repository.
    type: bool
    default: false
seealso:
  - module: unifleet.hybrid.unikernel_image
"""

EXAMPLES = r"""
- name: Look at the humidity daemon
  unifleet.hybrid.unikernel_image_info:
    name: registry.example:5000/humidity-daemon:1.0
    tags: true
  register: humidity

- name: See that it has a kernel for Xen
  ansible.builtin.assert:
    that: "'xen/amd64' in humidity.image.platforms | map(attribute='kernels') | combine"
"""

RETURN = r"""
exists:
  description: Whether there is such an image.
  returned: success
  type: bool
image:
  description: The image; null when there is none.
  returned: success
  type: dict
  contains:
    digest:
      description: The digest of the index, or of the manifest of an image without one.
      type: str
    size:
      description: Bytes of all blobs.
      type: int
    platforms:
      description:
        - The manifests, in the order of the index. Each has C(platform) (V(linux/arm/v7), V(linux/amd64+xen) for one that is marked for a
          hypervisor), C(digest), C(size), C(layers), C(kernels), C(profile), C(entrypoint), C(args), C(env), C(labels).
      type: list
      elements: dict
tags:
  description: The tags of the repository or layout.
  returned: O(tags) is true
  type: list
  elements: str
"""

import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_module import REGISTRY_ARGUMENTS, registry_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import ImageRegistry, parse_source
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_summary import summary_of, tags_of


def info(registry: ImageRegistry, name: str, tags: bool) -> dict[str, Any]:
    """What the module returns."""
    source = parse_source(name)
    image = summary_of(registry, source)
    result: dict[str, Any] = {"changed": False, "exists": image is not None, "image": image}
    if tags:
        result["tags"] = tags_of(registry, source)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "tags": {"type": "bool", "default": False},
            **REGISTRY_ARGUMENTS,
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    try:
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as work:
            result = info(registry_of(module, Path(work)), module.params["name"], module.params["tags"])
        module.exit_json(**result)
    except UnifleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
