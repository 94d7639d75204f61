# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a node beside its pods: fetched before anybody asks, removed when the disk fills up, listed in the Node's status.

Nothing here holds a pod up: prefetching has a thread of its own and goes on one image at a time, and an image that a container uses, is
about to use or used last is never removed. Texts and reasons of events are kubelet's (pkg/kubelet/images/image_gc_manager.go).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.unifleet.hybrid.plugins.host.daemon.together import run_together
from ansible_collections.unifleet.hybrid.plugins.host.images.cache import CachedImage
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.backoff import RETRY
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.image_settings import ImagesConfig
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.pod_spec import default_pull_policy
from ansible_collections.unifleet.hybrid.plugins.host.kubelet.runtime import ContainerRuntime
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError
from ansible_collections.unifleet.hybrid.plugins.module_utils.image_reference import parse_reference

LOG = logging.getLogger("unifleet.images")
IMAGES_MOST = 50
"""kubelet's nodeStatusMaxImages."""
NAMES_MOST = 5
"""kubelet's MaxNamesPerImageInNodeStatus."""
LIST_PERIOD = 30.0

Tell = Callable[[str, str, str], None]


class ImageCare:
    """in_use: the digests that containers have, asked in the event loop; raises UnifleetError or OSError when that cannot be told now.

    tell(type, reason, message): an event about the node. listed: the largest images, as the Node's status shows them.
    """

    def __init__(
        self, runtime: ContainerRuntime, config: ImagesConfig, in_use: Callable[[], Awaitable[Collection[str]]], tell: Tell
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._in_use = in_use
        self._tell = tell
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._looks = ThreadPoolExecutor(1, "image-care")
        self._told = ""
        self.listed: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await run_together([self._collect_for_ever(), self._list_for_ever(), self._prefetch()])
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._looks.shutdown(wait=False, cancel_futures=True)

    async def collect(self) -> None:
        """One look: remove what may go, as far as it must."""
        since = time.time()
        try:
            in_use = await self._in_use()
            done = await self._call(self._runtime.images.collect, self._config.limits, in_use, self._config.prefetch, since)
        except (UnifleetError, OSError) as error:
            self._once("ImageGCFailed", f"images cannot be collected: {error}")
            return
        if done.removed:
            LOG.info("removed %d images, %d bytes: %s", len(done.removed), done.freed, ", ".join(done.removed))
        if done.missing:
            wanted = done.freed + done.missing
            text = "Failed to garbage collect required amount of images. Attempted to free"
            self._once("FreeDiskSpaceFailed", f"{text} {wanted} bytes, but only found {done.freed} bytes eligible to free.")
        else:
            self._told = ""

    async def _collect_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.gc_period)
            await self.collect()

    async def _list_for_ever(self) -> None:
        while True:
            try:
                self.listed = node_images(await self._call(self._runtime.images.images))
            except OSError as error:
                LOG.warning("images cannot be listed: %s", error)
            await asyncio.sleep(LIST_PERIOD)

    async def _prefetch(self) -> None:
        """One after the other; what fails is tried again when the rest is here."""
        waiting, delay = list(self._config.prefetch), 0.0
        said: set[str] = set()
        while waiting:
            await asyncio.sleep(delay)
            failed = []
            for reference in waiting:
                try:
                    image = await self._runtime.fetch(reference, default_pull_policy(reference), (), self._pool)
                    LOG.info("prefetched %s, %s", image.reference, image.digest)
                except (UnifleetError, OSError) as error:
                    failed.append(reference)
                    if str(error) not in said:
                        said.add(str(error))
                        self._tell("Warning", "PrefetchFailed", f'Failed to prefetch image "{reference}": {error}')
            waiting, delay = failed, RETRY.after(delay)

    def _once(self, reason: str, message: str) -> None:
        """An event when the reason is new, a line in the journal each time."""
        LOG.warning("%s", message)
        if self._told != reason:
            self._told = reason
            self._tell("Warning", reason, message)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._looks, function, *arguments)


def node_images(images: Iterable[CachedImage]) -> list[dict[str, Any]]:
    """status.images of a Node: the largest first, digests before tags."""
    result = []
    for image in sorted(images, key=lambda image: (-image.size, image.digest))[:IMAGES_MOST]:
        known = [parse_reference(reference) for reference in image.references]
        names = [*dict.fromkeys(reference.at(image.digest) for reference in known), *(str(r) for r in known if r.tag and not r.digest)]
        if names:
            result.append({"names": names[:NAMES_MOST], "sizeBytes": image.size})
    return result
