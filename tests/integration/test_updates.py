"""Axis values that change the worker, when something goes wrong; and in cells that share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

AXES = 'axes = {"daemon": {"changed": %s}}, updaters = ["//t:daemons.py"],'
LABEL = 'configuration["buildkitd.toml"]["worker"]["oci"]["labels"] = {"edited": "yes"}'
PASSES = "def test_one(sandbox): assert 'edited' in sandbox.run('debug workers --verbose').stdout\n"
Report = Callable[[Path, str], dict[str, Any]]


@pytest.fixture
def outcome(tools: Space, report: Report) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """The exit code, the cell and its updater.log, of a test with this axis value and these functions."""

    def run(value: str, functions: str, more: str = "") -> tuple[int, dict[str, Any], str]:
        matrix(tools, PASSES, "oci", more=f"{AXES % value} timeout = 10, {more}")
        tools.write("t/daemons.py", functions)
        code = tools.bk("test", "//targets:small").returncode
        [cell] = report(tools.root, "small")["cells"]
        log = tools.root / "bk-out/targets/small/test_one/worker=oci/daemon=changed/updater.log"
        return code, cell, log.read_text() if log.exists() else ""

    return run


Outcome = Callable[..., tuple[int, dict[str, Any], str]]


def test_a_function_edits_and_releases(outcome: Outcome) -> None:
    functions = f"def edit(configuration):\n    print('edits')\n    {LABEL}\n    yield\n    print('releases')\n"
    code, cell, log = outcome('{"updater": "edit"}', functions)
    assert (code, cell["status"], log) == (0, "passed", "edits\nreleases\n")


def test_a_plain_function_has_no_release(outcome: Outcome) -> None:
    code, cell, _ = outcome('{"updater": "edit"}', f"def edit(configuration):\n    {LABEL}\n")
    assert (code, cell["status"]) == (0, "passed")


@pytest.mark.parametrize(
    ("functions", "reason", "logged"),
    [
        (
            "def edit(configuration):\n    raise RuntimeError('broken')\n",
            "failed before the daemons",
            "RuntimeError: broken",
        ),
        (
            f"def edit(configuration):\n    {LABEL}\n    yield\n    raise RuntimeError('late')\n",
            "the release of",
            "RuntimeError: late",
        ),
        (
            f"def edit(configuration):\n    {LABEL}\n    yield\n    yield\n",
            "the release of",
            "edit yields more than once",
        ),
        ("import time\ndef edit(configuration):\n    time.sleep(60)\n", "took more than 10 s", ""),
        (
            "def edit(configuration):\n    configuration['buildkitd.toml']['a'] = None\n",
            "failed before the daemons",
            "TypeError",
        ),
    ],
)
def test_a_function_that_fails_fails_the_cell(outcome: Outcome, functions: str, reason: str, logged: str) -> None:
    code, cell, log = outcome('{"updater": "edit"}', functions)
    assert (code, cell["status"], cell["class"]) == (3, "failed", "test")
    assert reason in cell["reason"]
    assert logged in log


def test_flags_for_a_daemon_that_is_not_there(outcome: Outcome) -> None:
    code, cell, _ = outcome('{"flags": {"containerd": ["--debug"]}}', "")
    assert (code, cell["class"]) == (3, "test")
    assert cell["reason"] == "an axis value is for the daemon 'containerd', but this worker has: buildkitd"


def test_cells_share_a_worker_that_was_changed(outcome: Outcome) -> None:
    code, cell, _ = outcome(
        '{"updater": "edit"}', f"def edit(configuration):\n    {LABEL}\n    yield\n", 'isolation = "worker",'
    )
    assert (code, cell["status"], cell["tainted"]) == (0, "passed", [])
