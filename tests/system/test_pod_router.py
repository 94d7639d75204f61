# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pod-router as hosts get it, in network namespaces that stand for hosts, against a real control plane: pods of nodes reach each other.

Everything but the hosts is real: Node authorizer, certificates that end, routes, bridges, iptables, nftables. The control plane runs in a
namespace of its own, on whose bridge the hosts hang; a pod is a namespace behind a host's bridge, as CNI makes it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.unifleet.hybrid.plugins.filter.program_file import program_file
from ansible_collections.unifleet.hybrid.plugins.module_utils import pki_x509
from ansible_collections.unifleet.hybrid.plugins.module_utils.pki_x509 import CertificateSpec
from tests.system.test_agent_node import wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
PREFIX = "ufrt"
API = "10.79.42.1"
PODS = "10.244.0.0/16"
NODES = {"n1": "10.79.42.11", "n2": "10.79.42.12"}
SERVE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 80), Page).serve_forever()
"""
TRANSLATION = f"""
table ip unifleet_worker_pods
delete table ip unifleet_worker_pods
table ip unifleet_worker_pods {{
  chain leaving {{
    type nat hook postrouting priority srcnat;
    ip saddr {PODS} ip daddr != {PODS} masquerade
  }}
}}
"""


def run(*words: str, inside: str = "", stdin: str = "") -> str:
    """Output of a command, in a namespace of ours when one is named."""
    before = ["ip", "netns", "exec", f"{PREFIX}-{inside}"] if inside else []
    done = subprocess.run([*before, *words], input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"
    return done.stdout


@dataclass
class Scene:
    """The control plane's namespace, its credentials, and what was started."""

    directory: Path
    program: Path
    stack: contextlib.ExitStack
    plane: dict[str, Any]

    def namespace(self, name: str) -> str:
        run("ip", "netns", "add", f"{PREFIX}-{name}")
        self.stack.callback(remove_namespace, name)
        run("ip", "link", "set", "lo", "up", inside=name)
        return name

    def kubectl(self, *words: str, stdin: str = "") -> str:
        program = str(Path(sys.executable).parent / "kubectl")
        return run(program, f"--kubeconfig={self.plane['kubeconfig']}", *words, inside="plane", stdin=stdin)

    def host(self, name: str, address: str) -> str:
        """A host on the control plane's bridge."""
        self.namespace(name)
        run("ip", "link", "add", f"h-{name}", "type", "veth", "peer", "name", "eth0", "netns", f"{PREFIX}-{name}", inside="plane")
        run("ip", "link", "set", f"h-{name}", "master", "br0", "up", inside="plane")
        run("ip", "addr", "add", f"{address}/24", "dev", "eth0", inside=name)
        run("ip", "link", "set", "eth0", "up", inside=name)
        run("sysctl", "-qw", "net.ipv4.ip_forward=1", inside=name)
        return name

    def node(self, name: str, address: str) -> str:
        """A Node object; its range of pods' addresses, once it has one."""
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(body))
        return str(wait_for(lambda: self.kubectl("get", "node", name, "-o", "jsonpath={.spec.podCIDR}"), 30))

    def move(self, name: str, address: str) -> None:
        """The node has another address from now on."""
        body = json.loads(self.kubectl("get", "node", name, "-o", "json"))
        body["status"]["addresses"][0]["address"] = address
        self.kubectl("replace", "--raw", f"/api/v1/nodes/{name}/status", "-f", "-", stdin=json.dumps(body))

    def pod(self, name: str, host: str, cidr: str) -> str:
        """A pod on a host's bridge that serves the address of whoever asks; its own address."""
        self.namespace(name)
        base = cidr.rpartition(".")[0]
        if "unifleet-pods" not in run("ip", "link", inside=host):
            run("ip", "link", "add", "unifleet-pods", "type", "bridge", inside=host)
            run("ip", "addr", "add", f"{base}.1/24", "dev", "unifleet-pods", inside=host)
            run("ip", "link", "set", "unifleet-pods", "up", inside=host)
        run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", f"{PREFIX}-{name}", inside=host)
        run("ip", "link", "set", f"v-{name}", "master", "unifleet-pods", "up", inside=host)
        run("ip", "addr", "add", f"{base}.10/24", "dev", "eth0", inside=name)
        run("ip", "link", "set", "eth0", "up", inside=name)
        run("ip", "route", "add", "default", "via", f"{base}.1", inside=name)
        self.background(name, PYTHON, "-c", SERVE)
        return f"{base}.10"

    def background(self, namespace: str, *words: str, last: int = signal.SIGTERM) -> subprocess.Popen[bytes]:
        """A program that ends with the scene at the latest, by this signal."""
        with (self.directory / f"{namespace}.log").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", f"{PREFIX}-{namespace}", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.stack.callback(end, process, last)
        return process

    def certificate(self, name: str, seconds: float) -> None:
        """What a kubelet does when it renews: a new file, and the link that everybody reads leads to it."""
        pki = Path(self.plane["kubeconfig"]).parent
        authority = (pki / "cluster-ca.crt").read_bytes(), (pki / "cluster-ca.key").read_bytes()
        spec = CertificateSpec(name, "cluster-ca", f"system:node:{name}", ("system:nodes",), client=True)
        key, now = pki_x509.make_key(), datetime.datetime.now(datetime.timezone.utc)
        file = self.directory / f"{name}-{time.monotonic_ns()}.pem"
        file.touch(0o600)
        file.write_bytes(pki_x509.issue(spec, key, authority, now, datetime.timedelta(seconds=seconds)) + key)
        fresh = self.directory / f"{name}-current.new"
        fresh.symlink_to(file)
        fresh.replace(self.directory / f"{name}-current.pem")

    def kubeconfig(self, name: str) -> Path:
        """As the role worker writes it for the node's own programs."""
        current = str(self.directory / f"{name}-current.pem")
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.plane["server"], "certificate-authority": self.plane["ca"]}}],
            "users": [{"name": "n", "user": {"client-certificate": current, "client-key": current}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "n"}}],
            "current-context": "c",
        }
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def router(self, name: str, *options: str, node: bool = True) -> subprocess.Popen[bytes]:
        """pod-router on a host."""
        named = ["--node", name, "--pods", PODS, "--translation", f"unifleet_worker_pods={self.directory}/pods.nft"] if node else []
        return self.background(name, str(self.program), "--kubeconfig", str(self.kubeconfig(name)), *named, *options)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(encoding="utf-8")

    def restart_api_server(self, seconds: float = 0.0) -> None:
        """Kill it, wait, and start it again as it was."""
        pid = self.plane["pids"]["kube-apiserver"]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        os.kill(pid, signal.SIGKILL)
        time.sleep(seconds)
        self.plane["pids"]["kube-apiserver"] = self.background("plane", *words, last=signal.SIGKILL).pid


