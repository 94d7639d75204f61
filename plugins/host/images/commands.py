# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each command of unikernel-image does; each takes the parsed command line and gives the text to print."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from ansible_collections.unifleet.hybrid.plugins.host.images import explanation
from ansible_collections.unifleet.hybrid.plugins.host.images.cache import ImageCache
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.images.node_settings import NodeSettings, node_settings
from ansible_collections.unifleet.hybrid.plugins.host.images.skopeo_program import progress_is_shown, run_skopeo
from ansible_collections.unifleet.hybrid.plugins.module_utils import oci_layout
from ansible_collections.unifleet.hybrid.plugins.module_utils.architectures import oci_architecture
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import content_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_registry import ImageRegistry, Source, parse_source
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_summary import summary_of, tags_of

_LISTS = ("fixed_args", "args", "parameters")
_PLAIN = ("family", "family_version", "tender", "memory", "stop", "network", "split", "compression")
_PAIRS = ("kernels", "files", "env", "labels")
_KNOWN = (*_LISTS, *_PLAIN, *_PAIRS, "initrd", "initrds", "hardware", "exit")


def pack(options: argparse.Namespace) -> str:
    """Pack, and write a layout or push."""
    layout = oci_layout.pack(content_of(description_of(options)))
    target = _source(options.target)
    if target.directory is not None:
        directory = target.directory
        if directory.exists() and any(directory.iterdir()) and not oci_layout.is_layout(directory):
            raise UnifleetError(f"{directory} is neither empty nor an OCI image layout", "name another directory")
        changed = oci_layout.write(layout, directory, target.tag or "latest")
    else:
        with _registry(options) as registry:
            changed = registry.look(target) != layout.blobs[layout.digest]
            if changed and target.reference is not None:
                registry.push(layout, target.reference, quiet=not progress_is_shown())
    result = {"image": str(target), **oci_layout.summary(layout), "size": layout.size, "changed": changed}
    if options.output == "json":
        return _json(result)
    lines = [f"{target}  {layout.digest}  {layout.size} bytes{'' if changed else ', was there already'}"]
    lines += [f"  {name:<22}{', '.join(sorted(entry['profile']['kernels']))}" for name, entry in result["platforms"].items()]
    return "\n".join(lines) + "\n"


def push(options: argparse.Namespace) -> str:
    """Copy to a registry, unless it has exactly this."""
    source, target = _source(options.source), _source(options.target)
    if target.reference is None or target.reference.digest:
        raise UnifleetError(f"{options.target!r} is not a tag of a registry", "write REGISTRY/NAME:TAG")
    with _registry(options) as registry:
        top = _there(registry, source)
        changed = registry.look(target) != top
        if changed:
            registry.copy(source, target, quiet=not progress_is_shown())
    return _moved(options, target, top, changed)


def pull(options: argparse.Namespace) -> str:
    """Copy into a layout, unless it has exactly this."""
    source = _source(options.source)
    tag = options.tag or (source.reference.tag if source.reference else source.tag) or "latest"
    if options.directory.exists() and any(options.directory.iterdir()) and not oci_layout.is_layout(options.directory):
        raise UnifleetError(f"{options.directory} is neither empty nor an OCI image layout", "name another directory")
    with _registry(options) as registry:
        top = _there(registry, source)
        try:
            layout = oci_layout.LayoutDirectory(options.directory)
            layout.verify(oci_layout.digest_of(top))
            changed = layout.tags() != {tag: oci_layout.digest_of(top)}
        except UnifleetError:
            changed = True
        if changed:
            registry.fetch(source, options.directory, tag, quiet=not progress_is_shown())
    return _moved(options, Source(directory=options.directory, tag=tag), top, changed)


def inspect(options: argparse.Namespace) -> str:
    """Say what an image is."""
    source = _source(options.source)
    with _registry(options) as registry:
        summary = summary_of(registry, source)
    if summary is None:
        raise _absent(source)
    if options.output == "json":
        return _json({"image": str(source), **summary})
    lines = [f"{source}  {summary['digest']}  {summary['size']} bytes"]
    for entry in summary["platforms"]:
        kernels = ", ".join(sorted(entry["kernels"])) or "does not say what kernels it has"
        lines.append(f"  {entry['platform']:<22}{entry['digest']}  {entry['size']} bytes")
        lines.append(f"  {'':<22}{kernels}")
        said = " ".join(map(repr, [*entry["entrypoint"], *entry["args"]]))
        lines += [f"  {'':<22}{said}"] if said else []
    return _printable("\n".join(lines) + "\n")


