# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node without a kubelet: stock containerd with its CRI plugin, runc and runu as runtimes, and a pod network by the stock CNI plugins.

The test stands where the kubelet does, on the CRI's socket, and speaks gRPC (cri.proto). containerd runs in a network namespace of its
own, and the pods' namespaces are below its state directory: what is left over there is a leak of this node and of no other. Its
configuration is written by the code that configures it on real nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import grpc
from runu_host import group_directories, leaks_below, remove_groups, wait_for
from stock_containerd import Containerd

from ansible_collections.unifleet.hybrid.plugins.module_utils import containerd_settings, toml_edit
from ansible_collections.unifleet.hybrid.plugins.module_utils.container_image import ContainerImage, archive
from ansible_collections.unifleet.hybrid.plugins.module_utils.containerd_settings import CriSettings, Runtime
from ansible_collections.unifleet.hybrid.plugins.module_utils.pause_program import program

PAUSE = "localhost/unifleet/pause:1"
NETWORK = "10.211.43.0/24"
"""Of a bridge in the node's own namespace; no other node sees it."""
CNI_PROGRAMS = "/usr/lib/cni"
"""Of Debian's containernetworking-plugins."""
CALL_SECONDS = 60
FORWARDED = """
import aiohttp, asyncio, sys
async def main():  # as the kubelet's callers may: a channel for data, one for errors; the first frame of each says the port
    said = {0: b"", 1: b""}
    async with aiohttp.ClientSession() as session, session.ws_connect(sys.argv[1], protocols=["v4.channel.k8s.io"]) as stream:
        await stream.send_bytes(b"\\0GET / HTTP/1.0\\r\\n\\r\\n")
        async for frame in stream:
            said[frame.data[0]] += frame.data[1:]
    print((said[0][2:] or said[1][2:]).decode())
asyncio.run(asyncio.wait_for(main(), 20))
"""


class RefusedError(Exception):
    """containerd's answer to a call was an error. code: gRPC's name for it."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.code = error.code().name


class Cri:
    """The CRI's socket: each call is a method that takes the request's fields; nested messages are plain dicts."""

    def __init__(self, socket: Path) -> None:
        self.messages, services = grpc.protos_and_services("cri.proto")
        self.channel = grpc.insecure_channel(f"unix://{socket}")
        self.services = {"ImageStatus": services.ImageServiceStub(self.channel)}
        self.runtime = services.RuntimeServiceStub(self.channel)
        self.requests = {
            method.name: method.input_type.name
            for service in self.messages.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }

    def __call__(self, method: str, **fields: Any) -> Any:
        """Raises RefusedError."""
        request = getattr(self.messages, self.requests[method])(**fields)
        try:
            return getattr(self.services.get(method, self.runtime), method)(request, timeout=CALL_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise RefusedError(error) from None

    def close(self) -> None:
        self.channel.close()


@dataclass
class CriContainerd(Containerd):
    """containerd with its CRI plugin on. runu: the program. network: the namespace it runs in."""

    namespace: str = "k8s.io"
    runu: Path = Path("/nowhere")
    network: str = ""

    @property
    def runtime_root(self) -> Path:
        """Where the shims tell the runtimes to keep their state."""
        return self.directory / "runtimes"

    def configuration(self) -> str:
        """As the roles containerd and runu would write it for this program, with directories of the test's own."""
        version = containerd_settings.program_version(self.version())
        text = containerd_settings.fresh(version)
        number = containerd_settings.file_version(containerd_settings.read(text, "config"), "config")
        text += f"root = '{self.directory}/root'\nstate = '{self.directory}/state'\n\n[grpc]\naddress = '{self.directory}/s.sock'\n"
        settings = CriSettings(PAUSE, CNI_PROGRAMS, str(self.directory / "cni"), systemd_cgroup=False, restrict_oom_score_adj=True)
        text = containerd_settings.with_settings(text, number, settings, "config")
        root = {"Root": str(self.runtime_root)}
        runu = Runtime("runu", options={**root, "BinaryName": str(self.runu)}, pod_annotations=("io.unifleet.*",))
        for runtime in (Runtime("runc", options=root), runu):
            text = containerd_settings.with_runtime(text, number, runtime, "config")
        plugin = containerd_settings.V2 if number < 3 else containerd_settings.V3_RUNTIME
        return toml_edit.put_table(text, plugin, {"netns_mounts_under_state_dir": True})

    def command(self) -> list[str]:
        """In the namespace, and in nothing else of it: `ip netns exec` would hide the control groups."""
        return ["nsenter", f"--net=/run/netns/{self.network}", *super().command()]


