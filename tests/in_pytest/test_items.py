"""Cells as items of pytest, and the mistakes in a command line that asks for them. No daemon starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from one_cell import Cells

TESTS = """
import no_such_module_on_this_machine
import pytest

@pytest.mark.slow
def test_it(sandbox):
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_number(number):
    pass

class TestGroup:
    def test_method(self):
        pass
"""
TWICE = """
test_matrix(name = "second", tests = ["test_it.py"], workers = [":oci"], mirror = ":mirror", tags = ["manual"])
test_matrix(
    name = "axes",
    tests = ["test_axes.py"],
    workers = [":oci"],
    mirror = ":mirror",
    axes = {"one": {"a": 1, "a-b": 2}, "two": {"b-c": 1, "c": 2}},
)
"""
PROGRAMS = """
from bkrules import host_binary, test_matrix
host_binary(name = "sh", binary = "/bin/sh")
host_binary(name = "built", binary = "/bin/true")
host_binary(name = "other", binary = "/bin/true")
[
    test_matrix(name = name, tests = tests, workers = ["//p:oci"], mirror = "//p:mirror", tools = [":sh"], cases = cases)
    for name, tests, cases in [
        ("scripts", ["smoke.sh", "below/more.sh", "checks.py"], {"smoke.sh": ["push", "pull"]}),
        ("targets", [":built"], {}),
        ("others", [":other", "smoke.sh"], {}),
    ]
]
"""
EDITOR = """
import pytest

class Editor:
    def pytest_collection_finish(self, session):
        for item in session.items:
            groups = [type(node).__name__ for node in item.listchain()[-3:-1]]
            print("ITEM", item.originalname, item.callspec.id, item.location, groups, hasattr(item.parent, "obj"))

pytest.main(["-p", "no:cacheprovider", "--collect-only", "-q", "--bk-worker=oci", "p/test_it.py"], plugins=[Editor()])
"""
IMPORTED = """
import sys, pytest
class Look:
    def pytest_unconfigure(self):
        known = {"bkrules", "bkrules.in_pytest", "bkrules.in_pytest.options", "bkrules.testing"}
        print("MORE", sorted(name for name in sys.modules if name.startswith("bkrules") and name not in known))
        print("REQUESTS", "requests" in sys.modules)