def list_tags(options: argparse.Namespace) -> str:
    """The tags, one a line; or what the agent's cache has."""
    if options.source is None:
        return _cached(options)
    source = _source(options.source)
    with _registry(options) as registry:
        tags = tags_of(registry, source)
    return _json({"image": str(source), "tags": tags}) if options.output == "json" else _printable("".join(f"{tag}\n" for tag in tags))


def _cached(options: argparse.Namespace) -> str:
    directory = node_settings().image_directory
    images = sorted(ImageCache(directory).images(), key=lambda image: -image.used_at) if directory.is_dir() else []
    if options.output == "json":
        return _json({"directory": str(directory), "images": [dataclasses.asdict(image) for image in images]})
    lines = [
        f"{image.digest}  {image.size:>10}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(image.used_at))}  {', '.join(image.references)}"
        for image in images
    ]
    return _printable("".join(f"{line}\n" for line in lines))


def remove(options: argparse.Namespace) -> str:
    """Remove a tag or a layout; one that is not there is no error."""
    source = _source(options.source)
    changed = False
    if source.directory is not None:
        changed = source.directory.exists()
        if changed:
            oci_layout.remove(source.directory)
    else:
        with _registry(options) as registry:
            changed = registry.look(source) is not None
            if changed and source.reference is not None:
                registry.delete(source.reference)
    said = "removed" if changed else "was not there"
    return _json({"image": str(source), "changed": changed}) if options.output == "json" else f"{source} {said}\n"


def resolve(options: argparse.Namespace) -> str:
    """Say what a host would run."""
    with _found(options) as (look, host):
        said = explanation.explain(look, host)
    return _json(said) if options.output == "json" else explanation.text_of(said)


def unpack(options: argparse.Namespace) -> str:
    """Unpack as a host would see it."""
    directory: Path = options.directory
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UnifleetError(f"{directory} is there already and not empty", "name a new directory")
    with _found(options) as (look, _host):
        shutil.copytree(look.image.root, directory, symlinks=True, dirs_exist_ok=True)
        result = {"image": str(look.source), "digest": look.image.digest, "directory": str(directory)}
    return _json(result) if options.output == "json" else f"{look.source}  {look.image.digest} is in {directory}\n"


COMMANDS: Mapping[str, Callable[[argparse.Namespace], str]] = {
    "pack": pack,
    "push": push,
    "pull": pull,
    "inspect": inspect,
    "list": list_tags,
    "remove": remove,
    "resolve": resolve,
    "unpack": unpack,
}


def description_of(options: argparse.Namespace) -> dict[str, Any]:
    """What is to be packed, in the words of the module. Raises UnifleetError naming the flag or key that is wrong."""
    said: dict[str, Any] = {}
    if options.description is not None:
        try:
            said = json.loads(options.description.read_bytes())
        except ValueError as error:
            raise UnifleetError(f"{options.description} is not JSON: {error}", "write one object") from error
        if not isinstance(said, dict) or set(said) - set(_KNOWN):
            wrong = ", ".join(sorted(set(said) - set(_KNOWN))) if isinstance(said, dict) else "no object"
            raise UnifleetError(f"{options.description} has {wrong}", f"known: {', '.join(_KNOWN)}")
        for key in ("kernels", "files", "env", "labels", "initrds", "hardware", "exit"):
            if not isinstance(said.get(key, {}), dict):
                raise UnifleetError(f"{options.description}: {key} is not an object", "write {...}")
        for key in _LISTS:
            if not isinstance(said.get(key, []), list) or not all(isinstance(word, str) for word in said.get(key, [])):
                raise UnifleetError(f"{options.description}: {key} is not a list of strings", "write [...]")
    for key in _PLAIN:
        if getattr(options, key) is not None:
            said[key] = getattr(options, key)
    for key in _LISTS:
        said[key] = getattr(options, key) or said.get(key, [])
    for key in _PAIRS:
        said[key] = {**said.get(key, {}), **_pairs(getattr(options, key), key)}
    for entry in options.initrd:
        target, equals, file = entry.partition("=")
        if equals and target in said["kernels"]:
            said["initrds"] = {**said.get("initrds", {}), target: file}
        else:
            said["initrd"] = entry
    for entry in options.hardware:
        target, _colon, rest = entry.partition(":")
        key, equals, value = rest.partition("=")
        if not equals:
            raise UnifleetError(f"--hardware {entry!r} is not TARGET:KEY=VALUE", "as in kvm/amd64:machine=q35")
        said.setdefault("hardware", {}).setdefault(target, {})[key] = value
    return said


