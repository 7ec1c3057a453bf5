"""`pytest --bk-worker` runs cells as its items, and `--pdb` stops in a test, inside its cell."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from leftovers import Leftovers
from spaces import Space, matrix
from terminals import Terminal

TESTS = """
import pytest

def test_passes(sandbox):
    assert "PLATFORMS" in sandbox.run("debug workers").stdout

@pytest.mark.parametrize("number", [1, 2])
def test_number(number):
    print("the number is", number)
    left = number
    assert left == 1

class TestGroup:
    @pytest.mark.xfail(reason="a known fault")
    def test_expected(self):
        assert 1 == 2

def test_skips():
    pytest.skip("not today")

@pytest.fixture
def lost():
    raise RuntimeError("no fixture")

def test_lost(lost):
    pass

@pytest.mark.no_rootless
def test_left_out():
    pass
"""
BREAKS = """
import os
import pytest

@pytest.fixture
def teller():
    yield
    os.mkdir("/out/torn-down")

def test_breaks(sandbox, teller):
    here = "at the breakpoint"
    breakpoint()
    assert here == "changed"

def test_passes():
    pass
"""
SUITES = """
host_binary(name = "bash", binary = "/bin/bash")
go_binary(name = "g_test", srcs = ["//g:a_test.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test")
test_matrix(
    name = "suites",
    tests = ["//t:smoke.sh", "//t:cases", ":suite"],
    cases = {"cases": ["good", "bad"]},
    workers = [":oci"],
    mirror = ":mirror",
    tools = [":bash"],
)
"""
GO_TESTS = """package g

import "testing"

func TestGood(t *testing.T) {}

func TestBad(t *testing.T) { t.Error("as it must") }

func TestSkips(t *testing.T) { t.Skip("not today") }
"""
PROMPT = "(Pdb) "


def run(space: Space, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *words]
    return subprocess.run(command, cwd=space.root, env=environment(space), capture_output=True, text=True, check=False)


def environment(space: Space) -> dict[str, str]:
    return {**os.environ, "HOME": str(space.root), "PYTHONDONTWRITEBYTECODE": "1", "TERM": "dumb"}


def prepare(space: Space, tests: str, *workers: str) -> None:
    matrix(space, tests, *workers, more="timeout = 60, axes = {'size': {'small': 1}},")
    space.write(".bkrc", f"common --disk_cache={space.cache}\n")
    space.write("pytest.ini", "[pytest]\n")


def outcomes(file: Path) -> dict[str, str]:
    found = {}
    for case in ElementTree.parse(file).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        message = "" if problem is None else f"{problem.tag}: {problem.get('message')}"
        found[f"{case.get('classname')}.{case.get('name')}"] = message
    return found


def test_cells_are_items(tools: Space) -> None:
    prepare(tools, TESTS, "oci", "rootless")
    first = run(tools, "t", "--bk-worker=oci,rootless", "--junitxml=first.xml", "-ra", "-p", "no:xdist")
    assert first.returncode == pytest.ExitCode.TESTS_FAILED, first.stdout + first.stderr
    expected: dict[str, str] = {}
    for worker in ("oci", "rootless"):
        name, end = "t.test_small", f"[{worker}-small]"
        expected |= {
            f"{name}.test_passes{end}": "",
            f"{name}.test_number[1-{worker}-small]": "",
            f"{name}.test_number[2-{worker}-small]": "failure: assert 2 == 1",
            f"{name}.TestGroup.test_expected{end}": "skipped: a known fault",
            f"{name}.test_skips{end}": "skipped: not today",
            f"{name}.test_lost{end}": 'error: failed on setup with "RuntimeError: no fixture"',
            f"{name}.test_left_out{end}": "",
        }
    expected["t.test_small.test_left_out[rootless-small]"] = "skipped: the worker has no privileges"
    assert outcomes(tools.root / "first.xml") == expected
    assert first.stdout.count("t/test_small.py:11: AssertionError") == 2, first.stdout
    assert ">       assert left == 1\nE       assert 2 == 1" in first.stdout
    assert "Captured stdout call -----------------------------\nthe number is 2" in first.stdout
    assert "FAILED t/test_small.py::test_number[2-oci-small] - assert 2 == 1" in first.stdout

    # What has passed is cached, also an expected failure; what has failed is known to pytest, and its end ends the build.
    again = run(
        tools, "t", "--bk-worker=oci,rootless", "--lf", "-x", "--junitxml=again.xml", "-k", "number or lost", "-v"
    )
    assert again.returncode == pytest.ExitCode.TESTS_FAILED, again.stdout + again.stderr
    assert "rerun previous 4 failures" in again.stdout
    assert "stopping after 1 failures" in again.stdout
    assert "1 failed" in again.stdout or "1 error" in again.stdout
    cached = run(
        tools, "t", "--bk-worker=all", "-k", "passes or expected or 1", "-o", "junit_family=xunit1", "--junitxml=c.xml"
    )
    assert "4 passed, 8 deselected, 2 xfailed" in cached.stdout, cached.stdout + cached.stderr
    assert (tools.root / "c.xml").read_text().count('name="bk_cached" value="disk"') == 6

    # A process of xdist runs the cells that it gets. Without a tool there is no cell, and pytest says why.
    text = (tools.root / "targets/BUILD.py").read_text().replace("import ", "import genrule, ", 1)
    text = text.replace('"oci", plugin = "oci"', '"oci", plugin = "oci", tools = {"runc": ":bad"}', 1)
    text += 'genrule(name = "bad", outs = ["bad"], cmd = ["$(location //:box)", "false"], tools = ["//:box"])\n'
    tools.write("targets/BUILD.py", text)
    broken = run(tools, "t/test_small.py::test_passes", "--bk-worker=oci", "-n", "1")
    assert "1 error" in broken.stdout, broken.stdout + broken.stderr
    assert "the cell could not run: //targets:bad" in broken.stdout
    assert "//targets:bad: " in broken.stdout.split("the cell could not run")[1]


def test_programs_and_go_tests_are_items(tools: Space) -> None:
    """With the manners of pytest, and the words of the program where pytest's own traceback would be."""
    build = tools.root / "targets/BUILD.py"
    names = "go_binary, go_test, host_binary, test_matrix, worker"
    build.write_text(build.read_text().replace(", worker", f", {names}", 1) + SUITES)
    for path in ("t/BUILD.py", "g/BUILD.py"):
        tools.write(path, "")
    tools.write("t/smoke.sh", "#!/bin/bash\nbuildctl debug workers\n")
    tools.write("t/cases", '#!/bin/bash\necho "the case is $TESTBRIDGE_TEST_ONLY"\n[ $TESTBRIDGE_TEST_ONLY = good ]\n')
    tools.write("g/go.mod", "module example.test/g\n\ngo 1.24\n")
    tools.write("g/a_test.go", GO_TESTS)
    tools.write(".bkrc", f"common --disk_cache={tools.cache}\n")
    tools.write("pytest.ini", "[pytest]\n")

    first = run(tools, "t", "targets", "--bk-worker=oci", "--junitxml=first.xml", "-v", "-p", "no:xdist")
    assert first.returncode == pytest.ExitCode.TESTS_FAILED, first.stdout + first.stderr
    found = outcomes(tools.root / "first.xml")
    kinds = {name: message.partition(":")[0] for name, message in found.items()}
    assert kinds == {
        "t.smoke.sh.smoke.sh[oci]": "",
        "t.cases.cases[good-oci]": "",
        "t.cases.cases[bad-oci]": "failure",
        "targets.BUILD.TestGood[oci]": "",
        "targets.BUILD.TestBad[oci]": "failure",
        "targets.BUILD.TestSkips[oci]": "skipped",
    }, found
    assert "t/smoke.sh::smoke.sh[oci] PASSED" in first.stdout
    assert "the case is bad" in first.stdout
    assert "as it must" in first.stdout
    assert "not today" in found["targets.BUILD.TestSkips[oci]"]

    again = run(tools, "--bk-worker=oci", "--lf", "-x", "-q", "targets/BUILD.py", "t/cases")
    assert again.returncode == pytest.ExitCode.TESTS_FAILED, again.stdout + again.stderr
    assert "stopping after 1 failures" in again.stdout
    cached = run(tools, "t", "targets", "--bk-worker=oci", "-k", "good or TestGood", "-n", "2")
    assert "2 passed" in cached.stdout, cached.stdout + cached.stderr


def test_pdb_stops_in_the_cell(tools: Space, leftovers: Leftovers) -> None:
    prepare(tools, BREAKS, "oci", "containerd")
    before = leftovers(tools.cache)
    command = [*tools.command("test"), "--pdb", "//targets:small", "--test_filter=worker=containerd"]
    with Terminal(command, tools.root, environment(tools)) as terminal:
        assert "-> assert here ==" in terminal.until(PROMPT, 120)
        terminal.type("sandbox.run('debug workers').stdout.split()[0]\n")
        assert "'ID'" in terminal.until(PROMPT, 60)
        terminal.type("here = 'changed'\n")
        terminal.until(PROMPT, 60)
        terminal.type("continue\n")
        assert terminal.end() == 0, terminal.shown
    assert "PASSED test_breaks/worker=containerd/size=small\r\n" in terminal.shown
    assert leftovers(tools.cache) == before

    command = [sys.executable, "-m", "pytest", "--bk-worker=containerd", "--pdb", "t", "-p", "no:xdist"]
    with Terminal(command, tools.root, environment(tools)) as terminal:
        assert "-> assert here ==" in terminal.until(PROMPT, 120), "the pass of a debugged cell is not cached"
        terminal.type("continue\n")
        assert "E       AssertionError: assert 'at the breakpoint' == 'changed'" in terminal.until(PROMPT, 60)
        terminal.type("p here\n")
        assert "'at the breakpoint'" in terminal.until(PROMPT, 60)
        terminal.type("quit\n")
        assert terminal.end() == pytest.ExitCode.INTERRUPTED, terminal.shown
    assert "Quitting debugger" in terminal.shown
    summary = terminal.shown.split("short test summary")[1]
    assert "FAILED t/test_small.py::test_breaks[containerd-small] - AssertionError" in summary
    assert "1 failed, 2 deselected" in summary
    assert leftovers(tools.cache) == before

    alone = tools.bk("test", "--pdb", "//targets:small")
    assert (alone.returncode, "error: --pdb needs a terminal" in alone.stderr) == (2, True)
