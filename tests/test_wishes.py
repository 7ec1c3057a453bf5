"""Workers that the command line wishes for, beside those of the build files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.build.worker_overrides import NONE, Wishes
from bkrules.errors import UsageError
from bkrules.model.action import Action, HostFile

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
    """The cells of a target with these wishes, by worker, of test_b alone."""
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/BUILD.py").write_text(BUILD)
    (tmp_path / "p/test_it.py").write_text(TEST)
    monkeypatch.chdir(tmp_path)

    def analyze(wishes: Wishes, pattern: str = "//p:m", test: str = "test_b") -> dict[str, Action]:
        actions = analyze_patterns(".", [pattern], wishes=wishes).wanted().values()
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


def test_without_wishes_all_is_as_declared(cells: Cells) -> None:
    assert list(cells(NONE)) == ["oci", "oci+stargz", "containerd"]


def test_a_snapshotter_is_one_more_worker_of_each_kind(cells: Cells) -> None:
    found = cells(Wishes(snapshotter="native"))
    assert sorted(found) == ["containerd", "containerd+native", "oci", "oci+native", "oci+stargz"]
    assert found["oci+native"].parameters["settings"]["snapshotter"] == "native"


def test_a_snapshotter_with_a_plugin_of_its_own_is_that_and_none_comes_twice(cells: Cells) -> None:
    found = cells(Wishes(snapshotter="stargz"))
    assert sorted(found) == ["containerd", "containerd+stargz", "oci", "oci+stargz"]
    assert found["containerd+stargz"].parameters["plugin"] == "containerd+stargz"


def test_binaries_of_the_machine_are_one_more_worker_and_in_its_key(cells: Cells, folder: Path) -> None:
    found = cells(Wishes(binaries=(("containerd-1.7", str(folder)),)))
    assert sorted(found) == ["containerd", "containerd-1.7", "oci", "oci+stargz"]
    tools = {path: one for path, one in found["containerd-1.7"].inputs if path.startswith("tools/")}
    assert tools["tools/containerd"] == HostFile(f"{folder}/containerd")
    assert tools["tools/containerd-shim-runc-v2"] == HostFile(f"{folder}/containerd-shim-runc-v2")
    assert tools["tools/ctr"] == HostFile("cat")
    assert dict(found["containerd"].inputs)["tools/containerd"] == HostFile("cat")


def test_wishes_reach_the_matrices_of_a_suite(cells: Cells) -> None:
    assert "oci+native" in cells(Wishes(snapshotter="native"), "//p:both")


def test_a_user_of_the_machine_is_a_setting_of_workers_without_privileges(cells: Cells) -> None:
    found = cells(Wishes(user="root"), "//p:both")
    assert found["rootless"].parameters["settings"]["user"] == "root"
    assert "user" not in found["oci"].parameters["settings"]


def test_another_build_has_no_wishes(cells: Cells) -> None:
    cells(Wishes(snapshotter="native"))
    assert list(cells(NONE)) == ["oci", "oci+stargz", "containerd"]


@pytest.mark.parametrize(
    ("wishes", "pattern", "message"),
    [
        (Wishes(snapshotter="nonesuch"), "//p:r", "the snapshotter 'nonesuch'"),
        (Wishes(user="root"), "//p:m", "the user 'root'"),
        (Wishes(binaries=(("x", "/nonexistent"),)), "//p:m", "a tool of /nonexistent"),
    ],
)
def test_a_wish_that_changes_nothing_is_an_error(cells: Cells, wishes: Wishes, pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match="no worker of these matrices can take") as caught:
        cells(wishes, pattern)
    assert caught.value.exit_code == 2
    assert message in caught.value.message
    cells(wishes, "//p:small")  # where there is no matrix there is nothing to change


def test_an_id_that_another_worker_has(cells: Cells, folder: Path) -> None:
    with pytest.raises(UsageError, match="//p:m has a worker 'oci' already"):
        cells(Wishes(binaries=(("oci", str(folder)),)))


@pytest.mark.parametrize(
    ("wishes", "skipped"),
    [
        (NONE, False),
        (Wishes(disabled=frozenset({"cdi"})), True),
        (Wishes(enabled=frozenset({"cdi"}), disabled=frozenset({"cdi"})), False),
        (Wishes(disabled=frozenset({"info"})), False),
    ],
)
def test_features_are_enabled_before_they_are_disabled(cells: Cells, wishes: Wishes, skipped: bool) -> None:
    cell = cells(wishes, test="test_a")["oci"].cell
    assert cell is not None
    assert bool(cell.skip) == skipped
    other = cells(wishes)["oci"]
    assert (set(other.parameters["unsupported"]) >= wishes.disabled) == (not wishes.enabled)
