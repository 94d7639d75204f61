# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup layered, by ansible-playbook itself on an inventory with every place that a variable can come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

INVENTORY = """
all:
  vars:
    node_labels: {site: nowhere, from_all: inventory, gone: "yes"}
  children:
    edge:
      vars:
        node_labels: {site: edge, kind: edge}
      children:
        pis:
          vars:
            node_labels: {site: attic, model: "{{ board }}", kind: null}
          hosts:
            pi1:
              board: rpi4
              node_labels: {sensor: temperature, gone: null}
            pi2: {board: rpi3}
    zzz:
      vars:
        node_labels: {who: zzz, ansible_group: zzz}
      hosts: {pi1: }
    aaa:
      vars:
        ansible_group_priority: 10
        node_labels: {who: aaa}
      hosts: {pi1: }
    plain:
      hosts: {bare: {node_labels: null}}
"""

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        merged: "{{ lookup('unifleet.hybrid.layered', 'node_labels') }}"
        taints: "{{ lookup('unifleet.hybrid.layered', 'node_taints') }}"
        other: "{{ lookup('unifleet.hybrid.layered', 'node_labels', host='pi2') }}"
        settable: "{{ lookup('unifleet.hybrid.layered', 'node_labels') | unifleet.hybrid.self_settable_labels }}"
    - ansible.builtin.copy:
        content: "{{ {'merged': merged, 'taints': taints, 'other': other, 'settable': settable} | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}.json"
        mode: "0644"
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def play(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
    }
    write(directory / "ansible.cfg", "[defaults]\n")
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", str(directory / "inventory" / "hosts.yml"), "-c", "local", "-e", f"out={directory / 'out'}"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", *arguments, str(directory / "play.yml")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("layered")
    write(directory / "inventory" / "hosts.yml", INVENTORY)
    write(directory / "inventory" / "group_vars" / "pis.yml", "node_labels: {rack: r1, site: shed}\n")
    write(directory / "inventory" / "host_vars" / "pi2.yml", "node_labels: {sensor: humidity, node-role.kubernetes.io/iot: ''}\n")
    write(directory / "group_vars" / "all.yml", "node_labels: {from_all: playbook}\nnode_taints: {'dedicated:NoSchedule': iot}\n")
    write(directory / "host_vars" / "pi1.yml", "node_taints: {'dedicated:NoSchedule': null, 'own:NoExecute': ''}\n")
    write(directory / "play.yml", PLAY)
    (directory / "out").mkdir()
    done = play(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in (directory / "out").iterdir()}


def test_a_child_group_wins_over_its_parent_and_the_parent_over_all(results: dict[str, Any]) -> None:
    assert results["pi1"]["merged"]["site"] == "shed"
    assert results["bare"]["merged"]["site"] == "nowhere"


def test_keys_of_all_levels_are_there_together(results: dict[str, Any]) -> None:
    merged = results["pi1"]["merged"]
    assert (merged["rack"], merged["sensor"], merged["from_all"]) == ("r1", "temperature", "playbook")


def test_null_takes_a_key_of_a_weaker_level_away(results: dict[str, Any]) -> None:
    assert "gone" not in results["pi1"]["merged"]
    assert results["pi2"]["merged"]["gone"] == "yes"
    assert "kind" not in results["pi1"]["merged"]


def test_templates_in_a_group_see_the_variables_of_the_host(results: dict[str, Any]) -> None:
    assert results["pi1"]["merged"]["model"] == "rpi4"


def test_the_group_priority_decides_between_groups_of_one_depth(results: dict[str, Any]) -> None:
    assert results["pi1"]["merged"]["who"] == "aaa"
    assert results["pi1"]["merged"]["ansible_group"] == "zzz"


def test_a_level_that_is_null_as_a_whole_changes_nothing(results: dict[str, Any]) -> None:
    assert results["bare"]["merged"]["from_all"] == "playbook"


def test_variables_beside_the_playbook_count_for_taints_too(results: dict[str, Any]) -> None:
    assert results["pi1"]["taints"] == {"own:NoExecute": ""}
    assert results["pi2"]["taints"] == {"dedicated:NoSchedule": "iot"}


def test_the_labels_of_another_host_can_be_asked_for(results: dict[str, Any]) -> None:
    assert results["pi1"]["other"] == results["pi2"]["merged"]
    assert results["pi2"]["merged"]["model"] == "rpi3"


def test_the_filter_keeps_from_a_node_what_it_may_not_set(results: dict[str, Any]) -> None:
    assert "node-role.kubernetes.io/iot" in results["pi2"]["merged"]
    assert "node-role.kubernetes.io/iot" not in results["pi2"]["settable"]
    assert results["pi2"]["settable"]["sensor"] == "humidity"


def test_extra_vars_are_laid_on_top(tmp_path: Path) -> None:
    write(tmp_path / "inventory" / "hosts.yml", INVENTORY)
    write(tmp_path / "play.yml", PLAY)
    (tmp_path / "out").mkdir()
    done = play(tmp_path, "-e", '{"node_labels": {"site": "extra"}}', "--limit", "pi1")
    assert done.returncode == 0, done.stdout + done.stderr
    merged = json.loads((tmp_path / "out" / "pi1.json").read_text())["merged"]
    assert merged["site"] == "extra"
    assert merged["sensor"] == "temperature"


def test_a_value_that_is_no_mapping_is_told_with_its_place(tmp_path: Path) -> None:
    write(tmp_path / "inventory" / "hosts.yml", "edge:\n  vars: {node_labels: 'a=b'}\n  hosts: {h1: }\n")
    write(tmp_path / "play.yml", PLAY)
    done = play(tmp_path)
    assert done.returncode != 0
    assert "node_labels of group edge (for host h1) must be a mapping, not" in done.stdout + done.stderr
