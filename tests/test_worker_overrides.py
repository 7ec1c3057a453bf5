"""Worker overrides: workers that the command line adds to those of the build files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.build.worker_overrides import NONE, WorkerOverrides
from bkrules.errors import UsageError
from bkrules.model.action import Action, HostFile
from bkrules.model.parameters import TestCell, parameters_of

TOOLS = ("buildkitd", "buildctl", "registry", "runc", "rootlesskit", "containerd", "containerd-shim-runc-v2", "ctr")
WORKSPACE = "from bkrules import host_binary, workspace\nworkspace(name = 'test')\n" + "".join(
    f"host_binary(name = {name!r}, binary = 'cat')\n" for name in (*TOOLS, "containerd-stargz-grpc")
)
BUILD = """from bkrules import image, image_mirror, test_matrix, test_suite, worker
image(name = "small", files = {})
image_mirror(name = "mirror", images = {"docker.io/library/small:latest": ":small"})
worker(name = "oci", plugin = "oci")
worker(name = "lazy", plugin = "oci", snapshotter = "stargz")
worker(name = "containerd", plugin = "containerd")
worker(name = "rootless", plugin = "rootless")
test_matrix(name = "m", tests = ["test_it.py"], workers = [":oci", ":lazy", ":containerd"], mirror = ":mirror")
test_matrix(name = "r", tests = ["test_it.py"], workers = [":rootless"], mirror = ":mirror")
test_suite(name = "both", tests = [":m", ":r"])
"""
TEST = "import pytest\n@pytest.mark.requires('cdi')\ndef test_a(sandbox): pass\ndef test_b(sandbox): pass\n"
Cells = Callable[..., dict[str, Action]]


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """The cells of a target with these overrides, by worker, of test_b alone."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/BUILD.py").write_text(BUILD)
    (tmp_path / "p/test_it.py").write_text(TEST)
    monkeypatch.chdir(tmp_path)

    def analyze(overrides: WorkerOverrides, pattern: str = "//p:m", test: str = "test_b") -> dict[str, Action]:
        actions = analyze_patterns(".", [pattern], overrides=overrides).wanted().values()
        return {one.cell.worker: one for one in actions if one.cell and one.cell.test == test}

    return analyze


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a containerd and its shim."""
    found = tmp_path / "bin"
    found.mkdir()
    for name in ("containerd", "containerd-shim-runc-v2"):
        (found / name).write_text("#!/bin/sh\n")
        (found / name).chmod(0o755)
    (found / "ctr").write_text("not executable")
    return found


def test_without_overrides_all_is_as_declared(cells: Cells) -> None:
    assert list(cells(NONE)) == ["oci", "oci+stargz", "containerd"]


def test_a_snapshotter_is_one_more_worker_of_each_kind(cells: Cells) -> None:
    found = cells(WorkerOverrides(snapshotter="native"))
    assert sorted(found) == ["containerd", "containerd+native", "oci", "oci+native", "oci+stargz"]
    assert parameters_of(found["oci+native"], TestCell).settings["snapshotter"] == "native"


def test_a_snapshotter_with_a_separate_plugin_is_that_plugin_and_none_comes_twice(cells: Cells) -> None:
    found = cells(WorkerOverrides(snapshotter="stargz"))
    assert sorted(found) == ["containerd", "containerd+stargz", "oci", "oci+stargz"]
    assert parameters_of(found["containerd+stargz"], TestCell).plugin == "containerd+stargz"


def test_binaries_of_the_machine_are_one_more_worker_and_in_its_key(cells: Cells, folder: Path) -> None:
    found = cells(WorkerOverrides(binaries=(("containerd-1.7", str(folder)),)))
    assert sorted(found) == ["containerd", "containerd-1.7", "oci", "oci+stargz"]
    tools = {path: one for path, one in found["containerd-1.7"].inputs if path.startswith("tools/")}
    assert tools["tools/containerd"] == HostFile(f"{folder}/containerd", executable=True)
    assert tools["tools/containerd-shim-runc-v2"] == HostFile(f"{folder}/containerd-shim-runc-v2", executable=True)
    assert tools["tools/ctr"] == HostFile("cat", executable=True)
    assert dict(found["containerd"].inputs)["tools/containerd"] == HostFile("cat", executable=True)


def test_overrides_reach_the_matrices_of_a_suite(cells: Cells) -> None:
    assert "oci+native" in cells(WorkerOverrides(snapshotter="native"), "//p:both")


def test_a_user_of_the_machine_is_a_setting_of_workers_without_privileges(cells: Cells) -> None:
    found = cells(WorkerOverrides(user="root"), "//p:both")
    assert parameters_of(found["rootless"], TestCell).settings["user"] == "root"
    assert "user" not in parameters_of(found["oci"], TestCell).settings


def test_another_build_has_no_overrides(cells: Cells) -> None:
    cells(WorkerOverrides(snapshotter="native"))
    assert list(cells(NONE)) == ["oci", "oci+stargz", "containerd"]


@pytest.mark.parametrize(
    ("overrides", "pattern", "message"),
    [
        (WorkerOverrides(snapshotter="nonesuch"), "//p:r", "--extra_snapshotter=nonesuch"),
        (WorkerOverrides(user="root"), "//p:m", "--rootless_user=root"),
        (WorkerOverrides(binaries=(("x", "/nonexistent"),)), "//p:m", "--extra_binaries=x=/nonexistent"),
    ],
)
def test_an_unused_override_is_an_error(cells: Cells, overrides: WorkerOverrides, pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match="matches no worker of the selected matrices") as caught:
        cells(overrides, pattern)
    assert caught.value.exit_code == 2
    assert message in caught.value.message
    cells(overrides, "//p:small")  # where there is no matrix there is nothing to change


def test_an_id_that_another_worker_has(cells: Cells, folder: Path) -> None:
    with pytest.raises(UsageError, match="//p:m has a worker 'oci' already"):
        cells(WorkerOverrides(binaries=(("oci", str(folder)),)))


@pytest.mark.parametrize(
    ("overrides", "skipped"),
    [
        (NONE, False),
        (WorkerOverrides(disabled=frozenset({"cdi"})), True),
        (WorkerOverrides(enabled=frozenset({"cdi"}), disabled=frozenset({"cdi"})), False),
        (WorkerOverrides(disabled=frozenset({"info"})), False),
    ],
)
def test_features_are_enabled_before_they_are_disabled(cells: Cells, overrides: WorkerOverrides, skipped: bool) -> None:
    cell = cells(overrides, test="test_a")["oci"].cell
    assert cell is not None
    assert bool(cell.skip) == skipped
    other = cells(overrides)["oci"]
    assert (set(parameters_of(other, TestCell).unsupported) >= overrides.disabled) == (not overrides.enabled)


AXES = """
test_matrix(name = "axes", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror", axes = {
    "runc": {"own": "", "other": {"tools": {"runc": "//:ctr"}}},
})
test_matrix(name = "each", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror", axes = {
    "runc": {"other": {"tools": {"runc": "//:ctr"}}},
})
test_matrix(name = "with", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror", tools = ["//:ctr"])
"""


@pytest.fixture
def runc(folder: Path) -> HostFile:
    """A binary that replaces a tool."""
    return HostFile(str(folder / "containerd"), executable=True)


def tools(action: Action) -> dict[str, object]:
    return {path.removeprefix("tools/"): one for path, one in action.inputs if path.startswith("tools/")}


def test_a_binary_replaces_a_tool_of_every_worker_that_runs_it(cells: Cells, runc: HostFile) -> None:
    found = cells(WorkerOverrides(tools=(("containerd", runc.path), ("runc", runc.path)), snapshotter="native"))

    assert sorted(found) == ["containerd", "containerd+native", "oci", "oci+native", "oci+stargz"]
    assert all(
        tools(cell)["runc"] == runc and tools(cell)["buildctl"] == HostFile("cat", executable=True)
        for cell in found.values()
    )
    assert {worker for worker, cell in found.items() if "containerd" in tools(cell)} == {
        "containerd",
        "containerd+native",
    }
    assert tools(found["containerd"])["containerd"] == runc
    assert list(cells(NONE)) == ["oci", "oci+stargz", "containerd"]


def test_the_added_worker_keeps_the_tools_of_its_folder(cells: Cells, folder: Path) -> None:
    other = str(folder / "containerd-shim-runc-v2")
    found = cells(WorkerOverrides(binaries=(("own", str(folder)),), tools=(("containerd", other), ("runc", other))))

    assert tools(found["own"])["containerd"] == HostFile(str(folder / "containerd"), executable=True)
    assert tools(found["containerd"])["containerd"] == tools(found["own"])["runc"] == HostFile(other, executable=True)


def test_a_value_of_an_axis_takes_precedence_over_a_binary(cells: Cells, runc: HostFile, tmp_path: Path) -> None:
    (tmp_path / "p/BUILD.py").write_text(BUILD + AXES)
    overrides = WorkerOverrides(tools=(("runc", runc.path),))

    found = analyze_patterns(".", ["//p:axes"], overrides=overrides).wanted().values()

    used = {dict(one.cell.axes)["runc"]: tools(one)["runc"] for one in found if one.cell}
    assert used == {"own": runc, "other": HostFile("cat", executable=True)}
    with pytest.raises(UsageError, match="in //p:each, all values of an axis give another 'runc'"):
        cells(overrides, "//p:each")


def test_a_binary_replaces_a_tool_of_the_tests(cells: Cells, runc: HostFile, tmp_path: Path) -> None:
    (tmp_path / "p/BUILD.py").write_text(BUILD + AXES)

    assert tools(cells(WorkerOverrides(tools=(("ctr", runc.path),)), "//p:with")["oci"])["ctr"] == runc


def test_a_binary_for_a_tool_that_no_worker_runs(cells: Cells, runc: HostFile) -> None:
    with pytest.raises(UsageError, match="no worker of the targets asked for runs 'rootlesskit'") as caught:
        cells(WorkerOverrides(tools=(("rootlesskit", runc.path),)))

    assert "their tools: buildctl, buildkitd" in caught.value.hint
    cells(WorkerOverrides(tools=(("rootlesskit", runc.path),)), "//p:small")
