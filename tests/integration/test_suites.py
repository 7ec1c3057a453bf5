"""Matrices under one name."""

from __future__ import annotations

import pytest
from spaces import Space

TEST = "def test_{name}(sandbox):\n    assert sandbox.run('debug workers').stdout\n"
BUILD = """from bkrules import test_matrix, test_suite
test_matrix(name = "one", tests = ["test_one.py"], workers = ["//targets:oci"], mirror = "//targets:mirror")
test_matrix(
    name = "two", tests = ["test_two.py"], workers = ["//targets:oci"], mirror = "//targets:mirror", tags = ["manual"]
)
test_suite(name = "inner", tests = [":two"], tags = ["manual"])
test_suite(name = "both", tests = [":one", ":inner"])
"""


@pytest.mark.parametrize(("command", "pattern"), [("test", "//s:both"), ("build", "//s:both"), ("test", "//s:all")])
def test_a_suite_runs_its_matrices(clone: Space, command: str, pattern: str) -> None:
    """A matrix that is tagged as manual runs too, since the suite names it."""
    clone.write("s/BUILD.py", BUILD)
    for name in ("one", "two"):
        clone.write(f"s/test_{name}.py", TEST.format(name=name))

    done = clone.bk(command, pattern)

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "two"):
        assert f"//s:{name}\n" in done.stdout
    assert "2 cells: 2 passed" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('test_suite(name = "s", tests = [])', "'tests' names no matrix"),
        ('test_suite(name = "s", tests = ["//targets:oci"])', "but //targets:oci is a worker"),
        ('test_suite(name = "s", tests = [":nothing"])', "//s:nothing is neither a target nor a file"),
    ],
)
def test_a_suite_that_makes_no_sense(clone: Space, text: str, said: str) -> None:
    clone.write("s/BUILD.py", f"from bkrules import test_suite\n{text}\n")
    done = clone.bk("build", "//s:s")
    assert done.returncode == 1
    assert said in done.stderr
