"""Failure and interruption: messages, kept results, and no leftovers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import WORKERS, Space, matrix, wait_for

Report = Callable[[Path, str], dict[str, Any]]

LAZY = """
import subprocess
def test_holds_a_lazy_mount(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/bulk:esgz\\nRUN sleep 600\\n")
    sandbox.run(["build", "--frontend=dockerfile.v0", "--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"])
"""


def test_a_failure_is_named_and_the_rest_is_kept(tools: Space, report: Report, leftovers: Leftovers) -> None:
    matrix(
        tools,
        "def test_good(sandbox): pass\ndef test_bad(sandbox):\n    assert sandbox.worker == 'the other'\n",
        "oci",
        "rootless",
    )
    before = leftovers(tools.cache)

    first = tools.bk("build", "//targets:small")
    second = tools.bk("build", "//targets:small")

    assert first.returncode == second.returncode == 3, first.stdout + first.stderr
    log = tools.root / "bk-out/targets/small/test_bad/worker=oci/test.log"
    lines = first.stdout.splitlines()
    assert "FAILED: test_bad/worker=oci: t/test_small.py:3: assert 'oci' == 'the other'" in lines
    assert f"  see {log.relative_to(tools.root)}" in lines
    assert ">       assert sandbox.worker == 'the other'" in lines, "the failed line is missing"
    assert "found worker" not in first.stdout, "the daemon's log is shown, though it has no error"
    cells = {cell["name"]: cell for cell in report(tools.root, "small")["cells"]}
    assert cells["test_good/worker=oci"]["status"] == "passed"
    assert cells["test_good/worker=oci"]["cached"]
    assert cells["test_good/worker=rootless"]["cached"]
    assert cells["test_bad/worker=oci"]["status"] == "failed"
    assert not cells["test_bad/worker=oci"]["cached"]
    assert leftovers(tools.cache) == before


def test_a_test_that_takes_too_long(tools: Space, report: Report, leftovers: Leftovers) -> None:
    matrix(tools, "import time\ndef test_slow(sandbox): time.sleep(600)\n", "oci", more="timeout = 1,")
    before = leftovers(tools.cache)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    assert "TIMED OUT (timeout): test_slow/worker=oci: it took more than 1 s" in done.stdout
    assert report(tools.root, "small")["cells"][0]["class"] == "timeout"
    assert leftovers(tools.cache) == before


def test_a_daemon_that_dies_is_no_failure_of_the_test(tools: Space, report: Report) -> None:
    test = """
import os, signal
from pathlib import Path
def test_dies(sandbox):
    for folder in Path("/proc").glob("[0-9]*"):
        if (folder / "comm").read_text().strip() == "buildkitd":
            os.kill(int(folder.name), signal.SIGKILL)
    sandbox.run("debug workers")
"""
    matrix(tools, test, "oci")

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    cell = report(tools.root, "small")["cells"][0]
    assert cell["class"] == "infrastructure"
    assert "buildkitd ended during the test: killed by SIGKILL" in cell["reason"]


def test_a_daemon_that_does_not_start(tools: Space, report: Report) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "broken")
    tools.write("false.sh", "#!/opt/bk/bin/buildctl\n").chmod(0o755)
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text() + 'worker(name = "broken", plugin = "oci", tools = {"buildkitd": "//:buildctl"})\n'
    )

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    cell = report(tools.root, "small")["cells"][0]
    assert (cell["status"], cell["class"]) == ("failed", "infrastructure")
    assert "buildkitd died before it was ready: exit status 1" in cell["reason"]
    assert "flag provided but not defined" in done.stdout


def test_a_test_that_is_not_collected_is_no_cell(tools: Space) -> None:
    """pytest has no test here, as it says itself, so the matrix is an error before anything runs."""
    matrix(tools, "def test_gone(sandbox): pass\ndel test_gone\n", "oci")

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 1
    assert "t/test_small.py has no test function" in done.stderr


def test_a_skip_is_said_and_kept(tools: Space, report: Report) -> None:
    """It is an answer of the test, which runs again only when its key changes, or when it must."""
    matrix(tools, "import pytest\ndef test_it(sandbox): pytest.skip('not for ' + sandbox.worker)\n", "oci")

    for cached, words, counts in (
        (False, (), "(0 cached, 1 not)"),
        (True, (), "(1 cached, 0 not)"),
        (True, ("--profile=profile",), "(1 cached, 0 not)"),
        (False, ("--nocache_test_results",), "(0 cached, 1 not)"),
    ):
        done = tools.bk("build", "//targets:small", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 cell skipped: not for oci" in done.stdout
        assert counts in done.stdout
        assert cached == ("test_it  skipped (cached)" in done.stdout)
        [cell] = report(tools.root, "small")["cells"]
        assert (cell["cached"], cell["status"], cell["class"]) == (cached, "skipped", "skip")
        assert (cell["reason"], cell["isolation"]) == ("not for oci", "full")
        assert len(cell["attempts"]) == (not cached)
        out = tools.root / "bk-out/targets/small"
        assert '<skipped message="not for oci"' in (out / "test.xml").read_text()
        assert "not for oci" in (tools.root / cell["log"]).read_text()
        shutil.rmtree(out)
    why = tools.bk("why", "//targets:small[test_it/worker=oci]", "--disk_cache", str(tools.cache), "--json")
    [told] = json.loads(why.stdout)
    assert (told["cached"], told["status"], told["why"]) == (True, "skipped", "skipped (cached): not for oci")
    plan = tools.bk("ci", "plan", "//targets:small", "--disk_cache", str(tools.cache))
    assert "1 cells: 1 cached, 0 to run in 0 jobs" in plan.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(tools: Space, leftovers: Leftovers, number: signal.Signals) -> None:
    matrix(tools, LAZY, *WORKERS)
    before = leftovers(tools.cache)
    log = tools.write("build.log", "")
    with log.open("w") as output:
        process = subprocess.Popen(
            tools.command("build", "-j", "5", "//targets:small"), cwd=tools.root, stdout=output, stderr=output
        )
    try:
        wait_for(
            lambda: (
                sum(re.fullmatch(r"\d+ sleep 600 ", name) is not None for name in leftovers(tools.cache)["processes"])
                == len(WORKERS)
            )
        )
        during = leftovers(tools.cache)
        groups = {Path(group).name for group in {*during["cgroups"]} - {*before["cgroups"]}}
        assert len(groups) == len(WORKERS)
        assert len(during["fuse connections"]) > len(before["fuse connections"])
        assert len({*during["network namespaces"]} - {*before["network namespaces"]}) == len(WORKERS)

        process.send_signal(number)
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()

    if number is signal.SIGKILL:
        deadline = time.monotonic() + 10
        while running(leftovers(tools.cache)) != running(before) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running(leftovers(tools.cache)) == running(before)
        assert "removed" in tools.bk("reap").stdout
    else:
        assert process.returncode == 8, log.read_text()
        assert "interrupted" in log.read_text()
    assert leftovers(tools.cache) == before


def running(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """What a killed run must not leave even before a sweep: all but an empty folder or two."""
    return {kind: names for kind, names in found.items() if kind not in ("run folders", "cgroups")}


def test_a_second_run_waits_for_the_first_and_can_be_stopped(tools: Space, leftovers: Leftovers) -> None:
    """Runs on one cache share the work in flight: who comes later takes the first one's result, or ends at Ctrl-C."""
    matrix(tools, "import time\ndef test_slow(sandbox): time.sleep(10)\n", "oci")
    before = leftovers(tools.cache)

    def begin(number: int) -> subprocess.Popen[str]:
        run = subprocess.Popen(
            tools.command("build", "//targets:small"), cwd=tools.root, stdout=subprocess.PIPE, text=True
        )
        wait_for(lambda: len(list((tools.cache / "run").glob("*/ledger"))) == number)
        return run

    first = begin(1)
    wait_for(lambda: any((tools.root / "bk-out/targets/small").glob("**/buildkitd.log")))
    stopped, second = begin(2), begin(3)
    stopped.send_signal(signal.SIGINT)

    assert "the build was interrupted" in stopped.communicate(timeout=8)[0]
    assert "1 passed (0 cached, 1 not)" in first.communicate(timeout=60)[0]
    assert "1 passed (1 cached, 0 not)" in second.communicate(timeout=60)[0]
    assert [run.returncode for run in (first, stopped, second)] == [0, 8, 0]
    assert leftovers(tools.cache) == before


def test_a_broken_worker_fails_its_cells_and_no_others(tools: Space, report: Report) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci", "broken")
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text()
        + 'worker(name = "broken", plugin = "oci", id = "broken", tools = {"runc": "//:ctr", "buildkitd": "//:ctr"})\n'
    )

    done = tools.bk("build", "-j", "2", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    assert {cell["worker"]: cell["status"] for cell in report(tools.root, "small")["cells"]} == {
        "oci": "passed",
        "broken": "failed",
    }
