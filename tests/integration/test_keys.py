"""What a cell's key covers, and what it does not: a change here, and exactly the right cells have another key."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import Space

Keys = dict[str, str]
MATRIX = "//targets:stargz_matrix"
BUILD, TEST = "targets/BUILD.py", "tests/matrix/test_stargz.py"


def keys(space: Space, *options: str, prefix: tuple[str, ...] = (), folder: str = "") -> Keys:
    """The keys of the matrix's cells by their names."""
    inside = replace(space, root=space.root / folder)
    done = inside.bk("aquery", MATRIX, "--json", *options, prefix=prefix)
    assert done.returncode == 0, done.stderr
    return {one["cell"]: one["key"] for one in json.loads(done.stdout) if one["cell"]}


def edit(space: Space, file: str, old: str, new: str) -> None:
    path = space.root / file
    text = path.read_text()
    assert old in text, f"{file} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def everything(_name: str) -> bool:
    return True


def only(part: str) -> Callable[[str], bool]:
    return lambda name: part in name


def a_new_conftest(space: Space) -> None:
    space.write("tests/matrix/conftest.py", "X = 1\n")


def an_imported_module(space: Space) -> None:
    space.write("tests/matrix/more.py", "X = 1\n")
    edit(space, TEST, "import json\n", "import json\nimport more\n")


def a_module_behind_it(space: Space) -> None:
    an_imported_module(space)
    space.write("tests/matrix/deeper.py", "Y = 1\n")
    edit(space, "tests/matrix/more.py", "X", "import deeper\nX")
    edit(space, "tests/matrix/deeper.py", "1", "2")


def matrix_attribute(text: str) -> Callable[[Space], None]:
    return lambda space: edit(
        space, BUILD, '    name = "stargz_matrix",\n', f'    name = "stargz_matrix",\n    {text},\n'
    )


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        (lambda space: edit(space, TEST, "echo hello > /hello.txt", "echo hullo > /hello.txt"), only("without_export")),
        (lambda space: edit(space, TEST, "def is_lazy", "def unused(): return 1\n\n\ndef is_lazy"), everything),
        (a_new_conftest, everything),
        (an_imported_module, everything),
        (a_module_behind_it, everything),
        (lambda space: edit(space, BUILD, '"estargz": "esgz"', '"estargz": "esgz "'), only("compression=estargz")),
        (lambda space: edit(space, BUILD, 'library/bulk:esgz"', 'library/bulk:eszg"'), everything),
        (matrix_attribute("timeout = 301"), everything),
        (matrix_attribute("memory = 6000"), everything),
        (matrix_attribute("pids = 4000"), everything),
        (matrix_attribute("disk = 4000"), everything),
        (matrix_attribute('isolation = "worker"'), everything),
        (matrix_attribute('data = ["//:README.md"]'), everything),
        (
            lambda space: edit(
                space, BUILD, 'plugin = "containerd")', 'plugin = "containerd", tools = {"runc": "//:ctr"})'
            ),
            only("worker=containerd/"),
        ),
        (
            lambda space: edit(space, BUILD, 'plugin = "rootless")', 'plugin = "rootless", user = "nobody")'),
            only("worker=rootless/"),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", "edit").strip("<>"),
)
def test_a_change_of_what_a_cell_depends_on(
    clone: Space, change: Callable[[Space], None], dirty: Callable[[str], bool]
) -> None:
    before = keys(clone)
    assert len(before) == 30
    assert all(before.values())

    change(clone)

    after = keys(clone)

    assert {name for name in after if after[name] != before.get(name)} == {name for name in after if dirty(name)}


def test_nothing_else_is_in_a_key(clone: Space, tmp_path: Path) -> None:
    before = keys(clone)
    moved = replace(clone, root=Path(clone.root.rename(tmp_path / "elsewhere with a space")))
    home = tmp_path / "home"
    home.mkdir()

    strange = replace(moved, environment={"HOME": str(home), "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR", "USER": "nobody"})
    assert keys(strange) == before
    assert keys(moved, folder="tests/matrix") == before
    assert keys(moved, prefix=("sh", "-c", 'umask 077; exec "$@"', "sh")) == before
    assert keys(moved, prefix=("unshare", "-u", "sh", "-c", 'hostname other; exec "$@"', "sh")) == before
    assert keys(replace(moved, environment={"PYTHONHASHSEED": "1"})) == before
    for path in moved.root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    assert keys(moved) == before
    edit(moved, TEST, "def is_lazy", "# a remark\n\n\ndef is_lazy")
    edit(moved, BUILD, "test_matrix(", "# a remark\ntest_matrix(")
    (moved.root / "README.md").write_text("other")
    subprocess.run(["rm", "-rf", str(moved.root / "bk-out")], check=True)
    assert keys(moved) == before
