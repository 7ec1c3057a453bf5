"""What pytest collects is what bk runs: each item is a cell, and a cell that collects other tests than were declared fails."""

from __future__ import annotations

import json
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import Space, matrix, wait_for

Report = Callable[[Path, str], dict[str, Any]]

TWELVE = """
import pytest
from other import test_imported, TestElsewhere

def make():
    return lambda: None

test_made = make()

async def test_asynchronous():
    pass

def test_plain():
    pass

if True:
    def test_below_if():
        pass

try:
    import nothing_of_this_name
except ImportError:
    def test_below_try():
        pass

for name in ("one", "two"):
    exec(f"def test_{name}(): pass")

@pytest.mark.parametrize("path", ["a/b", "../c"])
def test_slashes(path):
    assert path in ("a/b", "../c")

class TestHere:
    if len("three") == 5:
        def test_conditional(self):
            pass

def test_deleted():
    raise AssertionError("it must not run")

del test_deleted
"""
OTHER = """
def test_imported():
    pass

class TestElsewhere:
    def test_inside(self):
        pass
"""
NAMES = {
    "test_made",
    "test_asynchronous",
    "test_plain",
    "test_below_if",
    "test_below_try",
    "test_one",
    "test_two",
    "test_slashes[a/b]",
    "test_slashes[../c]",
    "TestHere::test_conditional",
    "test_imported",
    "TestElsewhere::test_inside",
}


def statuses(cells: list[dict[str, Any]]) -> dict[str, str]:
    return {cell["name"].rpartition("/worker=")[0]: cell["status"] for cell in cells}


def test_twelve_tests_are_twelve_cells(tools: Space, report: Report) -> None:
    matrix(tools, TWELVE, "oci")
    tools.write("t/other.py", OTHER)
    done = tools.bk("build", "//targets:small")
    found = statuses(report(tools.root, "small")["cells"])
    assert done.returncode == 3, done.stdout + done.stderr  # pytest fails a coroutine for which it has no plugin
    assert found == {name: "failed" if name == "test_asynchronous" else "passed" for name in NAMES}
    [cell] = [one for one in report(tools.root, "small")["cells"] if one["status"] == "failed"]
    assert "async def functions are not natively supported" in cell["reason"]

    again = tools.bk("build", "//targets:small")
    assert "CollectTests" in done.stderr
    assert "CollectTests" not in again.stderr, "the list is cached by the files that it was read from"
    tools.write("t/other.py", OTHER + "def test_new(): pass\n")
    assert "CollectTests" in tools.bk("aquery", "//targets:small").stderr


ODD = """
import pytest

LONG = "n" * 300

@pytest.mark.parametrize("text", [
    "a/b", "../../c", "c d ", "é", "line\\nbreak", "nul\\0", "a::b", "a.b", "[x]", "]", "..", "",
    "Case", "case", "-", "\\udcff", '"<&>', "*",
])
def test_odd(sandbox, request, text):
    assert sandbox.name == f"{request.node.name}/worker=oci"

@pytest.mark.parametrize("text", [pytest.param(1, id=LONG), pytest.param(2, id=LONG + "2"), pytest.param(3, id="/" * 290)])
def test_long(sandbox, request, text):
    assert sandbox.name == f"{request.node.name}/worker=oci"

def test_%s(): pass
def test_äöü(): pass
""" % ("n" * 280)


def test_odd_names_work_everywhere(tools: Space, report: Report) -> None:
    matrix(tools, ODD, "oci")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert len(cells) == 23
    out = tools.root / "bk-out/targets/small"
    logs = [tools.root / cell["log"] for cell in cells]
    assert len({str(log).lower() for log in logs}) == len(cells) - 1, (
        "no two share a log; Case and case differ by case alone"
    )
    assert all(log.is_relative_to(out) and ".." not in log.parts and len(log.parent.parent.name) < 200 for log in logs)
    suite = ET.parse(out / "test.xml").getroot()[0]
    assert [case.attrib["name"] for case in suite] == [cell["name"] for cell in cells]
    again = tools.bk("build", "//targets:small")
    assert "23 cached" in again.stdout, again.stdout
    for cell in cells:
        name, label = cell["name"], cell["label"]
        assert tools.bk("logs", name, "test").stdout == (tools.root / cell["log"]).read_text(), name
        chosen = tools.bk("test", f"--test_filter={name}", "//targets:small")
        assert chosen.returncode == 0 and "1 passed" in chosen.stdout, (name, chosen.stdout + chosen.stderr)
        if "line" in name or "/" in name.rpartition("/worker=")[0]:
            [why] = json.loads(tools.bk("why", "--json", label).stdout)
            assert (why["name"], why["why"].startswith(("cached", "would run"))) == (name, True)


