"""What a cell takes from this machine, and which of bk's own files are in the keys of cells."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import bkrules
from bkrules.analysis import host_inputs
from bkrules.analysis.collection import ABOVE
from bkrules.analysis.host_inputs import AROUND_CELLS, IN_CELLS, Machine

PACKAGE = Path(bkrules.__file__).parent
START = ("cell/zygote.py",)
"""All that runs in cells is imported by the process from which they are forked."""
AROUND = ("runners/open_cell.py", "runners/test_cell.py", "runners/cell_pool.py")
"""What bk itself does for a cell is imported by these."""
NOT_IN_CELLS = {
    "__init__.py": "names for build files; nothing in a cell reads them",
    **{f"{part}/__init__.py": "empty" for part in ("execution", "mirror", "model", "sandbox", "system")},
    "sandbox/command.py": "the sandbox of ordinary actions, which the zygote makes too",
    "sandbox/messages.py": "the messages about these",
}
NOT_AROUND = {
    **NOT_IN_CELLS,
    "images/__init__.py": "empty",
    "images/protocol.py": "names of media types and interfaces, which others implement",
    "model/reference.py": "what it parses is in the key, as the places of images",
    "images/lock.py": "analysis: what it finds is in the keys of the actions that it declares",
    "images/web.py": "a client of registries",
    "execution/result.py": "what is reported of results that exist",
    "sandbox/command_groups.py": "the limits of ordinary actions",
    "runners/preflight.py": "decides whether a cell runs, not how",
    "sandbox/trial.py": "likewise",
    "runners/missing_files.py": "hints with a failure, which is never kept",
    "sandbox/outputs.py": "reads outputs when a cell has ended",
    "sandbox/run_folder.py": "scratch folders, whose places no cell knows",
    "execution/cell_folder.py": "removes the results of an earlier run, which no cell sees",
    "execution/layout.py": "names of files in the folder of a cell",
    "execution/timeline.py": "logs",
}


def imports(path: Path) -> Iterator[str]:
    """The names of modules in a file, as it may import them: at its top, in a function, or by a text; not for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def files_of(
    package: Path, start: tuple[str, ...], left_out: Collection[str] = (), within: tuple[str, ...] = ("",)
) -> set[str]:
    """The files of a package that these files import, and what those import: only what lies `within`, and is not left out."""
    found: set[str] = set()
    todo = list(start)
    while todo:
        path = todo.pop()
        if path in found or path in left_out:
            continue
        found.add(path)
        for name in imports(package / path):
            parts = name.split(".")
            if parts[0] == package.name and all(part.isidentifier() for part in parts):
                stem = "/".join(parts[1:])
                places = (f"{stem}.py", f"{stem}/__init__.py".lstrip("/"))
                todo += [one for one in places if one.startswith(within) and (package / one).is_file()]
    return found


def missing(found: set[str], patterns: tuple[str, ...]) -> set[str]:
    """The files that are in no list."""
    return {path for path in found if not any(fnmatchcase(path, pattern) for pattern in patterns)}


def test_all_code_of_cells_is_in_their_keys() -> None:
    """A module that is imported there and is in no list would change what happens in cells, and no key."""
    assert not missing(files_of(PACKAGE, START, NOT_IN_CELLS), IN_CELLS)


def test_all_code_around_cells_is_in_their_keys() -> None:
    found = files_of(
        PACKAGE, AROUND, NOT_AROUND, within=("cell/", "execution/", "images/", "mirror/", "runners/", "sandbox/")
    )

    assert not missing(found, (*IN_CELLS, *AROUND_CELLS))


def test_all_code_that_collects_tests_is_in_the_key_of_the_collection() -> None:
    found = files_of(PACKAGE, ("testing/collect.py",), NOT_IN_CELLS)

    assert not missing(found, IN_CELLS)
    assert not [path for path in found if f"bkrules/{path}".startswith(ABOVE)]


def test_what_the_lists_name_is_there() -> None:
    for pattern in (*IN_CELLS, *AROUND_CELLS):
        assert list(PACKAGE.glob(pattern)), pattern
    for path in NOT_IN_CELLS:
        assert (PACKAGE / path).is_file(), path


