"""How builds with cells are ordered, limited and ended, on real workers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import WORKERS, Space, interruptible, matrix, wait_for

Report = Callable[[Path, str], dict[str, Any]]
LIVE = 8
BUDGET = 2.0  # seconds from Ctrl-C to the prompt


def live_cells(space: Space) -> int:
    return len(list((space.root / "bk-out/targets/small").glob("**/here.log")))


def cgroups_of(pid: int) -> list[str]:
    """The cgroups of the cells of a bk; one goes when all processes of its cell are gone."""
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"/bk-{pid}-" in folder]


@pytest.mark.alone
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_with_many_live_cells(tools: Space, report: Report, times: int) -> None:
    test = "import time, pathlib\ndef test_slow(sandbox):\n    pathlib.Path('/out/here.log').touch()\n    time.sleep(600)\n"
    points = ", ".join(f"'{number}': {number}" for number in range(LIVE))
    matrix(tools, test, "oci", more=f"axes = {{'point': {{{points}}}}},")
    process = subprocess.Popen(
        interruptible(tools.command("build", f"-j{LIVE}", "//targets:small", "--profile=p.json")),
        cwd=tools.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: live_cells(tools) == LIVE)
        assert cgroups_of(process.pid) != []
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
        seconds = time.monotonic() - began
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 8, output
    wait_for(lambda: cgroups_of(process.pid) == [], seconds=5)
    assert seconds < BUDGET
    folder = tools.root / "bk-out/targets/small"
    assert all(log.stat().st_size for log in folder.glob("**/buildkitd.log"))
    assert len(list(folder.glob("**/buildkitd.log"))) == LIVE
    if times == 1:
        assert {cell["status"] for cell in report(tools.root, "small")["cells"]} == {"not run"}
        events = json.loads((tools.root / "p.json").read_text())["traceEvents"]
        assert sum(event.get("cat") == "action processing" for event in events) == LIVE
        assert list((tools.cache / "run").iterdir()) == []


def test_the_first_failed_cell_ends_the_build_when_that_is_wanted(tools: Space, report: Report) -> None:
    test = """
import time, pathlib
def test_bad(sandbox): assert False
def test_slow(sandbox): time.sleep(600)
def test_z_late(sandbox): pass
"""
    matrix(tools, test, "oci")

    done = tools.bk("build", "-j2", "--notest_keep_going", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    cells = {cell["name"].partition("/")[0]: cell for cell in report(tools.root, "small")["cells"]}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "test_bad": "failed",
        "test_slow": "not run",
        "test_z_late": "not run",
    }
    assert cells["test_slow"]["reason"] == cells["test_z_late"]["reason"] == "test_bad/worker=oci failed"


def test_the_phases_of_a_cell_are_in_the_profile(tools: Space) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")

    done = tools.bk("build", "--profile=p.json", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    events = json.loads((tools.root / "p.json").read_text())["traceEvents"]
    [action] = [event for event in events if event["name"] == "TestCell test_it/worker=oci"]
    phases = sorted((event for event in events if event.get("cat") == "cell"), key=lambda event: event["ts"])
    assert [event["name"] for event in phases] == ["set up", "boot", "test", "tear down"]
    assert action["ts"] <= phases[0]["ts"]
    assert phases[-1]["ts"] + phases[-1]["dur"] <= action["ts"] + action["dur"]
    assert {event["tid"] for event in phases} == {action["tid"]}


@pytest.mark.parametrize(
    ("more", "options", "seconds"),
    [
        ("size = 'small',", ["--test_timeout=1,60,60,60"], 1),
        ("timeout = 600,", ["--test_timeout=1"], 1),
        ("timeout = 1,", [], 1),
    ],
)
def test_a_cell_has_so_many_seconds(tools: Space, more: str, options: list[str], seconds: int) -> None:
    matrix(tools, "import time\ndef test_slow(sandbox): time.sleep(600)\n", "oci", more=more)

    done = tools.bk("build", *options, "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    assert f"it took more than {seconds} s" in done.stdout


def test_a_timeout_of_the_command_line_proves_nothing_anew(tools: Space) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    assert tools.bk("build", "--test_timeout=100", "//targets:small").returncode == 0

    assert "1 passed (1 cached, 0 not)" in tools.bk("build", "--test_timeout=-1,99,-1,-1", "//targets:small").stdout


def test_cells_that_must_run_alone_do(tools: Space) -> None:
    test = "import time\n" + "\n".join(f"def test_{name}(sandbox): time.sleep(0.2)" for name in "abc")
    matrix(tools, test, *WORKERS[:1], more="tags = ['exclusive'],")

    done = tools.bk("build", "-j3", "--profile=p.json", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    events = json.loads((tools.root / "p.json").read_text())["traceEvents"]
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") == "action processing"
    )
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
