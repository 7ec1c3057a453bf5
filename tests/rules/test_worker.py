"""What a worker's tools mean for its cells; nothing runs."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.model.action import Action

TOOLS = ("buildkitd", "buildctl", "registry", "runc")
WORKSPACE = f"""from bkrules import go_toolchain, host_binary, workspace
workspace(name = "test")
go_toolchain(name = "go", version = "1.0.0", sha256 = {{"linux-{platform.machine()}": "{"0" * 64}"}})
[host_binary(name = tool, binary = "cat") for tool in {TOOLS}]
"""
BUILD = """from bkrules import go_binary, image, image_mirror, test_matrix, worker
image(name = "small", files = {{}})
image_mirror(name = "mirror", images = {{"docker.io/library/small:latest": ":small"}})
go_binary(name = "covered", srcs = ["main.go"], mod = "go.mod", coverpkg = ["example.test/..."])
worker(name = "oci", plugin = "oci")
worker(name = "oci_covered", plugin = "oci", id = "covered", tools = {{"buildkitd": ":covered"}})
test_matrix(
    name = "m", tests = ["test_it.py"], workers = [":oci", ":oci_covered"], mirror = ":mirror", isolation = {isolation!r},
)
"""
Declared = Callable[[str], dict[str, Action]]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The cells of a matrix with that isolation, on a worker with a covered buildkitd and on one without, by their workers."""
    files = {"go.mod": "module p\n", "go.sum": "", "main.go": "", "test_it.py": "def test_it(sandbox): pass\n"}
    (tmp_path / "WORKSPACE.py").write_text(WORKSPACE)
    (tmp_path / "p").mkdir()
    for name, text in files.items():
        (tmp_path / "p" / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    def declare(isolation: str) -> dict[str, Action]:
        (tmp_path / "p/BUILD.py").write_text(BUILD.format(isolation=isolation))
        actions = analyze_patterns(".", ["//p:m"]).wanted().values()
        return {action.cell.worker: action for action in actions if action.cell}

    return declare


def test_cells_with_a_covered_tool_keep_what_it_writes_and_others_know_nothing_of_it(declared: Declared) -> None:
    cells = declared("cell")

    assert cells["covered"].outputs == ("test.log", "result.json", "coverage", "test.outputs")
    assert dict(cells["covered"].environment)["GOCOVERDIR"] == "/out/coverage"
    assert cells["oci"].outputs == ("test.log", "result.json", "test.outputs")
    assert "GOCOVERDIR" not in dict(cells["oci"].environment)


def test_a_worker_with_a_covered_tool_is_not_shared(declared: Declared) -> None:
    with pytest.raises(LoadError, match="tools of 'covered' write their coverage when they end"):
        declared("worker")