@pytest.mark.parametrize(
    "statement",
    [
        "from bkrules.execution import fresh",
        "from bkrules.execution.fresh import name",
        "import bkrules.execution.fresh",
        "import bkrules.execution.fresh as other",
        "def late():\n    from bkrules.execution.fresh import name",
        "importlib.import_module('bkrules.execution.fresh')",
        "if True:\n    from bkrules.execution.middle import name",
    ],
)
def test_a_new_module_is_found_however_it_is_imported(tmp_path: Path, statement: str) -> None:
    package = tmp_path / "bkrules"
    (package / "execution").mkdir(parents=True)
    (package / "cell").mkdir()
    (package / "cell/zygote.py").write_text(statement)
    (package / "execution/fresh.py").write_text("")
    (package / "execution/middle.py").write_text("from bkrules.execution.fresh import name")

    found = files_of(package, START)

    assert missing(found, ("cell/zygote.py", "execution/middle.py")) == {"execution/fresh.py"}


def test_a_module_for_types_alone_is_none(tmp_path: Path) -> None:
    package = tmp_path / "bkrules"
    (package / "execution").mkdir(parents=True)
    (package / "cell").mkdir()
    (package / "cell/zygote.py").write_text("if TYPE_CHECKING:\n    from bkrules.execution import fresh")
    (package / "execution/fresh.py").write_text("")

    assert files_of(package, START) == {"cell/zygote.py"}


def test_a_cell_sees_the_packages_and_no_more_of_an_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a virtual environment its folder is `/usr` or such, with all the commands of the machine."""
    assert sys.prefix in host_inputs.load(str(tmp_path)).binds

    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    binds = host_inputs.load(str(tmp_path)).binds

    assert sys.base_prefix not in binds
    assert sysconfig.get_path("purelib") in binds


def test_a_command_has_its_name_wherever_the_machine_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a program of many names, as busybox, too."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/nsenter").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}/odd:{os.environ['PATH']}")
    host_inputs.find.cache_clear()
    here: Machine = host_inputs.load(str(tmp_path))

    found = here.helpers(["nsenter"])

    host_inputs.find.cache_clear()
    assert found["nsenter"] == os.path.realpath("/bin/true")
    assert all(name == "nsenter" or name.startswith("lib/") for name in found)


RECORD = """pytest/__init__.py,sha256=abc,10
pytest-1.dist-info/RECORD,,
pytest-1.dist-info/direct_url.json,sha256=PLACE,3
../../../bin/pytest,sha256=PLACE,200
__editable__.pth,sha256=PLACE,5
__editable___pytest_finder.py,sha256=PLACE,5
pytest/__pycache__/x.pyc,,
"""


def test_what_a_distribution_has_installed_is_told_by_its_record(tmp_path: Path) -> None:
    record = tmp_path / "RECORD"

    def content(text: str) -> str:
        record.write_text(text)
        return host_inputs._content(str(record))

    before = content(RECORD)
    assert content(RECORD.replace("PLACE", "elsewhere")) == before
    assert content("\n".join(reversed(RECORD.splitlines()))) == before
    assert content(RECORD.replace("abc", "abd")) != before
    assert host_inputs._content(str(tmp_path / "none")) == "unknown"


@pytest.mark.parametrize(
    ("points", "is_left_out"),
    [
        ("[bkrules.modules]\na = a\n", True),
        ("[bkrules.modules]\na = a\n[bk]\nb = b\n", False),
        ("[bk]\nb = b\n", False),
        ("", False),
    ],
)
def test_a_distribution_that_is_only_a_module_is_in_no_key(tmp_path: Path, points: str, is_left_out: bool) -> None:
    assert not host_inputs._is_module(str(tmp_path))
    (tmp_path / "entry_points.txt").write_text(points)

    assert host_inputs._is_module(str(tmp_path)) == is_left_out


def test_packages_are_asked_about_anew_when_one_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    info = folder / "one-1.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("one.py,sha256=a,1\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder))
    before = host_inputs._packages(str(tmp_path))
    assert before.startswith("one-1 ")
    assert host_inputs._packages(str(tmp_path)) == before

    (info / "RECORD").write_text("one.py,sha256=b,1\n")
    changed = host_inputs._packages(str(tmp_path))
    assert changed != before
    (info / "RECORD").unlink()
    assert host_inputs._packages(str(tmp_path)) == "one-1 unknown\n"
    (folder / "two-2.dist-info").mkdir()
    assert host_inputs._packages(str(tmp_path)) == "one-1 unknown\ntwo-2 unknown\n"
