# Copyright (c) 2026, Unifleet developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process's unit says of it, and what its root is made of, hostile images included."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.unifleet.hybrid.plugins.host.machines.contract import Kernel, MachineSpec, Mount, Phase, Program
from ansible_collections.unifleet.hybrid.plugins.host.machines.process_root import build_root, find_program, resolve, user_and_group
from ansible_collections.unifleet.hybrid.plugins.host.machines.process_unit import (
    ISOLATION,
    controllers_of_process,
    key_of_unit,
    leaves_children,
    metadata_of_unit,
    properties,
    state_of_unit,
    to_record,
    unit_name,
)
from ansible_collections.unifleet.hybrid.plugins.module_utils.errors import UnifleetError

pytestmark = pytest.mark.unit
KEY = "0f0e0d0c-0b0a-4908-8706-050403020100"
RUNNING = {
    **{"ActiveState": "active", "SubState": "running", "Result": "success", "ExecMainCode": 0, "ExecMainStatus": 0},
    **{"ExecMainStartTimestamp": 1_700_000_000_000_000, "ExecMainExitTimestamp": 0},
}
STARTED = {"started": "yes"}


def ended(code: int, status: int, **changes: Any) -> dict[str, Any]:
    times = {"ExecMainExitTimestamp": 1_700_000_001_500_000}
    return {**RUNNING, **times, "ActiveState": "failed", "SubState": "failed", "ExecMainCode": code, "ExecMainStatus": status, **changes}


def spec(**changes: Any) -> MachineSpec:
    values = {"key": KEY, "title": "ns/pod/c", "boot": Program(Path("/image"), ("/bin/x",)), "log_directory": Path("/log")}
    return MachineSpec(**{**values, **changes})


def made(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        **{"program": "/bin/x", "root": Path("/root"), "binds": (), "mounts": (), "isolation": ISOLATION},
        **{"console": {"stdout": Path("/o"), "stderr": Path("/e")}, "controllers": frozenset({"memory", "cpu", "pids"})},
    }
    return {name: value for name, (_signature, value) in properties(record, **{**values, **changes})}


def test_a_running_unit_is_a_running_machine() -> None:
    state = state_of_unit(KEY, {}, STARTED, RUNNING)
    assert (state.phase, state.started_at, state.exit) == (Phase.RUNNING, 1_700_000_000.0, None)


@pytest.mark.parametrize(
    ("unit", "record", "code", "reason"),
    [
        (ended(1, 0, ActiveState="active", SubState="exited"), STARTED, 0, "Completed"),
        (ended(1, 3), STARTED, 3, "Error"),
        (ended(2, 15, ActiveState="active", SubState="exited"), STARTED, 143, "Error"),
        (ended(2, 9), STARTED, 137, "Error"),
        (ended(3, 11), STARTED, 139, "Error"),
        (ended(2, 9, Result="oom-kill"), STARTED, 137, "OOMKilled"),
        (ended(1, 203), STARTED, 203, "Error"),
        (ended(1, 203), {"started": "failed"}, 128, "StartError"),
        (ended(1, 226), {"started": None}, 128, "StartError"),
        (ended(1, 3), {"started": None}, 3, "Error"),
        (ended(0, 0, Result="resources", ExecMainExitTimestamp=0), {"started": "failed"}, 128, "StartError"),
    ],
)
def test_how_a_unit_ended_is_how_the_machine_ended(unit: dict[str, Any], record: dict[str, Any], code: int, reason: str) -> None:
    state = state_of_unit(KEY, {}, record, unit)
    assert state.phase is Phase.STOPPED
    assert state.exit is not None
    assert (state.exit.code, state.exit.reason) == (code, reason)


def test_a_unit_whose_children_are_being_stopped_still_runs_and_is_seen_to_leave_children() -> None:
    unit = ended(1, 1, ActiveState="deactivating", SubState="stop-sigterm")
    assert state_of_unit(KEY, {}, STARTED, unit).phase is Phase.RUNNING
    assert leaves_children(unit)
    assert not leaves_children(RUNNING)


@given(st.dictionaries(st.text(), st.text()))
def test_metadata_comes_back_from_the_unit(metadata: dict[str, str]) -> None:
    fields = made(to_record(spec(metadata=metadata)))["LogExtraFields"]
    assert metadata_of_unit(fields) == metadata
    assert b"\n" not in fields[0]


def test_metadata_that_was_tampered_with_is_no_metadata() -> None:
    assert metadata_of_unit([b"UNIFLEET_METADATA=%%%", b"OTHER=1"]) == {}


def test_limits_are_set_where_the_host_has_controllers_and_nowhere_else() -> None:
    record = to_record(spec(memory_bytes=1 << 20, cpu_millis=250))
    assert {name: made(record)[name] for name in ("MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec")} == {
        "MemoryMax": 1 << 20,
        "MemorySwapMax": 0,
        "CPUQuotaPerSecUSec": 250_000,
    }
    assert not {"MemoryMax", "CPUQuotaPerSecUSec", "TasksMax"} & made(record, controllers=frozenset()).keys()


def test_systemds_own_variables_are_hidden_and_the_programs_kept() -> None:
    record = to_record(spec(boot=Program(Path("/image"), ("x",), env=(("HOME", "/me"), ("A", "1")))))
    unit = made(record)
    assert {"HOME=/me", "A=1"} <= set(unit["Environment"])
    assert "INVOCATION_ID" in unit["UnsetEnvironment"]
    assert "HOME" not in unit["UnsetEnvironment"]