def remove_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "del", f"{PREFIX}-{name}"], check=False, capture_output=True)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
        return
    process.kill()
    process.wait()


def routes(host: str, protocol: str = "117") -> dict[str, str]:
    """Network -> gateway."""
    shown = json.loads(run("ip", "-json", "route", "show", "proto", protocol, inside=host) or "[]")
    return {entry["dst"]: entry["gateway"] for entry in shown}


def fetched(pod: str, address: str) -> str:
    """What a pod that asks another is to that one."""
    ask = "import sys,urllib.request as u; print(u.urlopen(sys.argv[1],timeout=3).read().decode(),end='')"
    return run(PYTHON, "-c", ask, f"http://{address}/", inside=pod)


def reaches(pod: str, address: str) -> bool:
    try:
        fetched(pod, address)
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    directory = tmp_path_factory.mktemp("router")
    program = directory / "pod-router"
    program.write_bytes(base64.b64decode(program_file("router")))
    program.chmod(0o755)
    (directory / "pods.nft").write_text(TRANSLATION, encoding="utf-8")
    with contextlib.ExitStack() as stack:
        made = Scene(directory, program, stack, {})
        made.namespace("plane")
        run("ip", "link", "add", "br0", "type", "bridge", inside="plane")
        run("ip", "addr", "add", f"{API}/24", "dev", "br0", inside="plane")
        run("ip", "link", "set", "br0", "up", inside="plane")
        command = [
            sys.executable,
            "-m",
            "tests.system.local_cluster",
            "--directory",
            str(directory / "cluster"),
            "--address",
            API,
            "--pod-networks",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        started = subprocess.Popen(
            ["ip", "netns", "exec", f"{PREFIX}-plane", *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        stack.callback(end, started)
        assert started.stdout is not None
        made.plane = json.loads(started.stdout.readline())
        yield made


@dataclass
class Pods:
    """A pod on each of two nodes, whose routers run."""

    ranges: dict[str, str]
    addresses: dict[str, str]
    routers: dict[str, subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def pods(scene: Scene) -> Pods:
    ranges, addresses, routers = {}, {}, {}
    for name, address in NODES.items():
        scene.host(name, address)
        scene.certificate(name, 3600)
        ranges[name] = scene.node(name, address)
        addresses[name] = scene.pod(f"p-{name}", name, ranges[name])
        routers[name] = scene.router(name)
    wait_for(lambda: routes("n1") == {ranges["n2"]: NODES["n2"]} and routes("n2") == {ranges["n1"]: NODES["n1"]}, 30)
    return Pods(ranges, addresses, routers)


def test_pods_of_two_nodes_see_each_other_under_their_own_addresses(scene: Scene, pods: Pods) -> None:
    assert fetched("p-n1", pods.addresses["n2"]) == pods.addresses["n1"]
    assert fetched("p-n2", pods.addresses["n1"]) == pods.addresses["n2"]
    assert fetched("n1", pods.addresses["n2"]) == NODES["n1"]


def test_what_leaves_the_cluster_has_the_hosts_address(scene: Scene, pods: Pods) -> None:
    scene.background("plane", PYTHON, "-c", SERVE)
    assert wait_for(lambda: fetched("p-n1", API), 20) == NODES["n1"]


def test_where_the_firewall_drops_by_default_and_was_flushed_pods_go_on(scene: Scene, pods: Pods) -> None:
    pods.routers["n2"].send_signal(signal.SIGSTOP)
    run("iptables", "-P", "FORWARD", "DROP", inside="n2")
    run("nft", "delete", "table", "ip", "unifleet_worker_pods", inside="n2")
    assert not reaches("p-n1", pods.addresses["n2"])
    pods.routers["n2"].send_signal(signal.SIGCONT)
    wait_for(lambda: reaches("p-n1", pods.addresses["n2"]), 10)
    wait_for(lambda: "masquerade" in run("nft", "list", "ruleset", inside="n2"), 10)
    run("iptables", "-I", "FORWARD", "-d", pods.addresses["n2"], "-j", "DROP", inside="n2")
    assert not reaches("p-n1", pods.addresses["n2"]), "a rule that somebody wrote wins"
    run("iptables", "-D", "FORWARD", "-d", pods.addresses["n2"], "-j", "DROP", inside="n2")


def test_a_node_that_comes_moves_and_goes_takes_its_routes_along(scene: Scene, pods: Pods) -> None:
    cidr = scene.node("n3", "10.79.42.13")
    wait_for(lambda: routes("n1").get(cidr) == "10.79.42.13" and routes("n2").get(cidr) == "10.79.42.13", 20)
    scene.move("n3", "10.79.42.14")
    wait_for(lambda: routes("n1").get(cidr) == "10.79.42.14", 20)
    scene.move("n3", "192.0.2.9")
    wait_for(lambda: cidr not in routes("n1"), 20)
    wait_for(lambda: f"pods of node n3 ({cidr}) cannot be reached from here: 192.0.2.9" in scene.log("n1"), 10)
    scene.kubectl("delete", "node", "n3")
    wait_for(lambda: set(routes("n1")) == {pods.ranges["n2"]}, 20)


def test_without_the_api_server_everything_stays_and_a_renewed_certificate_is_taken_over(scene: Scene, pods: Pods) -> None:
    end(pods.routers["n1"])
    assert routes("n1") == {pods.ranges["n2"]: NODES["n2"]}, "a router that ends leaves its routes"
    scene.certificate("n1", 12)
    ends = time.monotonic() + 12
    pods.routers["n1"] = scene.router("n1")
    marker = scene.node("n4", "10.79.42.15")
    wait_for(lambda: marker in routes("n1"), 10)
    scene.restart_api_server(max(0.0, ends + 1 - time.monotonic()))
    assert routes("n1")[pods.ranges["n2"]] == NODES["n2"]
    assert reaches("p-n1", pods.addresses["n2"])
    wait_for(lambda: "401" in scene.log("n1"), 60)
    assert pods.routers["n1"].poll() is None
    scene.certificate("n1", 3600)
    scene.kubectl("delete", "node", "n4")
    wait_for(lambda: set(routes("n1")) == {pods.ranges["n2"]}, 60)


def test_a_killed_router_adopts_its_routes_corrects_what_changed_and_touches_no_others(scene: Scene, pods: Pods) -> None:
    end(pods.routers["n1"], signal.SIGKILL)
    run("ip", "route", "add", "10.244.77.0/24", "via", "10.79.42.99", "proto", "117", inside="n1")
    run("ip", "route", "add", "10.244.78.0/24", "via", "10.79.42.99", "proto", "bird", inside="n1")
    assert reaches("p-n1", pods.addresses["n2"])
    pods.routers["n1"] = scene.router("n1")
    wait_for(lambda: routes("n1") == {pods.ranges["n2"]: NODES["n2"]}, 20)
    assert routes("n1", "bird") == {"10.244.78.0/24": "10.79.42.99"}


def test_a_route_that_somebody_took_away_comes_back_at_once(scene: Scene, pods: Pods) -> None:
    run("ip", "route", "flush", "proto", "117", inside="n2")
    wait_for(lambda: routes("n2") == {pods.ranges["n1"]: NODES["n1"]}, 10)


def test_the_control_planes_host_which_is_no_node_reaches_pods_too(scene: Scene, pods: Pods) -> None:
    scene.host("cp", "10.79.42.20")
    pki = Path(scene.plane["kubeconfig"]).parent
    kubeconfig = scene.directory / "router.kubeconfig"
    kubeconfig.write_bytes((pki / "pod-router.kubeconfig").read_bytes().replace(b"127.0.0.1", API.encode()))
    scene.background("cp", str(scene.program), "--kubeconfig", str(kubeconfig))
    wait_for(lambda: routes("cp") == {pods.ranges[name]: NODES[name] for name in NODES}, 20)
    assert fetched("cp", pods.addresses["n2"]) == "10.79.42.20"
    assert "UNIFLEET" not in run("iptables", "-S", inside="cp")


def test_it_is_small_and_sleeps(scene: Scene, pods: Pods) -> None:
    pid = int(run("pgrep", "-f", f"{scene.program} --kubeconfig {scene.directory}/n2[.]kubeconfig").split()[0])
    memory = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    rss, pss = (int(re.search(rf"^{kind}:\s+(\d+)", memory, re.MULTILINE).group(1)) for kind in ("Rss", "Pss"))  # type: ignore[union-attr]
    before = cpu(pid)
    time.sleep(10)
    used = cpu(pid) - before
    print(f"pod-router: RSS {rss} KiB, PSS {pss} KiB, {used * 10:.1f} ms of processor time in 10 s with nothing to do, children included")
    assert rss < 32 * 1024
    assert used < 10


def cpu(pid: int) -> int:
    """Hundredths of seconds of a process and its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def test_removing_takes_routes_and_rules_away_and_nothing_else(scene: Scene, pods: Pods) -> None:
    for name in NODES:
        end(pods.routers[name])
        said = run(str(scene.program), "--remove", "--pods", PODS, inside=name)
        assert "routes" in said
        assert ("firewall chain" in said) is (name == "n2")
        assert "nothing" in run(str(scene.program), "--remove", "--pods", PODS, inside=name)
        assert routes(name) == {}
        assert "UNIFLEET" not in run("iptables", "-S", inside=name)
    assert routes("n1", "bird") == {"10.244.78.0/24": "10.79.42.99"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--kubeconfig", "/x", "--pods", "all"], "--pods all"),
        (["--kubeconfig", "/x", "--pods", PODS, "--translation", "table"], "TABLE=FILE"),
        ([], "--kubeconfig is missing"),
    ],
)
def test_arguments_that_cannot_be_end_it_at_once_with_a_sentence(scene: Scene, words: list[str], told: str) -> None:
    done = subprocess.run([str(scene.program), *words], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 78
    assert told in done.stderr
