# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter pause_image: the image of the container that holds a pod's namespaces, for a host that containerd imports it on."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pause_image
short_description: The pause image as an OCI archive
version_added: 0.1.0
author: Unifleet developers (@unifleet)
description:
  - Makes the image, an OCI archive of about 10 KiB, on the controller, so that neither a registry nor a compiler is needed.
positional: architecture
options:
  _input:
    description: The image's name, with its tag.
    type: str
    required: true
  architecture:
    description: The host's architecture as OCI images name it, V(amd64) or V(arm64).
    type: str
    required: true
"""

EXAMPLES = r"""
archive: "{{ 'localhost/unifleet/pause:1' | unifleet.hybrid.pause_image('arm64') }}"
"""

RETURN = r"""
_value:
  description: The archive in base64.
  type: str
"""

import base64
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.pause_program import program


def pause_image(name: str, architecture: str) -> str:
    """The archive in base64; AnsibleFilterError for an architecture that has none."""
    try:
        image = ContainerImage(name, architecture, {"pause": (program(architecture), True)}, entrypoint=("/pause",))
    except UnifleetError as error:
        raise AnsibleFilterError(f"pause_image: {error}") from error
    return base64.b64encode(archive(image)).decode()


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[[str, str], str]]:
        return {"pause_image": pause_image}
