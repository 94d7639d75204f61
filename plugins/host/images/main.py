# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""unikernel-image, the command line.

    unikernel-image resolve registry.example/humidity-daemon:1.0 --hypervisor xen --arch arm64

An image is a reference of a registry, or oci:DIRECTORY[:TAG] for an OCI layout. Exit codes: 0, 1 with one line on stderr for what did
not work, 2 for a command line that is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.unifleet.hybrid.plugins.host.images import commands
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_content import COMPRESSIONS
from ansible_collections.unifleet.hybrid.plugins.module_utils.unikernel_profile import ARCHITECTURES, HYPERVISORS

EPILOG = """\
IMAGE is a reference of a registry (registry.example:5000/sensor:1.0; on a node, a name without a registry is looked up where the agent
does), or oci:DIRECTORY[:TAG] for an OCI layout on disk. TARGET is HYPERVISOR/ARCHITECTURE, such as kvm/amd64.

examples:
  unikernel-image pack oci:build/sensor:1.0 --kernel kvm/amd64=sensor.elf --kernel process/arm64=sensor --memory 8Mi
  unikernel-image resolve oci:build/sensor:1.0 --hypervisor process --arch arm64
  unikernel-image push oci:build/sensor:1.0 registry.example:5000/sensor:1.0
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="unikernel-image",
        description="Pack unikernels into OCI images, move them, and say what a host would run of one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-o", "--output", choices=("text", "json"), default="text", help="for people or for programs (default: text)")
    remote = argparse.ArgumentParser(add_help=False)
    remote.add_argument("--insecure", action="store_true", help="the registry speaks plain HTTP, or its certificate cannot be checked")
    remote.add_argument(
        "--authfile", type=Path, metavar="FILE", help="logins as docker and podman keep them (default: where these keep them)"
    )
    kinds = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return kinds.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", parents=[common, *parents])

    _pack(add("pack", "pack kernels and files into an image; the same input gives the same bytes", remote))
    push = add("push", "copy an image to a registry, byte for byte", remote)
    push.add_argument("source", metavar="IMAGE", help="what to copy; mostly oci:DIRECTORY[:TAG]")
    push.add_argument("target", metavar="REFERENCE", help="where to")
    pull = add("pull", "copy an image with all its platforms into an OCI layout", remote)
    pull.add_argument("source", metavar="REFERENCE")
    pull.add_argument("directory", metavar="DIRECTORY", type=Path, help="it is replaced when all has arrived")
    pull.add_argument("--tag", default="", help="tag in the layout (default: the reference's)")
    inspect = add("inspect", "say what an image is, without fetching its layers", remote)
    inspect.add_argument("source", metavar="IMAGE")
    tags = add("list", "list the tags of a repository or layout, or the images that this host has", remote)
    tags.add_argument("source", metavar="IMAGE", nargs="?", help="a repository, with or without a tag (default: this host's cache)")
    remove = add("remove", "remove one tag from a registry, or an OCI layout", remote)
    remove.add_argument("source", metavar="IMAGE")
    host = argparse.ArgumentParser(add_help=False)
    host.add_argument("--hypervisor", choices=HYPERVISORS, help="what the host runs machines with (default: what this node's agent does)")
    host.add_argument("--arch", choices=ARCHITECTURES, help="the host's architecture (default: this machine's)")
    resolve = add("resolve", "say what a host would run of an image, and why", remote, host)
    resolve.add_argument("source", metavar="IMAGE")
    unpack = add("unpack", "unpack an image as a host would see it", remote, host)
    unpack.add_argument("source", metavar="IMAGE")
    unpack.add_argument("directory", metavar="DIRECTORY", type=Path, help="is made; it must not be there, or be empty")
    return top


def _pack(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("target", metavar="IMAGE", help="where to put it: oci:DIRECTORY[:TAG], or a reference to push to")
    say = pack.add_argument
    say("--from", dest="description", type=Path, metavar="FILE", help="JSON in the words of the module unikernel_image; flags win over it")
    say("-k", "--kernel", dest="kernels", action="append", default=[], metavar="TARGET=FILE", help="a kernel, or a program for process")
    say("--initrd", action="append", default=[], metavar="[TARGET=]FILE", help="an initial RAM disk, for all kernels or one")
    say("--file", dest="files", action="append", default=[], metavar="PATH=FILE", help="another file, at this path of the image")
    say("--family", help="how arguments and network are passed (default: plain)")
    say(
        "--fixed-arg",
        dest="fixed_args",
        action="append",
        default=[],
        metavar="ARG",
        help="an argument that the guest always gets (--fixed-arg=--flag)",
    )
    say("--arg", dest="args", action="append", default=[], metavar="ARG", help="an argument unless the pod has args (--arg=--flag)")
    say("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable")
    say("--label", dest="labels", action="append", default=[], metavar="NAME=VALUE", help="a label of the image")
    say("--family-version", metavar="VERSION", help="of the unikernel system, for families whose command line has changed")
    say("--parameter", dest="parameters", action="append", default=[], metavar="WORD", help="a word for the kernel itself")
    say("--tender", metavar="PATH", help="the program in the image that runs the kernels of process targets (Solo5)")
    say("--memory", metavar="QUANTITY", help="the least that the guest boots with, such as 8Mi")
    say("--stop", choices=("request", "kill"), help="whether the guest ends when asked (default: as its family does)")
    say("--network", action="store_true", default=None, help="the guest drives a network card")
    say("--hardware", action="append", default=[], metavar="TARGET:KEY=VALUE", help="machine, nic or console, as in kvm/amd64:machine=q35")
    say("--split", action="store_true", default=None, help="add an entry for each hypervisor after those that have all kernels")
    say("--compression", choices=COMPRESSIONS, help="of layers (default: gzip)")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The program; returns its exit code."""
    options = parser().parse_args(argv)
    try:
        sys.stdout.write(commands.COMMANDS[options.command](options))
        sys.stdout.flush()
    except UnifleetError as error:
        sys.stderr.write(f"unikernel-image: {' '.join(str(error).split())}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"unikernel-image: {error.filename or 'output'}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
