#!/usr/bin/python

# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a unikernel into an OCI image, push it, copy it, remove it; the packing is module_utils/oci_layout.py, the rest is skopeo's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unikernel_image
short_description: Pack, push, pull, copy or remove a unikernel's OCI image
version_added: 0.1.0
description:
  - Packs kernels for one or more hypervisors and architectures, initrds and further files into one ordinary OCI image with a
    C(/unikernel.json), the same bytes for the same input.
  - The image has a manifest for each architecture that a kernel is for, with the kernels of all its hypervisors, so that every host pulls
    the same reference and picks its own kernel. With O(split) it has one for each hypervisor besides.
  - Instead of packing, an image can be copied as it is from a registry or a directory (O(source)), which pulls, mirrors or promotes it.
  - Nothing is pushed or written when the registry or directory already has exactly this image.
author:
  - Unifleet developers (@unifleet)
extends_documentation_fragment:
  - unifleet.hybrid.images
attributes:
  check_mode:
    description: Reports what would change without changing it. With O(source), the source is asked what it has.
    support: full
  diff_mode:
    description: Shows the digest and configuration before and after.
    support: full
  async:
    description: Give C(async) and C(poll) to see that a long transfer goes on, and to end one that takes too long.
    support: full
options:
  name:
    description:
      - The image reference to push to or to remove, with its registry, such as V(registry.example:5000/humidity-daemon:1.0).
      - Without it only O(layout) is written.
    type: str
  layout:
    description: A directory to write as an OCI image layout, or to remove. It then holds this one image and nothing else.
    type: path
  state:
    description:
      - V(present) packs the image, or takes it from O(source), and brings it where it is to be.
      - V(absent) removes it from the registry (which must allow deletion) and removes O(layout). Other tags of the same image stay.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Copy this image with all its platforms instead of packing one. A reference with its registry, or C(oci:DIRECTORY[:TAG]).
      - A login is used for both registries.
    type: str
  kernels:
    description:
      - The kernels and programs, by C(HYPERVISOR/ARCHITECTURE) (V(kvm/amd64), V(xen/amd64), V(process/arm64), ...). Each is a file
        on the host that the module runs on. V(arm) is 32-bit Arm, version 7.
      - This or O(source) is required with O(state=present).
    type: dict
  family:
    description: The unikernel family, which decides how arguments and network are passed.
    type: str
    default: plain
  initrd:
    description: An initial RAM disk for every kernel that O(initrds) does not name.
    type: path
  initrds:
    description: Initial RAM disks by C(HYPERVISOR/ARCHITECTURE), where kernels need different ones.
    type: dict
    default: {}
  files:
    description: Further files of the image, from path in the image to file on the host that the module runs on.
    type: dict
    default: {}
  fixed_args:
    description: Arguments that the unikernel always gets. They are part of the image's entrypoint.
    type: list
    elements: str
    default: []
  args:
    description: Arguments that the unikernel gets unless the pod gives its own C(args).
    type: list
    elements: str
    default: []
  env:
    description: Environment variables. The pod's win over them.
    type: dict
    default: {}
  labels:
    description: Labels in the image's configuration.
    type: dict
    default: {}
  memory:
    description:
      - The least memory that the guest boots with, such as V(8Mi).
      - A pod that names no memory gets it; one with a lower limit is refused.
    type: str
  stop:
    description: Whether the guest ends by itself when it is asked to, or can only be killed. Without it the family decides.
    type: str
    choices: [request, kill]
  network:
    description: Whether the guest drives a network interface.
    type: bool
    default: false
  hardware:
    description:
      - What kernels need of their machines, by C(HYPERVISOR/ARCHITECTURE). What is left out is the host's choice.
      - C(machine) is one of V(pc), V(q35), V(microvm) for kvm on amd64, V(virt) for kvm on arm64, V(pvh), V(pv), V(hvm) for xen.
      - C(nic) is one of V(virtio), V(e1000), V(e1000e), V(rtl8139) for kvm, as the machine has it, V(netfront) for xen.
      - C(console) is V(serial) or V(virtio) for kvm, V(xen) for xen.
    type: dict
    default: {}
  exit:
    description: What the end of a guest that powered itself off means.
    type: dict
    suboptions:
      prefix:
        description: The console's last line says the exit code when it is this text and a decimal number. Without it the family knows.
        type: str
      codes:
        description: From the code that the guest says to the one that is reported.
        type: dict
      silent:
        description: The code of a guest that said nothing.
        type: int
  family_version:
    description: Version of the unikernel system, such as V(0.16.1), for families whose command line has changed. Without it a current one.
    type: str
  parameters:
    description: Words for the kernel itself, before the arguments, such as V(loglevel=3).
    type: list
    elements: str
    default: []
  tender:
    description:
      - Path in the image of the program that runs the kernels of V(process) targets, for MirageOS on Solo5's hvt and spt.
      - Name the program in O(files) too.
    type: str
  split:
    description:
      - Add a manifest for each hypervisor after those that have all kernels of an architecture, so that agents fetch their own kernel only.
        Stock containerd takes the first ones.
    type: bool
    default: false
  compression:
    description: How the layers are packed. V(none) gives the same bytes even where another zlib is in use.
    type: str
    choices: [gzip, none]
    default: gzip
