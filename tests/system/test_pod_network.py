# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods of every kind that serve and call HTTP: from hosts, to pods of other nodes and out of the cluster, whatever is killed.

The rungs are one story on one lab: bare hosts become a cluster, unikernels answer, agents and firewalls go and come, nothing is left.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import worker_pods
from cluster import BIN, ROOT, Cluster, eventually
from ladder import failed_elsewhere, rungs_below_held

__all__ = ["failed_elsewhere", "rungs_below_held"]

pytestmark = [pytest.mark.system, pytest.mark.lab, pytest.mark.timeout(2400)]

CP = "10.77.9.11"
FETCH = "python3 -c 'import sys,urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())' http://{}/"
OUTSIDE = """
import http.server, socket, struct, threading

def names():  # answers every question for an A record with this host's address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 53))
        while True:
            question, whence = server.recvfrom(512)
            end = question.index(b"\\0", 12) + 5
            answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4" + socket.inet_aton("ADDRESS")
            server.sendto(question[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + question[12:end] + answer, whence)

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("you are " + self.client_address[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

threading.Thread(target=names, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page).serve_forever()
""".replace("ADDRESS", CP)
WHO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo you are $REMOTE_ADDR
"""


@pytest.fixture(scope="module")
def cluster(lab_cluster: Cluster) -> Cluster:
    """The lab without pods, with images of the project's two unikernels that drive a network card, and a service outside of the cluster."""
    lab_cluster.kubectl("delete", "pods,deployments,daemonsets", "--all", timeout=120)
    for program in ("sensor", "caller"):
        push(lab_cluster, program)
    script = base64.b64encode(OUTSIDE.encode()).decode()
    lab_cluster.ssh("cp1", f"echo {script} | base64 -d > /root/outside.py; systemd-run -q -u outside python3 /root/outside.py")
    return lab_cluster


def push(lab: Cluster, program: str) -> None:
    """Push the unikernel as an image under the name net-PROGRAM."""
    image = {"name": f"{CP}:5000/net-{program}:latest", "memory": "8Mi", "network": True, "validate_certs": False}
    image["kernels"] = {
        target: str(ROOT / f"guest/build/{program}-{target.replace('/', '-')}") for target in ("kvm/amd64", "process/arm64")
    }
    play = [
        {
            "hosts": "registry",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": str(BIN / "python")},
            "tasks": [{"unifleet.hybrid.unikernel_image": image}],
        }
    ]
    file = lab.directory / f"push-{program}.yml"
    file.write_text(json.dumps(play), encoding="utf-8")
    lab.playbook(str(file))