HOOKS = """
import pytest

@pytest.fixture(params=["l", "r"])
def side(request):
    return request.param

def pytest_make_parametrize_id(config, val, argname):
    return "raw\\nbreak\\0\\udcff" if val == "raw" else None

def pytest_collection_modifyitems(items):
    items[:] = [one for one in items if "dropped" not in one.name]

def pytest_generate_tests(metafunc):
    if "generated" in metafunc.fixturenames:
        metafunc.parametrize("generated", [1, 2])
"""
HOOKED = """
import unittest
import pytest

__test__ = True

def test_side(side): pass
def test_generated(generated): pass
def test_dropped(): raise AssertionError
test_off = lambda: 1 / 0
test_off.__test__ = False
@pytest.mark.parametrize("x", ["raw", "plain"])
def test_raw(x): assert x in ("raw", "plain")
class Cases(unittest.TestCase):
    def test_case(self): self.assertTrue(True)
class TestOff:
    __test__ = False
    def test_never(self): raise AssertionError
def test_again(): raise AssertionError
def test_again(): pass
"""


def test_hooks_and_fixtures_of_a_conftest_decide(tools: Space, report: Report) -> None:
    matrix(tools, HOOKED, "oci")
    tools.write("t/conftest.py", HOOKS)
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(report(tools.root, "small")["cells"]) == dict.fromkeys(
        [
            *("test_side[l]", "test_side[r]", "test_generated[1]", "test_generated[2]"),
            *("test_raw[raw\\nbreak\\x00\\udcff]", "test_raw[plain]", "Cases::test_case", "test_again"),
        ],
        "passed",
    )


RETURNS = """
import asyncio
import unittest

def test_none(): return None
def test_value(): return 1 == 2
class TestGroup:
    def test_method(self): return "a" in "b"
class Cases(unittest.TestCase):
    def test_case(self): return self.id() == ""
    def test_none(self): self.assertTrue(True)
async def test_async(): assert False
def test_fails(): assert "a" == "b"
"""


