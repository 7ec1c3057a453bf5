"""Reports and events of real builds are what the published schemas say: cells of all endings, on real daemons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas import EVENTS, REPORT, validate
from spaces import ATTEMPT, Space

TESTS = f"""
import subprocess, time
import pytest

{ATTEMPT}

def test_passes(sandbox): pass
def test_fails(sandbox): assert sandbox.worker == "another"
def test_skips_itself(sandbox): pytest.skip("not today")
def test_is_slow(sandbox): time.sleep(600)
def test_is_flaky(sandbox): assert attempt() == 2
@pytest.mark.skip(reason="by its mark")
def test_is_marked(sandbox): pass
def test_wants_out(sandbox):
    subprocess.run(["python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"], check=False)
"""
PROGRAM = "#!/bin/bash\necho 1..2\necho ok 1 - builds\necho 'ok 2 - pushes # SKIP no registry'\n"
BUILD = """
host_binary(name = "bash", binary = "/bin/bash")
test_matrix(
    name = "small",
    tests = ["//t:test_small.py", "//t:program"],
    workers = [":oci"],
    mirror = ":mirror",
    axes = {"kind": {"one": 1}},
    tools = [":bash"],
    timeout = 5,
)
"""


def _checked(space: Space, *words: str) -> tuple[int, dict[str, Any]]:
    """Build the matrix; return the exit code and the report, after a check of both documents."""
    done = space.bk("test", "//targets:small", "--build_event_json_file=events", "--keep_going", *words)
    report: dict[str, Any] = json.loads((space.root / "bk-out/targets/small/report.json").read_text())
    validate(REPORT, report)
    events = [json.loads(line) for line in Path(space.root, "events").read_text().splitlines()]
    assert len(events) > 10, done.stdout + done.stderr
    for event in events:
        validate(EVENTS, event)
    return done.returncode, report


def test_documents_of_real_builds(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", host_binary, test_matrix, worker", 1) + BUILD)
    tools.write("t/BUILD.py", "")
    tools.write("t/test_small.py", TESTS)
    tools.write("t/program", PROGRAM).chmod(0o755)

    code, report = _checked(tools, "--test_filter=-test_is_flaky")

    statuses = {cell["name"].partition("/")[0]: cell["status"] for cell in report["cells"]}
    assert code == 3
    assert statuses == {
        "program": "passed",
        "test_fails": "failed",
        "test_is_marked": "skipped",
        "test_is_slow": "timed out",
        "test_passes": "passed",
        "test_skips_itself": "skipped",
        "test_wants_out": "passed",
    }
    cells = {cell["name"].partition("/")[0]: cell for cell in report["cells"]}
    assert [case["name"] for case in cells["program"]["cases"]] == ["builds", "pushes"]
    assert cells["test_wants_out"]["egress"], "the documents have no attempt to leave the cell"

    code, report = _checked(tools, "--flaky_test_attempts=2", "--test_filter=test_is_flaky")
    assert (code, [cell["status"] for cell in report["cells"]]) == (0, ["flaky"])

    code, report = _checked(tools, "--runs_per_test=2", "--test_filter=test_passes")
    assert code == 0
    assert [cell["run"] for cell in report["cells"]] == [{"number": 1, "of": 2}, {"number": 2, "of": 2}]
    assert report["selection"]["by"]
