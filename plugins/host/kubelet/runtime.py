# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a container of a pod and an image on disk to the machine that runs it, and the paths of its logs.

The first half is pure translation. ContainerRuntime is the thin shell around the provider's and the image store's blocking calls:
each kind runs on threads of its own, so that a slow registry cannot keep a machine from being stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Protocol, TypeVar, Union

from ansible_collections.unifleet.hybrid.plugins.host.guests.contract import Guest, GuestHardware, Network, Platform
from ansible_collections.unifleet.hybrid.plugins.host.guests.mirage import MirageGuest, tender_arguments
from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage
from ansible_collections.unifleet.hybrid.plugins.host.images.collector import Collected, CollectLimits
from ansible_collections.unifleet.hybrid.plugins.host.images.contract import Bootable, Image, RegistryCredentials
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_record import Run, to_metadata
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import Container, Pod
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.settings import PodSettings
from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Interface, Kernel, Machines, MachineSpec, Mount, Program
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

T = TypeVar("T")
VM_KINDS = ("kvm", "xen")


class StepError(UnifleetError):
    """A launch failed at a known step; reason is the container's waiting reason (ErrImagePull, CreateContainerError, ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Images(Protocol):
    """What this file needs of images/store.ImageStore."""

    def pull(self, reference: str, policy: str, credentials: Sequence[RegistryCredentials] = ()) -> Image:
        """The image on disk; an error has a kubelet .reason."""

    def find(self, reference: str) -> Optional[Image]:
        """The image, if it is on disk already."""

    def images(self) -> list[CachedImage]:
        """All that are on disk."""

    def collect(
        self, limits: CollectLimits, in_use: Collection[str], keep: Collection[str] = (), since: Optional[float] = None
    ) -> Collected:
        """Remove what nobody needs."""

    def resolve(self, image: Image, hypervisor: str, architecture: str) -> Bootable:
        """What of it this host runs."""


class Consoles(Protocol):
    """What this file needs of machines/cri_log.ConsoleLog."""

    def attach(self, key: str, raw_files: Sequence[tuple[str, Path]], log_path: Path) -> None:
        """Translate raw output into the CRI log, from where it was left."""

    def detach(self, key: str, drain: bool = True) -> None:
        """Stop; with drain, after what is there was translated."""


@dataclass(frozen=True)
class LogPaths:
    """Where a pod's logs are: ROOT/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log, as kubelet's, with raw consoles beside them."""

    root: Path

    def pod(self, namespace: str, name: str, uid: str) -> Path:
        """One pod's directory."""
        return self.root / f"{namespace}_{name}_{uid}"

    def log(self, pod: Pod, container: str, attempt: int) -> Path:
        """One attempt's log in CRI format."""
        return self.pod(pod.namespace, pod.name, pod.uid) / container / f"{attempt}.log"

    def raw(self, pod: Pod, container: str, attempt: int) -> Path:
        """The directory of what that attempt wrote, byte for byte."""
        return self.pod(pod.namespace, pod.name, pod.uid) / container / f"{attempt}.raw"

    def forget_before(self, pod: Pod, container: str, attempt: int) -> None:
        """Remove what is older than the previous attempt."""
        folder = self.pod(pod.namespace, pod.name, pod.uid) / container
        for path in folder.glob("*") if folder.is_dir() else ():
            number = path.name.lstrip(".").partition(".")[0]
            if number.isdigit() and int(number) < attempt - 1:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


@dataclass
class LogSweeper:
    """Removes the logs of pods that are no more, a while after they went, so that who follows one reads it to its end.

    Only what this agent made is touched (a directory with raw consoles in it), should a kubelet keep its logs in the same place.
    """

    root: Path
    delay: float = 10.0
    unclaimed: dict[str, float] = field(default_factory=dict)

    def sweep(self, claimed: set[str], now: float) -> None:
        """claimed: UIDs of the pods that have a worker or a machine; now: seconds."""
        names = {path.name for path in self.root.iterdir()} if self.root.is_dir() else set()
        loose = {name for name in names if name.count("_") >= 2 and name.rpartition("_")[2] not in claimed}
        self.unclaimed = {name: self.unclaimed.get(name, now) for name in loose}
        for name, since in self.unclaimed.items():
            if now >= since + self.delay and any((self.root / name).glob("*/*.raw")):
                shutil.rmtree(self.root / name, ignore_errors=True)