@dataclass
class Container:
    """A container of a pod."""

    pod: Pod
    name: str
    id: str

    @property
    def node(self) -> CriNode:
        return self.pod.node

    @property
    def log(self) -> Path:
        return self.node.logs / self.pod.name / f"{self.name}.log"

    def start(self) -> Container:
        self.node.cri("StartContainer", container_id=self.id)
        return self

    def stop(self, seconds: int) -> None:
        self.node.cri("StopContainer", container_id=self.id, timeout=seconds)

    def remove(self) -> None:
        self.node.cri("RemoveContainer", container_id=self.id)

    def status(self) -> Any:
        return self.node.cri("ContainerStatus", container_id=self.id).status

    def state(self) -> str:
        """CREATED, RUNNING, EXITED or UNKNOWN."""
        return str(self.node.cri.messages.ContainerState.Name(self.status().state)).removeprefix("CONTAINER_")

    def ended(self, seconds: float = 30) -> Any:
        """Wait for its end; the status then."""
        wait_for(f"the end of {self.name}", lambda: self.state() == "EXITED", seconds)
        return self.status()

    def pid(self) -> int:
        """Of its process on the host."""
        info = self.node.cri("ContainerStatus", container_id=self.id, verbose=True).info["info"]
        return int(json.loads(info)["pid"])

    def exec(self, *command: str) -> Any:
        return self.node.cri("ExecSync", container_id=self.id, cmd=command, timeout=10)

    def said(self) -> str:
        """What it printed, without what the log says of each line."""
        return "\n".join(line.split(" ", 3)[3] for line in logged(self.log))

    def readings(self) -> int:
        return self.said().count("value=")

    def limit(self, *names: str) -> str:
        """What is in the first of these files that its control group has, of whichever version."""
        places = group_directories(f"{self.node.group}/{self.pod.name}/{self.id}")
        return next((place / name).read_text() for name in names for place in places if (place / name).exists()).split()[0]

    def processes(self) -> dict[str, int]:
        """Command -> pid of the processes in its group."""
        pids = (group_directories(f"{self.node.group}/{self.pod.name}/{self.id}")[0] / "cgroup.procs").read_text().split()
        return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in pids}


