# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large images are: each program for each target as unikernel_image packs it, beside containers of the same program.

The containers are the program as a static Linux binary, alone (FROM scratch), and on a Debian root without documentation. Sizes are what a
host fetches for its platform (manifest, config, compressed layers) and what that unpacks to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import content_of
from ansible_collections.unifleet.hybrid.plugins.module_utils.oci_layout import Layout, pack, platform_name
from ansible_collections.unifleet.hybrid.tools.bench.chart import Bar, Chart, Group
from ansible_collections.unifleet.hybrid.tools.bench.debian_root import ARCHITECTURE, SUITE, Layer, debian_layer
from ansible_collections.unifleet.hybrid.tools.bench.report import Outcome, Progress, Table, bytes_text, ratio_text

BUILDS = Path(__file__).resolve().parents[2] / "guest/build"
PROGRAMS = ("sensor", "caller")
TARGETS = {
    "kvm/amd64": "kvm-amd64",
    "xen/amd64": "xen-amd64",
    "kvm/arm64": "kvm-arm64",
    "process/amd64": "process-amd64",
    "process/arm64": "process-arm64",
    "process/arm": "process-arm",
}
"""Target of an image -> what its build is called after the program's name."""


@dataclass(frozen=True)
class Size:
    """One image for one target. target: "kvm/amd64", or "linux/amd64, all kernels" for the fat image. kernel: bytes of what is booted."""

    program: str
    target: str
    kernel: int
    image: Layer
    scratch: Layer
    debian: Layer

    def figures(self) -> dict[str, object]:
        """For results.json."""
        ratios = {
            name: round(other.compressed / self.image.compressed, 3) for name, other in (("scratch", self.scratch), ("debian", self.debian))
        }
        return {**asdict(self), "compressed_ratio": ratios}


def measure(progress: Progress) -> Outcome:
    """Pack everything and compare."""
    progress("the Debian root (half a minute the first time, then kept)")
    base = debian_layer()
    sizes = []
    for program in PROGRAMS:
        progress(f"images of {program}")
        sizes += sizes_of(program, {target: BUILDS / f"{program}-{build}" for target, build in TARGETS.items()}, base)
    return outcome(sizes)


def sizes_of(program: str, kernels: Mapping[str, Path], base: Layer) -> list[Size]:
    """Of one program: each target's image, then the fat image of each architecture that several targets share."""
    found = []
    for target, kernel in kernels.items():
        scratch = fetched(packed({f"process/{_architecture(target)}": kernels[f"process/{_architecture(target)}"]}))
        image = next(iter(fetched(packed({target: kernel})).values()))
        alone = next(iter(scratch.values()))
        found.append(Size(program, target, kernel.stat().st_size, image, alone, _over(base, alone)))
    for platform, image in fetched(packed(kernels)).items():
        inside = [target for target in kernels if platform_name_of(target) == platform]
        if len(inside) > 1:
            alone = next(size.scratch for size in found if size.target == inside[0])
            total = sum(kernels[target].stat().st_size for target in inside)
            found.append(Size(program, f"{platform}, all kernels", total, image, alone, _over(base, alone)))
    return found


def packed(kernels: Mapping[str, Path]) -> Layout:
    """The image with these kernels, as the module unikernel_image packs it."""
    return pack(content_of({"kernels": {target: str(path) for target, path in kernels.items()}, "network": True}))


def fetched(layout: Layout) -> dict[str, Layer]:
    """Platform -> what a host of it fetches besides the index, and what the layers' files hold."""
    found = {}
    for entry in json.loads(layout.blobs[layout.digest])["manifests"]:
        manifest = json.loads(layout.blobs[entry["digest"]])
        compressed = entry["size"] + manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
        unpacked = sum(_unpacked(layout.blobs[layer["digest"]]) for layer in manifest["layers"])
        found[platform_name(entry["platform"])] = Layer(compressed, unpacked)
    return found


def platform_name_of(target: str) -> str:
    """The platform that hosts of a target ask a registry for."""
    architecture = _architecture(target)
    return "linux/arm/v7" if architecture == "arm" else f"linux/{architecture}"


def outcome(sizes: list[Size]) -> Outcome:
    """The table and the chart."""
    rows = tuple(
        (
            f"{size.program} {size.target}",
            bytes_text(size.kernel),
            *(bytes_text(number) for layer in (size.image, size.scratch, size.debian) for number in (layer.compressed, layer.unpacked)),
            ratio_text(size.scratch.compressed / size.image.compressed),
            ratio_text(size.debian.compressed / size.image.compressed),
        )
        for size in sizes
    )
    columns = ("image", "kernel", "fetched", "unpacked", "scratch container, fetched", "unpacked", "Debian container, fetched", "unpacked")
    note = (
        "Fetched: manifest, config and layers of the platform, gzip -9. Unpacked: the layers as tar files. The containers hold the same"
        " program as a static binary for Linux, alone or on a "
        f"Debian root ({SUITE} minbase for {ARCHITECTURE}, without documentation, translations and package lists), and need a"
        " kernel besides; a unikernel is its own. Ratios are of what is fetched: a container's bytes over the unikernel's."
    )
    table = Table("Image sizes", (*columns, "scratch ratio", "Debian ratio"), rows, note)
    groups = tuple(
        Group(f"{size.program} {size.target}", tuple(Bar(layer.compressed) for layer in (size.image, size.scratch, size.debian)))
        for size in sizes
        if "," not in size.target
    )
    chart = Chart(
        "What a host fetches to run the program",
        "manifest, config and compressed layers for its platform",
        ("unikernel image", "container FROM scratch", f"container on Debian ({SUITE} minbase)"),
        groups,
        bytes_text,
        logarithmic=True,
    )
    return Outcome([size.figures() for size in sizes], (table,), {"sizes": chart})


def _architecture(target: str) -> str:
    return target.partition("/")[2]


def _over(base: Layer, top: Layer) -> Layer:
    return Layer(base.compressed + top.compressed, base.unpacked + top.unpacked)


def _unpacked(layer: bytes) -> int:
    return int.from_bytes(layer[-4:], "little")