def test_a_test_that_returns_a_value_fails(tools: Space, report: Report) -> None:
    matrix(tools, RETURNS, "oci")
    tools.write("pytest.ini", "[pytest]\nfilterwarnings = ignore\n")
    done = tools.bk("build", "-k", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    cells = {cell["name"].split("/")[0]: cell for cell in report(tools.root, "small")["cells"]}
    assert {name for name, cell in cells.items() if cell["status"] == "passed"} == {"test_none", "Cases::test_none"}
    reasons = {name: cell["reason"] or "" for name, cell in cells.items()}
    returned = "returned False, which pytest ignores; use assert instead of return"
    assert {name: reason for name, reason in reasons.items() if "returned" in reason} == {
        "test_value": f"t/test_small.py:6: test_value {returned}",
        "TestGroup::test_method": f"t/test_small.py:8: test_method {returned}",
        "Cases::test_case": f"t/test_small.py:10: test_case {returned}",
    }
    assert reasons["test_fails"] == "t/test_small.py:13: assert 'a' == 'b'"


NAMED = "python_functions = check_* test\npython_classes = Suite\n"
SETTINGS = {
    "pytest.ini": f"[pytest]\n{NAMED}addopts = -m 'not slow' -ra --unknown\n",
    "pyproject.toml": "[tool.pytest.ini_options]\npython_functions = ['check_*', 'test']\npython_classes = 'Suite'\n"
    "addopts = ['-m', 'not slow']\n",
    "setup.cfg": f"[tool:pytest]\n{NAMED}addopts = --deselect=t/test_small.py::test_slow\n",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_pytest_hold(tools: Space, report: Report, name: str) -> None:
    source = "import pytest\ndef check_a(): pass\nclass Suite:\n    def test_b(self): pass\n"
    source += "class TestC:\n    def test_c(self): pass\n"
    matrix(tools, source + "@pytest.mark.slow\ndef test_slow(): pass\n", "oci")
    tools.write(f"t/{name}" if name == "setup.cfg" else name, SETTINGS[name])
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(report(tools.root, "small")["cells"]) == {"check_a": "passed", "Suite::test_b": "passed"}


def test_doctests_are_tests_where_pytest_collects_them(tools: Space, report: Report) -> None:
    matrix(
        tools,
        'def double(n):\n    """\n    >>> double(2)\n    4\n    """\n    return 2 * n\n\ndef test_a(): pass\n',
        "oci",
    )
    tools.write("pytest.ini", "[pytest]\naddopts = --doctest-modules\n")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(report(tools.root, "small")["cells"]) == {"test_small.double": "passed", "test_a": "passed"}


@pytest.mark.parametrize("isolation", ["cell", "worker"])
def test_a_cell_that_collects_other_tests_fails_with_both_lists(tools: Space, report: Report, isolation: str) -> None:
    source = (
        "import os\nif 'GOMAXPROCS' in os.environ:\n    def test_in_cells(): pass\nelse:\n    def test_outside(): pass\n"
        "def test_always(): pass\n"
    )
    matrix(tools, source, "oci", more=f'isolation = "{isolation}"')
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert statuses(cells) == {"test_outside": "failed", "test_always": "failed"}
    for cell in cells:
        assert cell["class"] == "test"
        assert "only in the cell: test_in_cells; only declared: test_outside" in cell["reason"]


def test_a_wrong_proof_loses_no_test(tools: Space, report: Report) -> None:
    """A module that changes its importer is beyond what syntax can see, and the cell sees it."""
    matrix(tools, "import intruder\ndef test_plain(): pass\n", "oci")
    tools.write("t/intruder.py", "import sys\nsys.modules['test_small'].test_hidden = lambda: None\n")
    done = tools.bk("build", "//targets:small")
    [cell] = report(tools.root, "small")["cells"]
    assert (done.returncode, cell["status"], cell["class"]) == (3, "failed", "test")
    assert "only in the cell: test_hidden" in cell["reason"]


SKIPS = {
    "import pytest\npytest.skip('not today', allow_module_level=True)\ndef test_a(): pass\n": "not today",
    "import pytest\ndocker = pytest.importorskip('nothing_here')\ndef test_a(): pass\n": "could not import 'nothing_here'",
}


@pytest.mark.parametrize("source", SKIPS)
def test_a_module_that_skips_itself_is_a_cell_that_says_so(tools: Space, report: Report, source: str) -> None:
    matrix(tools, source, "oci")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    [cell] = report(tools.root, "small")["cells"]
    assert (cell["name"], cell["status"]) == ("test_small.py/worker=oci", "skipped")
    assert SKIPS[source] in cell["reason"]


BROKEN = {
    "if True:\n    import nothing_here\n": ("t/test_small.py:2", "No module named 'nothing_here'"),
    "def test_a(): pass\nx = 1 / 0\nif x: pass\n": ("t/test_small.py:2", "ZeroDivisionError"),
    "from helper import *\n": ("t/helper.py:3", "ValueError: of the helper"),
    "if True:\n    def test_a(): yield\n": ("t/test_small.py", "'yield' keyword is allowed in fixtures"),
    "if True:\n    open(__file__.replace('test_small.py', 'data.txt'))\n": (
        "t/test_small.py:2",
        "t/data.txt is in the workspace",
    ),
    "import conftest_is_broken\nif True: pass\n": ("t/conftest.py:1", "ValueError: of the conftest"),
    "import os\nif True:\n    os._exit(3)\n": ("t/test_small.py:1", "exit status 3"),
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_module_that_pytest_cannot_collect_is_an_error_with_its_place(tools: Space, source: str) -> None:
    matrix(tools, source, "oci")
    tools.write("t/helper.py", "\n\nraise ValueError('of the helper')\n")
    tools.write("t/data.txt", "")
    if "conftest" in source:
        tools.write("t/conftest.py", "raise ValueError('of the conftest')\n")
    done = tools.bk("build", "//targets:small")
    place, what = BROKEN[source]
    assert done.returncode == 1, done.stdout + done.stderr
    assert place in done.stderr
    assert what in done.stderr
    assert "pytest cannot collect t/test_small.py" in done.stderr


IMPORTS = """
import importlib
import pytest
from . import sibling
from .sibling import VALUE
from t.deep import below
import namespace.module
import added
skipped = pytest.importorskip("maybe")
pytest_plugins = ["extra_fixtures"]

def test_imports(extra, shared):
    from . import late
    found = [sibling.VALUE, VALUE, below.VALUE, namespace.module.VALUE, added.VALUE, skipped.VALUE, extra, shared, late.VALUE]
    found.append(importlib.import_module("by_name").VALUE)
    assert found == [1] * 10
"""
VALUES = (
    *("t/sibling.py", "t/deep/__init__.py", "t/deep/below.py", "namespace/module.py", "t/libs/added.py", "maybe.py"),
    *("t/late.py", "by_name.py"),
)
CONFTEST = """
import os, sys
import pytest
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "libs"))

@pytest.fixture
def shared():
    return 1
"""


def test_files_that_a_test_imports_are_in_its_cell(tools: Space, report: Report) -> None:
    matrix(tools, IMPORTS, "oci")
    tools.write("t/__init__.py", "")
    tools.write("t/conftest.py", CONFTEST)
    tools.write("extra_fixtures.py", "import pytest\n@pytest.fixture\ndef extra():\n    return 1\n")
    for path in VALUES:
        tools.write(path, "VALUE = 1\n")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    tools.write("by_name.py", "VALUE = 2\n")
    done = tools.bk("build", "//targets:small")
    [cell] = report(tools.root, "small")["cells"]
    assert (done.returncode, cell["status"]) == (3, "failed"), "an edit of any of them is another key"


MISSING = """
import importlib
from importlib.resources import files
from pathlib import Path

def test_module(): importlib.import_module("compu" + "ted")
def test_package(): importlib.import_module("pack" + "age.module")
def test_file(): Path(__file__).with_name("data.txt").read_text()
def test_relative(): open("t/data.txt")
def test_resource(): files("pack").joinpath("data.bin").read_bytes()
def test_nowhere(): open("t/nothing.txt")
def test_elsewhere(): open("/etc/shadow")
"""
HINTS = {
    "test_module": "t/computed.py is in the workspace",
    "test_package": "package/__init__.py is in the workspace",
    "test_file": "t/data.txt is in the workspace and not in the cell: name it in the attribute 'data'",
    "test_relative": "t/data.txt is in the workspace",
    "test_resource": "pack/data.bin is in the workspace",
    "test_nowhere": "No such file or directory: 't/nothing.txt'",
    "test_elsewhere": "No such file or directory: '/etc/shadow'",
}


@pytest.mark.parametrize("isolation", ["cell", "worker"])
def test_a_file_of_the_workspace_that_is_not_in_the_cell_is_named(tools: Space, report: Report, isolation: str) -> None:
    matrix(tools, MISSING, "oci", more=f'isolation = "{isolation}"')
    for path in (
        "t/computed.py",
        "t/data.txt",
        "package/__init__.py",
        "package/module.py",
        "pack/__init__.py",
        "pack/data.bin",
    ):
        tools.write(path, "")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    reasons = {cell["name"].partition("/")[0]: cell["reason"] for cell in report(tools.root, "small")["cells"]}
    assert {name: text for name, text in HINTS.items() if text not in reasons[name]} == {}, reasons
    assert all("attribute" not in reasons[name] for name in ("test_nowhere", "test_elsewhere"))


def test_ctrl_c_ends_a_collection(tools: Space, leftovers: Leftovers) -> None:
    matrix(tools, "if True:\n    while True:\n        pass\n", "oci")
    before = leftovers(tools.cache)
    command = tools.command("build", "//targets:small")
    with subprocess.Popen(command, cwd=tools.root, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "CollectTests t/test_small.py" in running.stderr.readline()
        wait_for(lambda: "bkrules.testing.collect" in "".join(leftovers(tools.cache)["processes"]))
        running.send_signal(signal.SIGINT)
        said = running.stderr.read()
        assert running.wait() == 8, said
    assert "Traceback" not in said
    assert leftovers(tools.cache) == before
