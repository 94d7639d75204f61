# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory and the playbooks, as Ansible itself reads them; no host is contacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CHECK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Check
      unifleet.hybrid.inventory_check:
      run_once: true
      register: answer
      ignore_errors: true
    - name: Tell
      ansible.builtin.copy:
        content: "{{ answer | to_json }}"
        dest: "{{ answer_file }}"
        mode: "0644"
      run_once: true
      delegate_to: localhost
"""


def playbook(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=300)


def checked(inventory: str, home: Path, *arguments: str) -> dict[str, Any]:
    book = home / "check.yml"
    book.write_text(CHECK, encoding="utf-8")
    answer = home / "answer.json"
    done = playbook("-i", str(ROOT / inventory), *arguments, str(book), "-e", f"answer_file={answer}", home=home)
    assert answer.is_file(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def test_the_example_inventory_is_good_and_merges_labels_over_groups(tmp_path: Path) -> None:
    nodes = checked("inventories/hybrid", tmp_path)["nodes"]
    assert nodes["pi1"]["labels"] == {"type": "virtual-kubelet", "os": "raspbian", "location": "germany", "sensor": "humidity"}
    assert nodes["pi2"]["labels"] == {"type": "virtual-kubelet", "os": "raspbian", "sensor": "temperature"}
    assert nodes["server1"]["taints"] == {"dedicated:NoSchedule": "heavy"}


def test_the_labs_inventory_is_good(tmp_path: Path) -> None:
    assert set(checked("inventories/lab", tmp_path)["hosts"]) == {"kvm1", "pi1", "worker1"}


def test_what_tasks_registered_before_is_not_taken_for_the_inventory(tmp_path: Path) -> None:
    """site and verify in one run: what a role registered has the role's name before it, as its variables have."""
    before = tmp_path / "before.yml"
    tasks = [
        {"ansible.builtin.debug": {"msg": "done"}, "register": "registry_apt"},
        {"ansible.builtin.debug": {"msg": "not done"}, "register": "hypervisor_qemu", "when": False},
        {"ansible.builtin.debug": {"msg": "{{ item }}"}, "register": "control_plane_units", "loop": ["a", "b"]},
    ]
    before.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    answer = checked("inventories/lab", tmp_path, str(before))
    assert "problems" not in answer, answer
    assert not answer.get("failed"), answer


def test_a_bad_inventory_is_told_by_host_and_variable(tmp_path: Path) -> None:
    answer = checked("inventories/hybrid", tmp_path, "-e", '{"provider": "docker"}')
    assert answer["failed"]
    assert answer["problems"] == ["pi1, pi2, server1: provider is 'docker'; it must be one of kvm, process, simulated"]


def test_playbooks_are_found_by_path_and_by_name_and_parse(tmp_path: Path) -> None:
    names = ["playbooks/site.yml", "playbooks/labels.yml", "playbooks/verify.yml", "unifleet.hybrid.labels", "unifleet.hybrid.verify"]
    done = playbook("-i", "inventories/hybrid", "--syntax-check", *names, home=tmp_path)
    assert done.returncode == 0, done.stderr