def test_dollars_in_arguments_are_not_systemds_to_expand() -> None:
    record = to_record(spec(boot=Program(Path("/image"), ("$x", "${A} $$ $", "100%"))))
    assert made(record)["ExecStart"] == [("/bin/x", ["$$x", "$${A} $$$$ $$", "100%"], False)]


def test_an_image_with_a_user_runs_as_that_user_and_root_never_as_root() -> None:
    assert made(to_record(spec(boot=Program(Path("/"), ("x",), user="1000:50"))))["User"] == "1000"
    unit = made(to_record(spec(boot=Program(Path("/"), ("x",), user="root"))))
    assert ("User" in unit, unit["DynamicUser"]) == (False, True)


@pytest.mark.parametrize("target", ["relative", "/a:b", ""])
def test_a_mount_path_that_systemd_would_misread_is_refused(target: str) -> None:
    with pytest.raises(UnifleetError, match="mount path"):
        to_record(spec(mounts=(Mount(Path("/x"), target),)))


def test_a_kernel_is_refused() -> None:
    with pytest.raises(UnifleetError, match="programs, not kernels"):
        to_record(spec(boot=Kernel(Path("/k"), "")))


@pytest.mark.parametrize("env", [("", "x"), ("A=B", "x"), ("A", "x\0y")])
def test_an_impossible_variable_is_refused(env: tuple[str, str]) -> None:
    with pytest.raises(UnifleetError, match="environment variable"):
        to_record(spec(boot=Program(Path("/i"), ("x",), env=(env,))))


def test_unit_names_and_keys_belong_together() -> None:
    assert key_of_unit(unit_name(KEY)) == KEY
    assert key_of_unit("other.service") is None


def test_controllers_count_only_where_the_unit_has_its_own_group() -> None:
    text = "4:memory:/unifleet.slice/x.service\n3:cpu,cpuacct:/unifleet.slice/x.service\n2:blkio:/\n0::/x.service\n"
    assert controllers_of_process(text) >= {"memory", "cpu", "cpuacct"}
    assert "blkio" not in controllers_of_process(text)


def test_links_are_followed_inside_the_image_and_never_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "up").symlink_to("../../../../etc")
    (tmp_path / "absolute").symlink_to("/usr")
    assert resolve(tmp_path, "/bin/sh") == "/usr/bin/sh"
    assert resolve(tmp_path, "/up/shadow") == "/etc/shadow"
    assert resolve(tmp_path, "/absolute/../../x") == "/x"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UnifleetError, match="too many"):
        resolve(tmp_path, "/loop")
    for bad in ("x", "", "/a\nUser=root"):
        with pytest.raises(UnifleetError):
            resolve(tmp_path, bad)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["../..", "/", "/a/b", "..", "c", "a/../../b", "/etc"])), max_size=6),
    st.lists(st.sampled_from(["a", "b", "..", "c", "d", "etc"]), max_size=6),
)
def test_no_tangle_of_links_leads_out_of_the_image(links: list[tuple[str, str]], path: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "image"
        root.mkdir()
        for link, target in links:
            if not (root / link).is_symlink():
                (root / link).symlink_to(target)
        try:
            found = resolve(root, "/" + "/".join(path))
        except UnifleetError:
            return
        assert ".." not in found.split("/")
        assert (root / found[1:]).resolve().is_relative_to(root)


def test_a_program_is_looked_for_in_the_images_own_path(tmp_path: Path) -> None:
    program = tmp_path / "opt/tool"
    program.parent.mkdir()
    program.touch(mode=0o755)
    (tmp_path / "opt/data").touch(mode=0o644)
    assert find_program(tmp_path, ("tool",), "/bin:/opt", "/") == "/opt/tool"
    assert find_program(tmp_path, ("./tool",), "/bin", "/opt") == "/opt/tool"
    for argv in (("data",), ("missing",), ("/opt/data",), ("/opt",), (), ("",)):
        with pytest.raises(UnifleetError):
            find_program(tmp_path, argv, "/opt", "/")


def test_the_root_shows_the_image_with_mount_points_and_leaves_the_image_alone(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "etc/deep").mkdir(parents=True)
    (image / "etc/passwd").touch()
    (image / "bin").symlink_to("usr/bin")
    (image / "app").touch()
    before = sorted(image.rglob("*"))
    binds = build_root(tmp_path / "root", image, [("/etc/sensor/value", False), ("/proc", True), ("/etc/deep", True)])
    assert sorted(image.rglob("*")) == before
    assert sorted(bind.target for bind in binds) == ["/app", "/etc/passwd"]
    root = tmp_path / "root"
    assert (root / "etc/sensor/value").is_file()
    assert (root / "proc").is_dir()
    assert (root / "bin").readlink() == Path("usr/bin")


def test_users_are_looked_up_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\nweb:x:33:44::/:\nbad:x:z:z::/:\n")
    (tmp_path / "etc/group").write_text("staff:x:50:\n")
    assert user_and_group(tmp_path, "web") == ("33", "44")
    assert user_and_group(tmp_path, "web:staff") == ("33", "50")
    assert user_and_group(tmp_path, "1000") == ("1000", "1000")
    assert user_and_group(tmp_path, "0:0") == ("", "")
    for user in ("nobody", "bad", "web:wheel"):
        with pytest.raises(UnifleetError, match="not in the image"):
            user_and_group(tmp_path, user)