seealso:
  - module: unifleet.hybrid.unikernel_image_info
"""

EXAMPLES = r"""
- name: Push the humidity daemon for servers and Raspberry Pis
  unifleet.hybrid.unikernel_image:
    name: registry.example:5000/humidity-daemon:1.0
    kernels:
      kvm/amd64: guest/build/sensor-kvm-amd64
      process/amd64: guest/build/sensor-process-amd64
      process/arm64: guest/build/sensor-process-arm64
    fixed_args: [--sensor, humidity]
    memory: 8Mi
  delegate_to: localhost

- name: Push a unikernel that wants a q35, and says its exit code in its own way
  unifleet.hybrid.unikernel_image:
    name: registry.example:5000/router:2
    family: unikraft
    kernels:
      kvm/amd64: build/router_qemu-x86_64
    hardware:
      kvm/amd64: {machine: q35, nic: e1000e}
    exit:
      prefix: "main returned "
      codes: {"255": 1}

- name: Write the image to a directory only
  unifleet.hybrid.unikernel_image:
    layout: build/humidity-daemon
    kernels:
      kvm/amd64: guest/build/sensor-kvm-amd64

- name: Promote an image from the test registry, byte for byte
  unifleet.hybrid.unikernel_image:
    source: test.example:5000/humidity-daemon:1.0
    name: registry.example:5000/humidity-daemon:1.0
  async: 600
  poll: 5

- name: Remove an image from the registry
  unifleet.hybrid.unikernel_image:
    name: registry.example:5000/humidity-daemon:1.0
    state: absent
"""

RETURN = r"""
digest:
  description: The digest of the image, which is that of its index; with O(state=absent), of the image that was removed.
  returned: when there is or was an image
  type: str
  sample: sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865
reference:
  description: The image reference by digest.
  returned: when O(name) is given and there is or was an image
  type: str
  sample: registry.example:5000/humidity-daemon@sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865
size:
  description: Bytes of all blobs.
  returned: state is present and the image was packed
  type: int
  sample: 26624
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.unifleet.hybrid.plugins.module_utils import oci_layout
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import COMPRESSIONS, content_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_module import REGISTRY_ARGUMENTS, registry_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference, parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import ImageRegistry, Source, parse_source


def packed(
    module: AnsibleModule, registry: ImageRegistry, reference: Optional[ImageReference], directory: Optional[Path]
) -> dict[str, Any]:
    """Pack, and bring registry and directory to it."""
    layout = oci_layout.pack(content_of(module.params))
    top = layout.blobs[layout.digest]
    tag = (reference.tag if reference else "") or "latest"
    result: dict[str, Any] = {"changed": False, "digest": layout.digest, "size": layout.size}
    before = _before(registry, reference, directory)
    if directory is not None and not oci_layout.matches(layout, directory, tag):
        result["changed"] = True
        if not module.check_mode:
            oci_layout.write(layout, directory, tag)
    if reference is not None and registry.document(reference) != top:
        result["changed"] = True
        if not module.check_mode:
            registry.push(layout, reference)
    if module._diff:
        after = {**oci_layout.summary(layout), "index": _text(top)}
        result["diff"] = {"before": {"index": before} if result["changed"] else after, "after": after}
    return result


def copied(
    module: AnsibleModule, registry: ImageRegistry, reference: Optional[ImageReference], directory: Optional[Path]
) -> dict[str, Any]:
    """Bring registry and directory to what the source has."""
    source = parse_source(module.params["source"])
    top = registry.look(source)
    if top is None:
        raise UnifleetError(f"source {source} has no such image", "see that this name and tag were pushed")
    digest = oci_layout.digest_of(top)
    tag = (reference.tag if reference else source.reference.tag if source.reference else source.tag) or "latest"
    result: dict[str, Any] = {"changed": False, "digest": digest}
    before = _before(registry, reference, directory)
    if directory is not None and not _has(directory, digest, tag):
        result["changed"] = True
        if not module.check_mode:
            registry.fetch(source, directory, tag)
    if reference is not None and registry.document(reference) != top:
        result["changed"] = True
        if not module.check_mode:
            registry.copy(source, Source(reference))
    if module._diff:
        after = {"digest": digest, "index": _text(top)}
        result["diff"] = {"before": {"index": before} if result["changed"] else after, "after": after}
    return result