def pod(name: str, image: str, *args: str, **spec: Any) -> str:
    """A pod on kvm1, as JSON."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "main", "image": image, "args": list(args)}],
            "nodeName": "kvm1",
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 5,
            **spec,
        },
    }
    return json.dumps(body)


def status(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "pod", name, "-o", "json"))["status"]
    return found


def address(cluster: Cluster, name: str) -> str:
    return str(eventually(lambda: status(cluster, name).get("podIP"), 90, f"an address of {name}"))


def fetched(cluster: Cluster, host: str, where: str) -> dict[str, Any]:
    """What a unikernel answers to somebody on this host."""
    answer: dict[str, Any] = json.loads(cluster.ssh(host, FETCH.format(where)))
    return answer


def asked(cluster: Cluster, pod: str, where: str) -> str:
    """What a container of busybox gets from a web server, HOST[:PORT][/PATH]. (A static busybox's wget wants libraries.)"""
    server, _slash, path = where.partition("/")
    host, _colon, port = server.partition(":")
    ask = f"printf 'GET /{path} HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n' | /bin/busybox nc -w 5 {host} {port or 80}"
    return cluster.kubectl("exec", pod, "--", "/bin/sh", "-c", ask).partition("\n\n")[2]


def routes(cluster: Cluster, host: str) -> list[str]:
    shown = cluster.ssh(host, "ip route show proto 117 | cat").splitlines()
    return [" ".join(line.split()[:3]) for line in shown if line.strip()]


def test_nodes_have_a_bridge_where_it_is_needed_and_routes_to_each_other(cluster: Cluster) -> None:
    ranges = {node: cluster.node(node)["spec"]["podCIDR"] for node in ("kvm1", "pi1")}
    eventually(lambda: f"{ranges['pi1']} via 10.77.9.13" in routes(cluster, "kvm1"), 60, "kvm1's route to pi1's pods")
    eventually(lambda: f"{ranges['kvm1']} via 10.77.9.12" in routes(cluster, "pi1"), 60, "pi1's route to kvm1's pods")
    conditions = {c["type"]: c["status"] for c in cluster.node("kvm1")["status"]["conditions"]}
    assert (conditions["NetworkUnavailable"], conditions["Ready"]) == ("False", "True")
    assert "unifleet0" not in cluster.ssh("pi1", "ls /sys/class/net")


def test_a_unikernel_answers_its_host_and_another_node(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=pod("server", "net-sensor", "--sensor", "humidity", "--source", "value:21"))
    where = address(cluster, "server")
    assert status(cluster, "server")["podIPs"] == [{"ip": where}]
    eventually(lambda: status(cluster, "server")["phase"] == "Running", 60, "the server to run")
    for host in ("kvm1", "pi1"):
        answer = eventually(lambda h=host: fetched(cluster, h, where), 60, f"an answer to {host}")  # type: ignore[misc]
        assert answer["sensor"] == "humidity", answer


def test_a_unikernel_calls_another_and_a_service_outside_by_name(cluster: Cluster) -> None:
    where = address(cluster, "server")
    cluster.kubectl("apply", "-f", "-", stdin=pod("inside", "net-caller", "--url", f"http://{where}/", "--period", "2"))
    dns = {"dnsPolicy": "None", "dnsConfig": {"nameservers": [CP]}}
    outside = pod("outside", "net-caller", "--url", "http://service.example:8000/", "--period", "2", "--tries", "0", **dns)
    cluster.kubectl("apply", "-f", "-", stdin=outside)
    eventually(lambda: "humidity" in cluster.kubectl("logs", "inside"), 90, "an answer of the other unikernel in the log")
    # Nobody outside the cluster has a route to pods, so they are seen under their host's address.
    eventually(lambda: "you are 10.77.9.12" in cluster.kubectl("logs", "outside"), 90, "an answer of the service outside in the log")


def test_every_host_has_a_route_to_every_other_nodes_pods(cluster: Cluster) -> None:
    hosts = {"cp1": CP, "kvm1": "10.77.9.12", "pi1": "10.77.9.13", "worker1": "10.77.9.14"}
    ranges = {node: cluster.node(node)["spec"]["podCIDR"] for node in hosts if node != "cp1"}
    for host in hosts:
        wanted = {f"{cidr} via {hosts[node]}" for node, cidr in ranges.items() if node != host}
        eventually(lambda h=host, w=wanted: set(routes(cluster, h)) == w, 60, f"the routes of {host}")  # type: ignore[misc]


def test_a_container_on_a_worker_and_unikernels_elsewhere_reach_each_other_under_their_own_addresses(
    cluster: Cluster, tmp_path: Path
) -> None:
    image = worker_pods.push_busybox(f"{CP}:5000", tmp_path)
    serve = 'mkdir -p /www/cgi-bin; cd /www/cgi-bin; printf %s "$WHO" >who; /bin/busybox chmod +x who; exec httpd -f -p 0.0.0.0:80 -h /www'
    web = {**worker_pods.container(image), "command": ["/bin/sh", "-c", serve], "env": [{"name": "WHO", "value": WHO}]}
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.pod("web", [web]))
    where, server = address(cluster, "web"), address(cluster, "server")
    assert json.loads(eventually(lambda: asked(cluster, "web", server), 60, "the virtual machine's answer"))["sensor"] == "humidity"
    for name, node, more in (("vm-caller", "kvm1", ()), ("program-caller", "pi1", ("--port", "8080"))):
        call = pod(name, "net-caller", "--url", f"http://{where}/cgi-bin/who", "--period", "2", *more, nodeName=node)
        cluster.kubectl("apply", "-f", "-", stdin=call)
    machine = address(cluster, "vm-caller")
    eventually(lambda: f"you are {machine}" in cluster.kubectl("logs", "vm-caller"), 90, "the machine's own address in its log")
    # A program has its host's address, which is no pod's.
    eventually(lambda: "you are 10.77.9.13" in cluster.kubectl("logs", "program-caller"), 90, "the Pi's address in the program's log")
    eventually(lambda: "status" in asked(cluster, "web", "10.77.9.13:8080"), 60, "the program's answer to the container")


