"""The files of the workspace that a cell has, by the ways in which pytest and Python find modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bkrules.analysis.context import Context
from bkrules.analysis.test_files import _Files, _module
from bkrules.errors import LoadError

TEST = "t/u/test_it.py"


def needed(root: Path, files: Mapping[str, str], package: str = "t") -> list[str]:
    """The files that TEST needs when the workspace holds these; an empty text is a file that nobody need look into."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    workspace = SimpleNamespace(
        place=lambda path: f"{root}/{path}", package=lambda folder: True if folder == package else None
    )
    context = cast(Context, SimpleNamespace(workspace=workspace, label="//t:m"))
    return list(_module(_Files(context), TEST, []).files)


WAYS = {
    "a file next to it": ("import helper", {"t/u/helper.py": ""}),
    "in a function": ("def f():\n    from helper import x", {"t/u/helper.py": ""}),
    "for types": ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper", {"t/u/helper.py": ""}),
    "from the root": ("from t.u.helper import x", {"t/u/helper.py": ""}),
    "a submodule": ("import a.b.c", {"a/__init__.py": "", "a/b/__init__.py": "", "a/b/c.py": ""}),
    "a namespace package": ("import a.b.c\nfrom n import m", {"a/b/c.py": "", "n/m.py": ""}),
    "import_module": ("import importlib\nimportlib.import_module('a.b')", {"a/__init__.py": "", "a/b.py": ""}),
    "import_module by name": ("from importlib import import_module\nimport_module(name='a')", {"a.py": ""}),
    "__import__": ("__import__('a')", {"a.py": ""}),
    "importorskip": ("import pytest\na = pytest.importorskip('a', reason='r')", {"a.py": ""}),
    "pytest_plugins": ("pytest_plugins = ['p.fixtures', 'q']", {"p/fixtures.py": "", "q.py": ""}),
    "one plugin": ("pytest_plugins = 'p'", {"p.py": "import inner", "inner.py": ""}),
    "mock": ("from unittest import mock\n@mock.patch('a.f')\ndef test_a(): pass", {"a.py": ""}),
    "monkeypatch": ("def test_a(monkeypatch):\n    monkeypatch.setattr('a.b.c', 1)", {"a/b.py": ""}),
    "conftests": (
        "",
        {"t/conftest.py": "import above", "t/u/conftest.py": "import here", "t/above.py": "", "t/u/here.py": ""},
    ),
    "a package": ("from .helper import x", {"t/u/__init__.py": "import other", "t/u/helper.py": "", "t/other.py": ""}),
    "the package itself": ("from . import helper", {"t/u/__init__.py": "", "t/u/helper.py": ""}),
    "the package above": ("from ..x import y", {"t/__init__.py": "", "t/u/__init__.py": "", "t/x.py": ""}),
    "above the packages": ("from u.helper import x", {"t/u/__init__.py": "", "t/u/helper.py": ""}),
    "a package around it alone": ("", {"t/__init__.py": "import z", "t/u/__init__.py": "", "z.py": ""}),
    "a relative import_module": ("import importlib\nimportlib.import_module('.b', __package__)", {"t/u/b.py": ""}),
    "a star of a package": ("from a import *", {"a/__init__.py": "__all__ = ['b']", "a/b.py": ""}),
    "resources": (
        "from importlib.resources import files\nD = files('a.data') / 'x'",
        {"a/__init__.py": "", "a/data/__init__.py": ""},
    ),
    "a folder of conftest": (
        "import lib",
        {
            "t/conftest.py": "import sys, os\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'libs'))",
            "t/libs/lib.py": "",
        },
    ),
    "pathlib in conftest": (
        "import lib",
        {
            "t/conftest.py": "import sys\nfrom pathlib import Path\nHERE = Path(__file__).resolve().parent\n"
            "sys.path.append(str(HERE.parent / 'l'))",
            "l/lib.py": "",
        },
    ),
    "a folder that an import adds": (
        "import first",
        {
            "t/u/first.py": "import sys\nfrom pathlib import Path\n"
            "sys.path[:0] = [str(Path(__file__).parents[1] / 'v')]\nimport second",
            "t/v/second.py": "",
        },
    ),
    "pythonpath": ("import lib", {"pytest.ini": "[pytest]\npythonpath = src . ../outside\n", "src/lib.py": ""}),
    "pythonpath of toml": (
        "import lib",
        {"t/pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['src']\n", "t/src/lib.py": ""},
    ),
    "a plugin of addopts": (
        "",
        {
            "pytest.ini": "[pytest]\naddopts = -p p.q -pr -p no:warnings\n",
            "p/__init__.py": "",
            "p/q.py": "",
            "r.py": "",
        },
    ),
    "an encoding": ("# coding: latin-1\nimport helper\nX = '\udce9'", {"t/u/helper.py": ""}),
}
NOT_NEEDED = ("pytest.ini", "t/pyproject.toml")


@pytest.mark.parametrize("way", WAYS)
def test_what_a_test_imports_is_in_its_cell(tmp_path: Path, way: str) -> None:
    source, files = WAYS[way]
    (tmp_path / "t/u").mkdir(parents=True)
    (tmp_path / TEST).write_bytes(source.encode(errors="surrogateescape"))
    assert needed(tmp_path, files) == sorted(files.keys() - set(NOT_NEEDED))


def test_what_lies_beyond_the_package_is_not_shared(tmp_path: Path) -> None:
    files = {TEST: "import os, json, nothing", "conftest.py": "", "t/u/other.py": "", "t/u/conftest.py": ""}
    assert needed(tmp_path, files) == ["t/u/conftest.py"]
    assert needed(tmp_path, files, package="") == ["conftest.py", "t/u/conftest.py"]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (b"x = '\xff'", "t/u/test_it.py:1"),
        (b"# coding: nothing-of-this-name\n", "t/u/test_it.py:1"),
        (b"# coding: undefined\n", "t/u/test_it.py:1"),
        (b"# coding: punycode\n\xff\xfe", "t/u/test_it.py:1"),
        (b"# coding: utf-16\nx = 1\n", "t/u/test_it.py:1"),
        (b"x = 1\n\0", "t/u/test_it.py:"),
        (b"(" * 3000, "t/u/test_it.py:1"),
        (b"x = " + b"-" * 50000 + b"1", "t/u/test_it.py:1"),
    ],
)
def test_a_file_that_is_no_python(tmp_path: Path, source: bytes, place: str) -> None:
    (tmp_path / "t/u").mkdir(parents=True)
    (tmp_path / TEST).write_bytes(source)
    with pytest.raises(LoadError) as caught:
        needed(tmp_path, {})
    assert caught.value.reason == "syntax-error"
    assert caught.value.where.startswith(place)


@pytest.mark.parametrize("text", ["[pytest\n", "[pytest]\n\xff"])
def test_a_configuration_that_pytest_cannot_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "pytest.ini").write_text(text, encoding="latin-1")
    with pytest.raises(LoadError) as caught:
        needed(tmp_path, {TEST: "def test_a(): pass"})
    assert (caught.value.reason, caught.value.where) == ("bad-configuration", "pytest.ini")