def absent(
    module: AnsibleModule, registry: ImageRegistry, reference: Optional[ImageReference], directory: Optional[Path]
) -> dict[str, Any]:
    """Remove the image from the registry and the directory."""
    result: dict[str, Any] = {"changed": False}
    before: dict[str, Any] = {}
    if directory is not None and directory.exists():
        if not oci_layout.is_layout(directory):
            raise UnifleetError(f"layout {directory} is not an OCI image layout, so it is not removed", "remove it by hand")
        before["layout"] = str(directory)
        result["changed"] = True
        if not module.check_mode:
            oci_layout.remove(directory)
    if reference is not None:
        there = registry.document(reference)
        if there is not None:
            before["index"] = _text(there)
            result.update(changed=True, digest=oci_layout.digest_of(there))
            if not module.check_mode:
                registry.delete(reference)
    if module._diff:
        result["diff"] = {"before": before, "after": {}}
    return result


def _before(registry: ImageRegistry, reference: Optional[ImageReference], directory: Optional[Path]) -> Any:
    """What is there now, for the diff; and the directory is one that may be written to."""
    if directory is not None and directory.exists() and any(directory.iterdir()) and not oci_layout.is_layout(directory):
        raise UnifleetError(f"layout {directory} is neither empty nor an OCI image layout", "name another directory")
    if reference is not None:
        there = registry.document(reference)
        return None if there is None else _text(there)
    return None


def _has(directory: Path, digest: str, tag: str) -> bool:
    """Whether the directory is a whole layout of this image alone."""
    try:
        layout = oci_layout.LayoutDirectory(directory)
        if layout.tags() != {tag: digest}:
            return False
        layout.verify(digest)
    except UnifleetError:
        return False
    return True


def _text(document: bytes) -> Any:
    try:
        return json.loads(document)
    except ValueError:
        return document.decode("utf-8", "replace")[:1000]


def fail(module: AnsibleModule, error: UnifleetError) -> NoReturn:
    """The one place where an error becomes the module's failure."""
    module.fail_json(msg=str(error))
    raise SystemExit(1)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "layout": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "str"},
            "kernels": {"type": "dict"},
            "family": {"type": "str", "default": "plain"},
            "initrd": {"type": "path"},
            "initrds": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "fixed_args": {"type": "list", "elements": "str", "default": []},
            "args": {"type": "list", "elements": "str", "default": []},
            "env": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
            "memory": {"type": "str"},
            "stop": {"type": "str", "choices": ["request", "kill"]},
            "network": {"type": "bool", "default": False},
            "hardware": {"type": "dict", "default": {}},
            "exit": {
                "type": "dict",
                "options": {"prefix": {"type": "str"}, "codes": {"type": "dict"}, "silent": {"type": "int"}},
            },
            "family_version": {"type": "str"},
            "parameters": {"type": "list", "elements": "str", "default": []},
            "tender": {"type": "str"},
            "split": {"type": "bool", "default": False},
            "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "gzip"},
            **REGISTRY_ARGUMENTS,
        },
        required_one_of=[("name", "layout")],
        required_if=[("state", "present", ("kernels", "source"), True)],
        mutually_exclusive=[("kernels", "source")],
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    try:
        reference = parse_reference(module.params["name"]) if module.params["name"] else None
        if reference is not None and reference.digest and module.params["state"] == "present":
            raise UnifleetError(f"name {module.params['name']!r} has a digest", "push to a tag; the digest is returned")
        directory = Path(module.params["layout"]) if module.params["layout"] else None
        if module.params["exit"]:
            module.params["exit"] = {key: value for key, value in module.params["exit"].items() if value is not None}
        act = absent if module.params["state"] == "absent" else copied if module.params["source"] else packed
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as work:
            result = act(module, registry_of(module, Path(work)), reference, directory)
        if reference is not None and "digest" in result:
            result["reference"] = reference.at(result["digest"])
        module.exit_json(**result)
    except UnifleetError as error:
        fail(module, error)


if __name__ == "__main__":
    main()