def words(container: Container, image: Image) -> tuple[str, ...]:
    """The command that runs: command replaces the image's entrypoint and command, args its command alone."""
    if container.command:
        return container.command + container.args
    return image.entrypoint + (container.args or image.command)


def environment(container: Container, image: Image) -> tuple[tuple[str, str], ...]:
    """The image's variables, then the pod's, which win."""
    merged = dict(image.env)
    for name, value in container.env:
        merged.pop(name, None)
        merged[name] = value
    return tuple(merged.items())


def program(container: Container, bootable: Bootable) -> Program:
    """What a process provider runs. An image with kernels runs the one for processes; a plain one runs its command."""
    image = bootable.image
    argv = words(container, image)
    if image.profile is not None:
        try:
            name = "/" + str(bootable.kernel.relative_to(image.root))
        except ValueError as error:
            raise StepError("CreateContainerError", f"image {image.reference}: its program {bootable.kernel} is outside of it") from error
        argv = _under_tender(container, bootable, name) if bootable.tender else (name, *guest_arguments(container, image))
    if not argv:
        raise StepError("CreateContainerError", f"image {image.reference} says no command to run, and {container.path} has none either")
    if container.run_as_non_root and image.user.partition(":")[0] in {"0", "root"}:
        raise StepError("CreateContainerConfigError", f"{container.path}: runAsNonRoot, but image {image.reference} will run as root")
    return Program(image.root, argv, environment(container, image), container.working_dir or image.working_directory or "/", image.user)


def _under_tender(container: Container, bootable: Bootable, kernel_path: str) -> tuple[str, ...]:
    """A Solo5 unikernel is the argument of its tender, and its line is MirageOS's."""
    guest, args = MirageGuest(), guest_arguments(container, bootable.image)
    memory = container.resources.memory_bytes(bootable.memory_bytes) or guest.hardware(Platform("process")).memory_bytes
    try:
        said = guest.words(args, guest_environment(container, bootable.image), None, platform_of(bootable))
        return tender_arguments(bootable.tender, kernel_path, said, memory_bytes=memory, taps={}, devices=bootable.devices)
    except UnifleetError as error:
        raise StepError("CreateContainerConfigError", f"{container.path}: {error}") from error


def guest_environment(container: Container, image: Image) -> list[tuple[str, str]]:
    """A unikernel's variables: all but PATH, which build tools put into every image."""
    return [(name, value) for name, value in environment(container, image) if name != "PATH"]


def platform_of(bootable: Bootable) -> Platform:
    """What of the host and the image a unikernel's command line depends on."""
    return Platform(
        hypervisor=bootable.hypervisor,
        architecture=bootable.architecture,
        version=bootable.family_version,
        initrd=bootable.initrd is not None,
        parameters=bootable.parameters,
    )


def guest_arguments(container: Container, image: Image) -> tuple[str, ...]:
    """A unikernel's arguments: the command without its first word, which is the unikernel itself."""
    argv = words(container, image)
    return argv[1:] if container.command or image.entrypoint else argv


def kernel(container: Container, bootable: Bootable, guest: Guest, network: Optional[Network]) -> Kernel:
    """What a hypervisor boots."""
    image = bootable.image
    platform = platform_of(bootable)
    try:
        line = guest.command_line(guest_arguments(container, image), guest_environment(container, image), network, platform)
    except UnifleetError as error:
        raise StepError("CreateContainerConfigError", f"{container.path}: {error}") from error
    can_shut_down = guest.can_shut_down if bootable.can_shut_down is None else bootable.can_shut_down
    usual = guest.hardware(platform)
    return Kernel(
        bootable.kernel,
        line,
        bootable.initrd,
        can_shut_down,
        guest.exit_code,
        replace(bootable.hardware, machine=bootable.hardware.machine or usual.machine),
        bootable.exit_rule,
        usual.debug_exit,
    )