def logged(path: Path) -> list[str]:
    """The whole lines of a log."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text.split("\n")[:-1]


@dataclass
class Pod:
    """A pod sandbox."""

    node: CriNode
    name: str
    config: Mapping[str, Any]
    id: str

    def address(self) -> str:
        return str(self.node.cri("PodSandboxStatus", pod_sandbox_id=self.id).status.network.ip)

    def create(self, name: str, image: str, *args: str, command: Sequence[str] = (), **resources: int) -> Container:
        """CreateContainer. resources: of LinuxContainerResources."""
        config = {
            "metadata": {"name": name},
            "image": {"image": image},
            "command": command,
            "args": args,
            "log_path": f"{name}.log",
            "linux": {"resources": resources, "security_context": {"namespace_options": {"pid": "CONTAINER"}}},
        }
        answer = self.node.cri("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return Container(self, name, answer.container_id)

    def start(self, name: str, image: str, *args: str, **more: Any) -> Container:
        return self.create(name, image, *args, **more).start()

    def stop(self) -> None:
        self.node.cri("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self) -> None:
        self.node.cri("RemovePodSandbox", pod_sandbox_id=self.id)


@dataclass
class CriNode:
    """A node. group: the control group that its pods are below."""

    containerd: CriContainerd
    group: str
    config: Path
    cri: Cri = field(init=False)
    pods: int = 0

    @property
    def logs(self) -> Path:
        return self.containerd.directory / "logs"

    def open(self) -> None:
        """Make the network namespace, start containerd, wait for its CRI plugin, and give it the image that every pod needs."""
        namespace, directory = self.containerd.network, self.containerd.directory
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        plugin = {"type": "bridge", "bridge": "pods", "isGateway": True}
        addresses = {"type": "host-local", "dataDir": str(directory / "addresses"), "ranges": [[{"subnet": NETWORK}]]}
        conf = {"cniVersion": "0.4.0", "name": "cri", "plugins": [{**plugin, "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]}}]}
        (directory / "cni").mkdir()
        (directory / "cni/10-cri.conflist").write_text(json.dumps(conf))
        self.start()
        pause = directory / "pause.tar"
        pause.write_bytes(archive(ContainerImage(PAUSE, "amd64", {"pause": (program("amd64"), True)}, entrypoint=("/pause",))))
        self.add_image(PAUSE, pause)

    def start(self) -> None:
        self.containerd.start()
        self.cri = Cri(self.containerd.directory / "s.sock")
        wait_for("the CRI plugin", self.ready, 30)

    def ready(self) -> bool:
        try:
            conditions = self.cri("Status").status.conditions
        except RefusedError:
            return False
        return all(condition.status for condition in conditions if condition.type in ("RuntimeReady", "NetworkReady"))

    def restart(self, *, crash: bool) -> None:
        self.cri.close()
        self.containerd.stop(crash=crash)
        self.start()

    def add_image(self, reference: str, tar: Path) -> None:
        """Import an archive and wait until the CRI plugin knows of it."""
        self.containerd.ctr("images", "import", "--base-name", reference.rpartition(":")[0], str(tar))
        wait_for(f"image {reference}", lambda: self.cri("ImageStatus", image={"image": reference}).image.id, 20)

    def pod(self, *, handler: str = "runu", group_limit: Optional[int] = None, annotations: Optional[Mapping[str, str]] = None) -> Pod:
        """RunPodSandbox. group_limit: bytes that all of the pod may use, as the kubelet sets it for a pod with limits."""
        self.pods += 1
        name = f"pod{self.pods}"
        parent = f"{self.group}/{name}"
        if group_limit is not None:
            for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
                if (top / "cgroup.procs").exists():
                    made = top / parent.strip("/")
                    made.mkdir(parents=True)
                    limit = made / ("memory.limit_in_bytes" if top.name == "memory" else "memory.max")
                    limit.write_text(str(group_limit))
                    break
        config = {
            "metadata": {"name": name, "uid": str(uuid.uuid4()), "namespace": "default"},
            "hostname": name,
            "log_directory": str(self.logs / name),
            "annotations": annotations or {},
            "linux": {"cgroup_parent": parent, "security_context": {"namespace_options": {"pid": "CONTAINER"}}},
        }
        answer = self.cri("RunPodSandbox", config=config, runtime_handler=handler)
        return Pod(self, name, config, answer.pod_sandbox_id)

    def fetch(self, address: str, port: int = 80) -> str:
        """An HTTP answer from a pod, asked for by the node."""
        ask = f"import urllib.request as r; print(r.urlopen('http://{address}:{port}/', timeout=5).read().decode(), end='')"
        command = ["nsenter", f"--net=/run/netns/{self.containerd.network}", sys.executable, "-I", "-c", ask]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def forwarded(self, pod: Pod, port: int) -> str:
        """What answers when the CRI forwards a port of the pod, as kubectl port-forward has it: an HTTP answer, or an error's text."""
        url = self.cri("PortForward", pod_sandbox_id=pod.id, port=[port]).url
        command = ["nsenter", f"--net=/run/netns/{self.containerd.network}", sys.executable, "-I", "-c", FORWARDED, url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def shims(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("containerd-shim-runc-v2") and str(self.containerd.directory / "s.sock") in words:
                    found.append(int(process.name))
        return found

    def leaks(self) -> list[str]:
        """What pods left behind."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        found = [f"mount {path}" for path in mounts if path.startswith(str(self.containerd.directory))]
        state = self.containerd.runtime_root / self.containerd.namespace
        found += [f"state {path}" for path in (state.iterdir() if state.is_dir() else ())]
        leases = self.containerd.directory / "addresses/cri"
        found += [f"address {path.name}" for path in (leases.glob("[0-9]*") if leases.is_dir() else ())]
        links = subprocess.run(["ip", "-n", self.containerd.network, "-o", "link"], check=True, capture_output=True, text=True).stdout
        found += [f"link {line.split(': ')[1]}" for line in links.splitlines() if "veth" in line or "tap" in line]
        return found + leaks_below(self.group, str(state)) + [f"shim {pid}" for pid in self.shims()]

    def clean(self) -> list[str]:
        """Remove every pod, and its group as the kubelet does; what is left then."""
        for pod in self.cri("ListPodSandbox").items:
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                with contextlib.suppress(RefusedError):
                    self.cri(method, pod_sandbox_id=pod.id)
        for path in sorted(group_directories(self.group), reverse=True):
            if path.parent.name == self.group.strip("/"):
                with contextlib.suppress(OSError):
                    path.rmdir()
        until = time.monotonic() + 10
        while self.leaks() and time.monotonic() < until:
            time.sleep(0.1)
        return self.leaks()

    def close(self) -> None:
        """End containerd and what a failed test left."""
        self.cri.close()
        self.containerd.stop()
        for pid in self.shims():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(str(self.containerd.directory)):
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        remove_groups(self.group)
        shutil.rmtree(self.containerd.runtime_root, ignore_errors=True)
        subprocess.run(["ip", "netns", "del", self.containerd.network], check=False)
