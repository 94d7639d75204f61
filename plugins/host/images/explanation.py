# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host would run of an image, and why: the agent's own store and choice, asked for any hypervisor and architecture."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images.contract import (
    Bootable,
    Image,
    ImageError,
    RegistryCredentials,
    RegistrySettings,
)
from ansible_collections.unifleet.hybrid.plugins.host.images.layout_registry import LayoutRegistry
from ansible_collections.unifleet.hybrid.plugins.host.images.manifests import Choice, choose_entry, digest_of
from ansible_collections.unifleet.hybrid.plugins.host.images.registry import Registry
from ansible_collections.unifleet.hybrid.plugins.host.images.store import ImageStore
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import DOCKER_HUB, ImageReference, parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import Source
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import memory_text


@dataclass(frozen=True)
class Host:
    """The host that is asked about. hypervisor: kvm, xen, process, simulated; "" takes what containerd would."""

    hypervisor: str
    architecture: str
    default_registry: str = DOCKER_HUB
    insecure_registries: tuple[str, ...] = ()
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """An image that was fetched for a host. choice: None when there is no index."""

    source: Source
    digest: str
    choice: Optional[Choice]
    image: Image
    store: ImageStore


@contextmanager
def found(source: Source, host: Host, credentials: Sequence[RegistryCredentials] = ()) -> Iterator[Found]:
    """The image as this host would fetch and unpack it, in a directory that goes when it is left. Raises UnifleetError."""
    with tempfile.TemporaryDirectory(prefix="unikernel-image-") as directory:
        if source.directory is not None:
            layout = LayoutRegistry(source.directory, source.tag)
            registry: Registry = layout
            reference = parse_reference(layout.name())
        else:
            registry = Registry(host.insecure_registries, settings=host.registries)
            reference = source.reference or parse_reference("")
        work = Path(directory, "top")
        work.mkdir()
        top = registry.manifest(reference, credentials, work)
        pinned = ImageReference(reference.domain, reference.path, reference.tag, digest_of(top))
        store = ImageStore(
            Path(directory, "store"),
            host.default_registry,
            host.insecure_registries,
            host.architecture,
            hypervisor=host.hypervisor,
            registry=registry,
        )
        try:
            choice = choose_entry(top, host.architecture, host.hypervisor)
            yield Found(source, digest_of(top), choice, store.pull(str(pinned), "Always", credentials), store)
        except ImageError as error:
            raise UnifleetError(error.message.replace(f"image {pinned}", f"image {source}"), error.hint) from error


def explain(look: Found, host: Host) -> dict[str, Any]:
    """What the host would run, as JSON-able as it gets. Raises UnifleetError when it cannot run any of it."""
    image = look.image
    bootable = look.store.resolve(image, host.hypervisor, host.architecture)
    choice = look.choice
    return {
        "image": str(look.source),
        "digest": look.digest,
        "host": {"hypervisor": host.hypervisor, "architecture": host.architecture},
        "entry": {
            "platform": choice.entry.platform if choice else None,
            "digest": image.digest,
            "why": choice.why if choice else "the image has no index, so there is nothing to choose",
            "others": list(choice.others) if choice else [],
        },
        "kernel": _file(bootable, bootable.kernel) if bootable.target else None,
        "initrd": _file(bootable, bootable.initrd) if bootable.initrd else None,
        "target": bootable.target,
        "why": bootable.why,
        "family": bootable.family,
        "family_version": bootable.family_version,
        "parameters": list(bootable.parameters),
        "tender": bootable.tender,
        "memory": memory_text(bootable.memory_bytes) if bootable.memory_bytes else None,
        "stop": {None: "as the family does", True: "request", False: "kill"}[bootable.can_shut_down],
        "network": bootable.network,
        "hardware": {key: value for key, value in vars(bootable.hardware).items() if value},
        "exit": bootable.exit_rule.document() if bootable.exit_rule else {},
        "entrypoint": list(image.entrypoint),
        "args": list(image.command),
        "env": dict(image.env),
    }


def _file(bootable: Bootable, path: Path) -> dict[str, Any]:
    return {"path": "/" + str(path.relative_to(bootable.image.root)), "size": path.stat().st_size}


def text_of(explanation: dict[str, Any]) -> str:
    """The same for people: one line for each thing."""
    entry, kernel, initrd = explanation["entry"], explanation["kernel"], explanation["initrd"]
    host = explanation["host"]
    lines = [
        ("image", f"{explanation['image']}  {explanation['digest']}"),
        ("host", f"{host['hypervisor']} on {host['architecture']}"),
        ("entry", f"{entry['platform'] or 'the image itself'}  {entry['digest']}"),
        ("", f"because: {entry['why']}"),
        ("others", ", ".join(entry["others"])),
        ("kernel", f"{kernel['path']} ({kernel['size']} bytes)" if kernel else "none"),
        ("", f"because: {explanation['why']}"),
        ("initrd", f"{initrd['path']} ({initrd['size']} bytes)" if initrd else ""),
        ("family", " ".join(filter(None, [explanation["family"], explanation["family_version"]]))),
        ("tender", explanation["tender"]),
        ("parameters", " ".join(explanation["parameters"])),
        ("memory", f"at least {explanation['memory']}" if explanation["memory"] else ""),
        ("stop", {"request": "when asked", "kill": "only by force"}.get(explanation["stop"], explanation["stop"])),
        ("network", "the guest drives a card" if explanation["network"] else ""),
        ("hardware", ", ".join(f"{key} {value}" for key, value in explanation["hardware"].items())),
        ("exit", ", ".join(f"{key} {value!r}" for key, value in explanation["exit"].items())),
        ("entrypoint", " ".join(map(repr, explanation["entrypoint"]))),
        ("args", " ".join(map(repr, explanation["args"]))),
        ("env", " ".join(f"{name}={value!r}" for name, value in explanation["env"].items())),
    ]
    shown = "\n".join(f"{label:<12}{text}" for label, text in lines if text)
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in shown) + "\n"
