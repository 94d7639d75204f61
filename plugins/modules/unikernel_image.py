#!/usr/bin/python

# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a unikernel into an OCI image and push it; the packing is module_utils/oci_layout.py, the pushing is skopeo's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unikernel_image
short_description: Pack a unikernel into an OCI image and push it to a registry
version_added: 0.1.0
description:
  - Packs kernels for one or more hypervisors and architectures, an initrd and further files into one ordinary OCI image with a
    C(/unikernel.json), the same bytes for the same input.
  - The image has a manifest for each architecture that a kernel is for, all with the same layer, so that every host pulls the same
    reference and picks its own kernel.
  - Nothing is pushed or written when the registry or directory already has exactly this image.
author:
  - Unifleet developers (@unifleet)
requirements:
  - skopeo, when O(name) is given
attributes:
  check_mode:
    description: Reports what would change without changing it.
    support: full
  diff_mode:
    description: Shows the digest and configuration before and after.
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
      - V(present) packs the image and pushes it.
      - V(absent) removes it from the registry (which must allow deletion) and removes O(layout).
    type: str
    choices: [present, absent]
    default: present
  kernels:
    description:
      - The kernels and programs, by C(HYPERVISOR/ARCHITECTURE) (V(kvm/amd64), V(xen/amd64), V(process/arm64), ...). Each is a file
        on the host that the module runs on.
      - Required with O(state=present).
    type: dict
  family:
    description: The unikernel family, which decides how arguments and network are passed.
    type: str
    default: plain
  initrd:
    description: An initial RAM disk for the kernels.
    type: path
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
    description: The least memory that the guest boots with, such as V(8Mi).
    type: str
  stop:
    description: Whether the guest ends by itself when it is asked to, or can only be killed. Without it the family decides.
    type: str
    choices: [request, kill]
  network:
    description: Whether the guest drives a network interface.
    type: bool
    default: false
  compression:
    description: How the layer is packed. V(none) gives the same bytes even where another zlib is in use.
    type: str
    choices: [gzip, none]
    default: gzip
  validate_certs:
    description: Set to V(false) for a registry that speaks plain HTTP or has a certificate that cannot be checked.
    type: bool
    default: true
  username:
    description: Login name at the registry.
    type: str
  password:
    description: Password at the registry.
    type: str
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

- name: Write the image to a directory only
  unifleet.hybrid.unikernel_image:
    layout: build/humidity-daemon
    kernels:
      kvm/amd64: guest/build/sensor-kvm-amd64

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
  returned: state is present
  type: int
  sample: 26624
"""

import base64
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.validation import check_type_path

from ansible_collections.unifleet.hybrid.plugins.module_utils import oci_layout
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import ImageReference, parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import profile_from

ABSENT = ("manifest unknown", "name unknown", "name_unknown", "not found", "404")


class Registry:
    """skopeo on this host, for one reference."""

    def __init__(self, module: AnsibleModule, reference: ImageReference, work: Path) -> None:
        self._module = module
        self._reference = reference
        self._work = work
        self._skopeo: str = module.get_bin_path("skopeo", required=True)

    def document(self) -> Optional[bytes]:
        """The index or manifest that the registry has under this reference; None when there is none."""
        code, out, err = self._run("inspect", "--raw", f"--tls-verify={self._verify()}", self._url())
        if code == 0:
            return out.encode("utf-8", "surrogateescape")
        if any(sign in err.lower() for sign in ABSENT):
            return None
        raise self._failed("asked for", err)

    def push(self, layout: oci_layout.Layout) -> None:
        """Copy the layout into the registry and see that it arrived as it is."""
        directory = self._work / "layout"
        oci_layout.write(layout, directory, "image")
        policy = self._work / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        source = f"oci:{directory}:image"
        code, _out, err = self._run(
            "--policy",
            str(policy),
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            f"--dest-tls-verify={self._verify()}",
            source,
            self._url(),
        )
        if code != 0:
            raise self._failed("pushed", err)
        arrived = self.document()
        if arrived != layout.blobs[layout.digest]:
            raise UnifleetError(f"{self._reference} is not in the registry as it was pushed", "see whether something else pushes there")

    def delete(self) -> None:
        """Remove the image that the reference names."""
        code, _out, err = self._run("delete", f"--tls-verify={self._verify()}", self._url())
        if code != 0:
            hint = "allow deletion in the registry's configuration" if "405" in err or "unsupported" in err.lower() else ""
            raise self._failed("removed", err, hint)

    def _run(self, *arguments: str) -> tuple[int, str, str]:
        auth = self._work / "auth.json"
        auths = {}
        if self._module.params["username"]:
            login = f"{self._module.params['username']}:{self._module.params['password'] or ''}"
            auths = {self._reference.domain: {"auth": base64.b64encode(login.encode()).decode()}}
        if auths:
            with os.fdopen(os.open(auth, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump({"auths": auths}, file)
        environment = {"REGISTRY_AUTH_FILE": str(auth)} if auths else {}
        result = self._module.run_command([self._skopeo, *arguments], environ_update=environment)
        return int(result[0]), str(result[1]), str(result[2])

    def _url(self) -> str:
        return f"docker://{self._reference}"

    def _verify(self) -> str:
        return "true" if self._module.params["validate_certs"] else "false"

    def _failed(self, done: str, err: str, hint: str = "") -> UnifleetError:
        lines = err.strip().splitlines() or ["skopeo said nothing"]
        if "HTTP response to HTTPS client" in err:
            hint = "set validate_certs=false for a registry that speaks plain HTTP"
        return UnifleetError(f"{self._reference} was not {done}: {lines[-1]}", hint)


def content_of(params: dict[str, Any]) -> oci_layout.ImageContent:
    """The image that the module's parameters describe. Raises UnifleetError naming what is wrong."""
    sources: list[tuple[str, Path, bool]] = []
    kernels = {}
    for target, file in sorted((params["kernels"] or {}).items()):
        folder = "bin" if target.startswith("process/") else "boot"
        path = f"/{folder}/{target.replace('/', '-')}"
        kernels[target] = path
        sources.append((path, Path(check_type_path(file)), True))
    document: dict[str, Any] = {"version": 1, "family": params["family"], "kernels": kernels, "network": params["network"]}
    if params["initrd"]:
        document["initrd"] = "/boot/initrd"
        sources.append(("/boot/initrd", Path(params["initrd"]), False))
    for key in ("memory", "stop"):
        if params[key]:
            document[key] = params[key]
    profile = profile_from(document)
    for target, file in sorted(params["files"].items()):
        source = Path(check_type_path(file))
        sources.append((target, source, os.access(source, os.X_OK)))
    return oci_layout.ImageContent(
        profile=profile,
        files=oci_layout.read_files(sources),
        fixed_args=tuple(params["fixed_args"]),
        args=tuple(params["args"]),
        env=tuple(sorted((str(name), str(value)) for name, value in params["env"].items())),
        labels={str(name): str(value) for name, value in params["labels"].items()},
        compression=params["compression"],
    )