def test_a_service_leads_a_workers_pods_to_unikernels_elsewhere_and_so_does_the_api_server(cluster: Cluster) -> None:
    cluster.kubectl("label", "pod", "server", "app=server")
    cluster.kubectl("apply", "-f", "-", stdin=worker_pods.service("server"))
    virtual = cluster.kubectl("get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
    assert json.loads(eventually(lambda: asked(cluster, "web", virtual), 60, "an answer of the service"))["sensor"] == "humidity"
    through = "/api/v1/namespaces/default/services/server:80/proxy/"
    assert json.loads(eventually(lambda: cluster.kubectl("get", "--raw", through), 30, "the API server's way"))["sensor"] == "humidity"
    assert "you are 10.77.9.11" in cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/web:80/proxy/cgi-bin/who")
    cluster.kubectl("delete", "service", "server")


def test_routes_outlive_what_keeps_them_and_the_api_server(cluster: Cluster) -> None:
    server, before = address(cluster, "server"), set(routes(cluster, "worker1"))
    assert before
    for blow in ("systemctl kill --kill-who=main --signal=KILL pod-router", "systemctl restart containerd kubelet kube-proxy pod-router"):
        cluster.ssh("worker1", blow)
        assert set(routes(cluster, "worker1")) == before, blow
    eventually(lambda: "humidity" in asked(cluster, "web", server), 60, "an answer after the restarts")
    cluster.ssh("cp1", "systemctl stop kube-apiserver")
    cluster.ssh("worker1", "systemctl restart pod-router; sleep 3")
    assert set(routes(cluster, "worker1")) == before
    cluster.ssh("cp1", "systemctl start kube-apiserver")
    eventually(lambda: "active" in cluster.ssh("worker1", "systemctl is-active pod-router"), 30, "pod-router")
    eventually(lambda: "humidity" in asked(cluster, "web", server), 60, "an answer with the API server back")


def test_verify_names_a_route_that_is_missing(cluster: Cluster) -> None:
    cidr = cluster.node("kvm1")["spec"]["podCIDR"]
    cluster.ssh("worker1", f"systemctl stop pod-router; ip route del {cidr}")
    verify = cluster.playbook("verify", check=False)
    assert verify.returncode != 0
    assert f"host worker1 has no route to the pods of node kvm1 ({cidr})" in verify.output
    assert "pod-router.service is inactive" in verify.output
    cluster.ssh("worker1", "systemctl start pod-router")
    eventually(lambda: any(cidr in route for route in routes(cluster, "worker1")), 30, "the route")
    cluster.kubectl("delete", "pod", "web", "vm-caller", "program-caller", "--wait=false")


def test_a_pod_that_asks_for_what_a_virtual_machine_has_not_is_refused_by_name(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=pod("refused", "net-sensor", hostNetwork=True, dnsConfig={"searches": ["a.example"]}))
    eventually(
        lambda: all(
            path in cluster.kubectl("get", "events", "--field-selector", "involvedObject.name=refused", "-o", "yaml")
            for path in ("spec.hostNetwork", "spec.dnsConfig.searches")
        ),
        30,
        "an event that names both fields",
    )
    assert status(cluster, "refused")["phase"] == "Pending"
    cluster.kubectl("delete", "pod", "refused", "--wait=false")


def test_the_network_outlives_the_agent_libvirtd_and_a_flushed_firewall(cluster: Cluster) -> None:
    where = address(cluster, "server")
    before = status(cluster, "server")["containerStatuses"][0]
    for blow in ("systemctl kill --kill-who=main --signal=KILL virtual-kubelet.service", "systemctl restart libvirtd", "nft flush ruleset"):
        cluster.ssh("kvm1", blow)
        assert fetched(cluster, "pi1", where)["sensor"] == "humidity", blow
    eventually(lambda: "unifleet_pods" in cluster.ssh("kvm1", "nft list tables"), 90, "the firewall to come back")
    eventually(lambda: "you are" in cluster.kubectl("logs", "outside", "--since=5s"), 60, "calls out of the cluster again")
    after = status(cluster, "server")["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], before["restartCount"])


def test_a_bridge_that_somebody_took_away_comes_back_with_everyone_on_it(cluster: Cluster) -> None:
    where = address(cluster, "server")
    cluster.ssh("kvm1", "virsh net-destroy unifleet0")
    eventually(lambda: "unifleet0" in cluster.ssh("kvm1", "ls /sys/class/net"), 90, "the bridge")
    eventually(lambda: fetched(cluster, "pi1", where)["sensor"] == "humidity", 60, "an answer after the bridge was made anew")


def test_a_node_that_goes_takes_its_route_along(cluster: Cluster) -> None:
    cluster.ssh("pi1", "systemctl stop virtual-kubelet")
    assert routes(cluster, "pi1"), "routes stay while the agent is away"
    cluster.kubectl("delete", "node", "pi1")
    eventually(lambda: not [r for r in routes(cluster, "kvm1") if r.endswith("10.77.9.13")], 60, "kvm1's route to go")
    cluster.ssh("pi1", "systemctl start virtual-kubelet")
    eventually(lambda: [r for r in routes(cluster, "kvm1") if r.endswith("10.77.9.13")], 120, "kvm1's route to come back")


def test_nothing_is_left_when_pods_and_network_are_removed(cluster: Cluster) -> None:
    cluster.kubectl("delete", "pod", "server", "inside", "outside", timeout=120)
    eventually(lambda: "uf-" not in cluster.ssh("kvm1", "ls /sys/class/net"), 60, "the taps to go")
    eventually(
        lambda: "uf-" not in cluster.ssh("kvm1", "nft list table bridge unifleet_pods | grep -v iifname"), 60, "the addresses to be free"
    )
    for host in ("kvm1", "pi1"):
        cluster.ssh(host, "systemctl stop virtual-kubelet")
        removed = cluster.ssh(host, "/usr/local/lib/unifleet/current/bin/virtual-kubelet --remove-network")
        assert "routes" in removed
        assert ("bridge unifleet0, firewall tables" in removed) is (host == "kvm1")
        again = cluster.ssh(host, "/usr/local/lib/unifleet/current/bin/virtual-kubelet --remove-network")
        assert "nothing" in again
        assert "unifleet0" not in cluster.ssh(host, "ls /sys/class/net; ip route")
        assert routes(cluster, host) == []
    assert "unifleet" not in cluster.ssh("kvm1", "nft list ruleset; virsh net-list --all")
    for host in ("kvm1", "pi1"):
        cluster.ssh(host, "systemctl start virtual-kubelet")
    eventually(lambda: "unifleet0" in cluster.ssh("kvm1", "ls /sys/class/net"), 60, "the bridge again")
    cluster.ssh("cp1", "systemctl stop outside")
