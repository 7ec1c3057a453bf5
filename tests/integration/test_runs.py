"""Cells that run several times: because they are told to, and because they failed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaces import ATTEMPT, Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

TEST = """
import os

def test_it(sandbox):
    print("run", os.environ["TEST_RUN_NUMBER"], "seed", os.environ["TEST_RANDOM_SEED"], "level", os.environ.get("LEVEL"))
    assert os.environ["TEST_RUN_NUMBER"] in ("1", "3")
"""
LATER = f"""{ATTEMPT}
def test_it(sandbox):
    assert attempt() == 3, "not yet"
"""


def test_runs_of_a_cell(tools: Space, report: Report) -> None:
    matrix(tools, TEST, "oci")

    for _ in range(2):  # several runs run, whatever is known
        done = tools.bk("test", "//targets:small", "--runs_per_test=3", "--test_env=LEVEL=debug")
        assert done.returncode == 3, done.stdout + done.stderr
        assert "FAILED in 1 out of 3" in done.stdout
        assert "3 runs of 1 cell: 2 passed, 1 failed (0 cached, 3 not)" in done.stdout
    kept = tools.bk("test", "//targets:small", "--runs_per_test=3", "--test_env=LEVEL=debug", "--cache_test_results")
    assert "3 runs of 1 cell: 2 passed, 1 failed (2 cached, 1 not)" in kept.stdout

    cells = report(tools.root, "small")["cells"]
    assert [(cell["run"], cell["status"]) for cell in cells] == [
        ({"number": 1, "of": 3}, "passed"),
        ({"number": 2, "of": 3}, "failed"),
        ({"number": 3, "of": 3}, "passed"),
    ]
    assert len({cell["key"] for cell in cells}) == 3
    assert "run 3 seed 3 level debug" in (tools.root / cells[2]["log"]).read_text()


def test_results_that_are_not_asked_for(tools: Space) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    said = [
        tools.bk("test", "//targets:small", *options).stdout
        for options in ([], [], ["-t-"], ["--nocache_test_results"], ["-t"], ["--cache_test_results=auto"])
    ]
    cached = ["1 passed (1 cached, 0 not)" in text for text in said]
    assert cached == [False, True, False, False, True, True], said


def test_a_later_build_has_the_same_folders_of_links(tools: Space) -> None:
    """A link moves the ctime of its blob, and bk reads a blob with another ctime again: all tools, in each build."""
    matrix(tools, "def test_it(sandbox): pass\n", "oci", "containerd")
    seen = []
    for _ in range(2):
        done = tools.bk("test", "//targets:small", "--nocache_test_results")
        assert done.returncode == 0, done.stdout + done.stderr
        seen.append({path: path.stat().st_ino for path in (tools.cache / "links").rglob("*")})
    assert seen[0] == seen[1]
    assert len([path for path in seen[0] if path.name == "buildkitd"]) == 2, "of each worker"
    assert len([path for path in seen[0] if path.name == "docker"]) == 1, "the storage of their registry"


def test_a_flaky_matrix(tools: Space, report: Report) -> None:
    matrix(tools, LATER, "oci", more="flaky = True,")

    for _ in range(2):
        done = tools.bk("test", "//targets:small")
        assert done.returncode == 0, done.stdout + done.stderr
        (cell,) = report(tools.root, "small")["cells"]
        assert (cell["status"], cell["class"], cell["cached"]) == ("flaky", "test", False)
    assert [attempt["status"] for attempt in cell["attempts"]] == ["failed", "failed", "passed"]
    assert all((tools.root / attempt["log"]).read_text() for attempt in cell["attempts"])
    (case,) = ET.parse(tools.root / "bk-out/targets/small/test.xml").iter("testcase")
    assert [one.tag for one in case] == ["properties", "flakyFailure", "flakyFailure"]

    done = tools.bk("test", "//targets:small", "--flaky_test_attempts=2")
    assert done.returncode == 3
    assert "FAILED (2 attempts): " in done.stdout
    document = json.loads((tools.root / "bk-out/targets/small/report.json").read_text())
    assert len(document["cells"][0]["attempts"]) == 2


def test_what_tests_print(tools: Space) -> None:
    matrix(tools, "def test_it(sandbox):\n    print('a word')\n    assert False, 'and no more'\n", "oci", "oci_stargz")

    said = {wish: tools.bk("test", "//targets:small", f"--test_output={wish}") for wish in ("summary", "errors", "all")}
    streamed = tools.bk("test", "//targets:small", "--test_output=streamed")

    assert {done.returncode for done in (*said.values(), streamed)} == {3}
    assert "a word" not in said["summary"].stdout
    assert "test.log" in said["summary"].stdout
    assert said["errors"].stdout.count("\na word\n") == 1, "both fail alike"
    assert "a word" not in said["errors"].stderr
    assert said["all"].stderr.count("==================== Test output for //targets:small[test_it/worker=oci") == 2
    assert streamed.stderr.splitlines().count("a word") == 2
    assert "    | a word" not in streamed.stdout