def credentials_of(path: Optional[Path], domain: str) -> tuple[RegistryCredentials, ...]:
    """The login that docker and podman keep for a registry; none is no error, but a file that was named and cannot be read is."""
    named = path or (Path(os.environ["REGISTRY_AUTH_FILE"]) if os.environ.get("REGISTRY_AUTH_FILE") else None)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    usual = [*([Path(runtime, "containers/auth.json")] if runtime else []), Path.home() / ".docker/config.json"]
    for file in [named] if named else usual:
        try:
            auths = json.loads(file.read_bytes()).get("auths", {})
            login = auths.get(domain) or auths.get(f"https://{domain}") or {}
            if login.get("auth"):
                username, _colon, password = base64.b64decode(login["auth"], validate=True).decode().partition(":")
                return (RegistryCredentials(username, password),)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            if named:
                raise UnifleetError(f"{file} cannot be read: {error}", "name a file that docker or podman login wrote") from error
    return ()


def _source(text: str) -> Source:
    """As parse_source; on a node, a name without a registry means the agent's default registry."""
    return parse_source(text) if text.startswith("oci:") else Source(parse_reference(text, node_settings().default_registry))


@contextmanager
def _found(options: argparse.Namespace) -> Iterator[tuple[explanation.Found, explanation.Host]]:
    node = node_settings()
    hypervisor = options.hypervisor or node.provider
    if not hypervisor:
        raise UnifleetError("it is not known what the host runs machines with", "add --hypervisor, as this machine has no agent")
    source = _source(options.source)
    insecure = node.insecure_registries
    if options.insecure and source.reference is not None:
        insecure = (*insecure, source.reference.domain)
    architecture = options.arch or oci_architecture(platform.machine())[0]
    host = explanation.Host(hypervisor, architecture, node.default_registry, insecure, node.registries)
    logins = credentials_of(options.authfile, source.reference.domain) if source.reference else ()
    with explanation.found(source, host, logins) as look:
        yield look, host


@contextmanager
def _registry(options: argparse.Namespace) -> Iterator[ImageRegistry]:
    node: NodeSettings = node_settings()
    named: Sequence[str] = [getattr(options, key) for key in ("source", "target") if isinstance(getattr(options, key, None), str)]
    domains = {source.reference.domain for source in map(_source, named) if source.reference}
    insecure = options.insecure or (bool(domains) and domains <= set(node.insecure_registries))

    def run(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes, str]:
        extra = {"REGISTRY_AUTH_FILE": str(options.authfile)} if options.authfile else {}
        return run_skopeo(arguments, {**extra, **environment})

    if options.authfile is not None and not options.authfile.is_file():
        raise UnifleetError(f"{options.authfile} does not exist", "name a file that docker or podman login wrote")
    with tempfile.TemporaryDirectory(prefix="unikernel-image-") as work:
        yield ImageRegistry(run, Path(work), validate_certs=not insecure)


def _there(registry: ImageRegistry, source: Source) -> bytes:
    top = registry.look(source)
    if top is None:
        raise _absent(source)
    return top


def _absent(source: Source) -> UnifleetError:
    return UnifleetError(f"there is no image {source}", "see that this name and tag were pushed")


def _moved(options: argparse.Namespace, target: Source, top: bytes, changed: bool) -> str:
    digest = oci_layout.digest_of(top)
    if options.output == "json":
        return _json({"image": str(target), "digest": digest, "changed": changed})
    return f"{target}  {digest}{'' if changed else ', was there already'}\n"


def _pairs(entries: Sequence[str], flag: str) -> dict[str, str]:
    pairs = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise UnifleetError(f"{entry!r} in {flag} is not NAME=VALUE", "put an equals sign between them")
        pairs[name] = value
    return pairs


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