pytest.main(["-q", "-p", "no:cacheprovider", "p/test_plain.py"], plugins=[Look()])
"""


@pytest.fixture
def workspace(cells: Cells) -> Cells:
    """A workspace with tests that import a module which only cells could have."""
    cells.write("p/test_it.py", TESTS)
    cells.write("p/test_axes.py", "def test_axes():\n    pass\n")
    cells.write("p/no_such_module_on_this_machine.py", "")
    cells.write("p/test_plain.py", "def test_plain():\n    pass\n\ndef test_lost(sandbox):\n    pass\n")
    cells.write("pytest.ini", "[pytest]\nmarkers = slow: is slow\npythonpath = p\n")
    (cells.root / "p/BUILD.py").write_text((cells.root / "p/BUILD.py").read_text() + TWICE)
    return cells


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(words if words[0] == "-c" else ["-m", "pytest", "-p", "no:cacheprovider", *words])]
    own = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "bkrules.in_pytest.options"}
    environment = {**os.environ, **own, "HOME": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def collected(root: Path, *words: str) -> list[str]:
    done = run(root, "--collect-only", "-q", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_names(workspace: Cells) -> None:
    root = workspace.root
    names = [
        "p/test_it.py::test_it[oci-small]",
        "p/test_it.py::test_number[1-oci-small]",
        "p/test_it.py::test_number[2-oci-small]",
        "p/test_it.py::TestGroup::test_method[oci-small]",
    ]
    with_axes = [f"p/test_axes.py::test_axes[oci-one={one}-two={two}]" for one in ("a", "a-b") for two in ("b-c", "c")]
    plain = ["p/test_plain.py::test_plain", "p/test_plain.py::test_lost"]
    assert sorted(collected(root, "--bk-worker=oci", "p")) == sorted([*names, *with_axes, *plain])
    assert collected(root, "--bk-worker=all", "p", "-k", "(2 and small) or method", "-m", "not slow") == names[2:]


def test_programs_are_items(workspace: Cells) -> None:
    """A file is its own test, whatever its name; a target is a test in the build file of its matrix, at its line."""
    root = workspace.root
    workspace.write("q/BUILD.py", PROGRAMS)
    for name in ("smoke.sh", "below/more.sh"):
        workspace.write(f"q/{name}", "#!/bin/sh\nexit 0\n")
    workspace.write("q/checks.py", "def test_odd_name():\n    pass\n")
    scripts = [f"q/smoke.sh::smoke.sh[{case}-scripts-oci]" for case in ("push", "pull")]
    more = [
        "q/below/more.sh::below/more.sh[oci]",
        "q/checks.py::test_odd_name[oci]",
        "q/smoke.sh::smoke.sh[others-oci]",
    ]
    targets = ["q/BUILD.py::built[targets-oci]", "q/BUILD.py::other[others-oci]"]
    assert sorted(collected(root, "--bk-worker=oci", "q")) == sorted([*scripts, *more, *targets])
    assert sorted(collected(root, "--bk-worker=oci", "q/BUILD.py")) == sorted(targets)
    assert collected(root, "--bk-worker=oci", "q/below/more.sh", "q/checks.py") == more[:2]
    assert collected(root, "--bk-worker=oci", scripts[1]) == scripts[1:]
    assert collected(root, "--bk-worker=oci", "q", "-k", "built and targets") == targets[:1]
    places = run(root, "-c", EDITOR.replace("p/test_it.py", "q/BUILD.py")).stdout
    assert "ITEM built targets-oci ('q/BUILD.py', 6, 'built[targets-oci] ')" in places, places


def test_a_matrix_that_cannot_be_analysed(workspace: Cells) -> None:
    """It is an error of the collection, in whatever file its tests are, and its tests are not taken for ordinary ones."""
    root = workspace.root
    workspace.write("q/BUILD.py", PROGRAMS.replace('":other", "smoke.sh"', '":sh", "wrong.py"'))
    for name in ("smoke.sh", "below/more.sh"):
        workspace.write(f"q/{name}", "#!/bin/sh\nexit 0\n")
    workspace.write("q/checks.py", "def test_odd_name():\n    pass\n")
    workspace.write("q/wrong.py", "import no_such_module\n\ndef test_it():\n    pass\n")
    for words in (["q"], ["q/wrong.py"], ["q/wrong.py", "--co", "-q"]):
        done = run(root, "--bk-worker=oci", *words)
        assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
        assert "ERROR collecting q/BUILD.py" in done.stdout
        assert "//q:others: the program 'sh' has the name of a tool" in done.stdout
        assert "no_such_module" not in done.stdout


def test_pytest_runs_elsewhere(workspace: Cells, tmp_path: Path) -> None:
    """In a folder below, in one that is in no workspace, and with another root folder: the cells are those of the file."""
    (tmp_path / "root/below").mkdir(parents=True)
    elsewhere = tmp_path / "root"
    (elsewhere / "pytest.ini").write_text("[pytest]\n")
    file = str(workspace.root / "p/test_axes.py")
    points = [f"[oci-one={one}-two={two}]" for one in ("a", "a-b") for two in ("b-c", "c")]
    for folder, words, place in (
        (workspace.root / "p", ["test_axes.py"], "p/test_axes.py"),
        (workspace.root / "p", [file, "--rootdir", str(workspace.root / "p")], "test_axes.py"),
        (elsewhere, [file, "--rootdir", str(elsewhere)], ""),
        (elsewhere / "below", [file], "p/test_axes.py"),
    ):
        plain = collected(folder, *[word.replace("test_axes.py", "test_plain.py") for word in words])
        assert plain[0] == f"{place.replace('axes', 'plain')}::test_plain", "as pytest names its own tests there"
        names = collected(folder, "--bk-worker=oci", *words)
        assert names == [f"{place}::test_axes{point}" for point in points], (folder, words)
        assert collected(folder, "--bk-worker=oci", f"{file}::test_axes{points[0]}", *words[1:]) == names[:1]


def test_an_editor_finds_the_lines_and_groups(workspace: Cells) -> None:
    """A matrix that is manual counts when its file is named; its cells are next to those of the other matrix."""
    done = run(workspace.root, "-c", EDITOR)
    points = [f"{number}-{matrix}" for number in (1, 2) for matrix in ("m-oci-small", "second-oci")]
    assert [f"p/test_it.py::test_number[{point}]" in done.stdout for point in points] == [True] * 4
    found = [line for line in done.stdout.splitlines() if line.startswith("ITEM")]
    assert (
        found[0] == "ITEM test_it m-oci-small ('p/test_it.py', 5, 'test_it[m-oci-small]') ['Dir', 'CellModule'] False"
    )
    method = "('p/test_it.py', 13, 'TestGroup.test_method[second-oci]') ['CellModule', 'CellClass'] False"
    assert found[-1] == f"ITEM test_method second-oci {method}"


def test_mistakes(workspace: Cells) -> None:
    root = workspace.root
    (root.parent / f"{root.name}-elsewhere").mkdir()
    elsewhere = str(root.parent / f"{root.name}-elsewhere")
    for words, said in (
        (["--bk-worker=ocy", "p"], "the worker 'ocy'\n  did you mean 'oci'? workers: all, oci"),
        (["--bk-worker=,", "p"], "--bk-worker needs the name of a worker"),
        (["-o", "bk_workers=oci rootles", "p"], "bk_workers: no matrix of this workspace runs on the worker 'rootles'"),
        (["--bk-worker=oci", "p/test_plain.py"], "no test_matrix has tests in"),
        (["--bk-worker=oci", elsewhere], "is not in a workspace: no WORKSPACE.py here or in a folder above"),
        (["--bk-worker=oci", "--pdb", "p/test_it.py"], "--pdb needs a terminal"),
    ):
        done = run(root, *words)
        assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
        assert said in done.stderr, done.stderr
    workspace.write("p/BUILD.py", "image(")
    broken = run(root, "--bk-worker=oci", "p")
    assert (broken.returncode, "p/BUILD.py:1" in broken.stderr) == (pytest.ExitCode.USAGE_ERROR, True), broken.stderr


def test_a_test_outside_of_cells(workspace: Cells) -> None:
    """Without a worker nothing of bk's engine is imported, and a test that needs a cell says how it gets one."""
    done = run(workspace.root, "-c", IMPORTED)
    assert "MORE ['bkrules.testing.pytest_plugin']\nREQUESTS False" in done.stdout
    assert "1 passed, 1 error" in done.stdout
    assert "or with pytest's option --bk-worker=WORKER" in done.stdout