def mac_of(key: str) -> str:
    """A stable address in QEMU's range."""
    digest = hashlib.sha256(key.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def memory_for(container: Container, bootable: Bootable, usual: Optional[GuestHardware]) -> int:
    """Bytes to give. A VM that was given less than its image needs would only fail to boot, so that is refused.

    usual: what the image's family says; None for a program.
    """
    if usual is None:
        return container.resources.memory_bytes(0)
    least = bootable.memory_bytes or usual.memory_least
    size = container.resources.memory_bytes(bootable.memory_bytes or usual.memory_bytes)
    if size < least:
        raise StepError(
            "CreateContainerConfigError",
            f"{container.path}.resources: {size} bytes of memory, but image {bootable.image.reference} needs {least}",
        )
    return size


@contextlib.contextmanager
def _image_step() -> Iterator[None]:
    """What goes wrong with an image is a step with the reason that the image store gives."""
    try:
        yield
    except (UnifleetError, OSError) as error:
        raise StepError(getattr(error, "reason", "") or "ErrImagePull", str(error)) from error


class ContainerRuntime:
    """The provider, the images and the logs of one node. Blocking calls go through call() and pull()."""

    def __init__(
        self,
        machines: Machines,
        images: Images,
        consoles: Optional[Consoles],
        guest_of: Callable[[str], Guest],
        settings: PodSettings,
    ) -> None:
        self.machines = machines
        self.images = images
        self.consoles = consoles
        self.guest_of = guest_of
        self.settings = settings
        self.logs = LogPaths(settings.log_directory)
        self.vm = machines.kind in VM_KINDS
        self._pool = ThreadPoolExecutor(settings.workers, "machines")
        self._pulls = ThreadPoolExecutor(settings.pulls, "pulls")
        self._looks = ThreadPoolExecutor(1, "images")
        self._flights: dict[tuple[Any, ...], asyncio.Future[Image]] = {}

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a provider's call on the pool for machines."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def find(self, reference: str) -> Optional[Bootable]:
        """The image that is on disk, chosen for this host; None when it is not. Never waits for a pull. Raises StepError."""
        with _image_step():
            image = await self.image_call(self.images.find, reference)
            return None if image is None else self._chosen(image)

    async def pull(self, reference: str, policy: str, credentials: Sequence[RegistryCredentials]) -> Bootable:
        """The image, on disk and chosen for this host. Raises StepError."""
        with _image_step():
            return self._chosen(await self.fetch(reference, policy, credentials, self._pulls))

    async def fetch(
        self, reference: str, policy: str, credentials: Sequence[RegistryCredentials], pool: Optional[ThreadPoolExecutor] = None
    ) -> Image:
        """The image, on disk. Callers that want the same with the same logins share one pull, which goes on when one of them gives up.

        A shared pull takes one thread, so that many pods of a slow image leave the others free. Raises UnifleetError.
        """
        key = (reference, policy, tuple(credentials))
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().run_in_executor(pool or self._pulls, self.images.pull, reference, policy, credentials)
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: tuple[Any, ...], flight: asyncio.Future[Image]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen here, should nobody wait for it any more

    async def image_call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a call that only looks at the images on disk, beside all pulls."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, function, *arguments)

    def _chosen(self, image: Image) -> Bootable:
        return self.images.resolve(image, self.machines.kind, self.settings.architecture)

    def machine_spec(
        self,
        pod: Pod,
        container: Container,
        bootable: Bootable,
        run: Run,
        *,
        mounts: tuple[Mount, ...],
        interface: Optional[Interface],
        nameservers: tuple[str, ...] = (),
    ) -> MachineSpec:
        """What prepare() gets. Raises StepError."""
        boot: Union[Program, Kernel]
        usual: Optional[GuestHardware] = None
        if self.vm:
            network = Network(interface.address, interface.gateway, nameservers) if interface else None
            try:
                guest = self.guest_of(bootable.family)
            except UnifleetError as error:
                raise StepError("CreateContainerConfigError", str(error)) from error
            boot = kernel(container, bootable, guest, network)
            usual = guest.hardware(platform_of(bootable))
        else:
            boot = program(container, bootable)
        return MachineSpec(
            key=pod.key_of(container.name),
            title=f"{pod.title}/{container.name}",
            boot=boot,
            log_directory=self.logs.raw(pod, container.name, run.number),
            metadata=to_metadata(pod, container.name, run),
            memory_bytes=memory_for(container, bootable, usual),
            cpu_millis=container.resources.cpu_millis,
            mounts=mounts,
            interface=interface,
        )

    def attach_log(self, pod: Pod, container: str, attempt: int) -> None:
        """Have the attempt's output translated into its log (goes on where it was when the agent ended)."""
        if self.consoles:
            key = pod.key_of(container)
            raw = self.machines.raw_console(key, self.logs.raw(pod, container, attempt))
            self.consoles.attach(key, raw, self.logs.log(pod, container, attempt))

    def detach_log(self, key: str) -> None:
        """The machine has stopped: translate the rest."""
        if self.consoles:
            self.consoles.detach(key, drain=True)

    def close(self) -> None:
        """Let go of the threads; what they do now is finished, what waits is not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pulls.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)