def present(module: AnsibleModule, reference: Optional[ImageReference], directory: Optional[Path], work: Path) -> dict[str, Any]:
    """Pack, and bring registry and directory to it."""
    layout = oci_layout.pack(content_of(module.params))
    tag = (reference.tag if reference else "") or "latest"
    before: Any = None
    changed = False
    if directory is not None and not oci_layout.matches(layout, directory, tag):
        if directory.exists() and any(directory.iterdir()) and not oci_layout.is_layout(directory):
            raise UnifleetError(f"layout {directory} is neither empty nor an OCI image layout", "name another directory")
        changed = True
        if not module.check_mode:
            oci_layout.write(layout, directory, tag)
    if reference is not None:
        registry = Registry(module, reference, work)
        there = registry.document()
        if there != layout.blobs[layout.digest]:
            changed = True
            before = None if there is None else _text(there)
            if not module.check_mode:
                registry.push(layout)
        else:
            before = _text(there)
    result: dict[str, Any] = {"changed": changed, "digest": layout.digest, "size": layout.size}
    if reference is not None:
        result["reference"] = reference.at(layout.digest)
    if module._diff:
        after = oci_layout.summary(layout)
        after["index"] = _text(layout.blobs[layout.digest])
        result["diff"] = {"before": {"index": before} if changed else after, "after": after}
    return result


def absent(module: AnsibleModule, reference: Optional[ImageReference], directory: Optional[Path], work: Path) -> dict[str, Any]:
    """Remove the image from the registry and the directory."""
    result: dict[str, Any] = {"changed": False}
    before: dict[str, Any] = {}
    if directory is not None and directory.exists():
        if not oci_layout.is_layout(directory):
            raise UnifleetError(f"layout {directory} is not an OCI image layout, so it is not removed", "remove it by hand")
        before["layout"] = str(directory)
        result["changed"] = True
        if not module.check_mode:
            shutil.rmtree(directory)
    if reference is not None:
        registry = Registry(module, reference, work)
        there = registry.document()
        if there is not None:
            before["index"] = _text(there)
            result.update(changed=True, digest=oci_layout.digest_of(there))
            result["reference"] = reference.at(result["digest"])
            if not module.check_mode:
                registry.delete()
    if module._diff:
        result["diff"] = {"before": before, "after": {}}
    return result


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
            "kernels": {"type": "dict"},
            "family": {"type": "str", "default": "plain"},
            "initrd": {"type": "path"},
            "files": {"type": "dict", "default": {}},
            "fixed_args": {"type": "list", "elements": "str", "default": []},
            "args": {"type": "list", "elements": "str", "default": []},
            "env": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
            "memory": {"type": "str"},
            "stop": {"type": "str", "choices": ["request", "kill"]},
            "network": {"type": "bool", "default": False},
            "compression": {"type": "str", "choices": ["gzip", "none"], "default": "gzip"},
            "validate_certs": {"type": "bool", "default": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
        },
        required_one_of=[("name", "layout")],
        required_if=[("state", "present", ("kernels",))],
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    try:
        reference = parse_reference(module.params["name"]) if module.params["name"] else None
        if reference is not None and reference.digest:
            raise UnifleetError(f"name {module.params['name']!r} has a digest", "push to a tag; the digest is returned")
        directory = Path(module.params["layout"]) if module.params["layout"] else None
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as work:
            act = present if module.params["state"] == "present" else absent
            module.exit_json(**act(module, reference, directory, Path(work)))
    except UnifleetError as error:
        fail(module, error)


if __name__ == "__main__":
    main()
