"""The jobs of a CI: planned from what is not proven, and shards whose reports are put together."""

from __future__ import annotations

import json
import marshal
import shlex
import shutil
import subprocess
from typing import Any

from servers import cache_server
from spaces import Space, matrix

TEST = "def test_one(sandbox): pass\ndef test_two(sandbox): pass\n"


def plan(space: Space, *more: str) -> list[dict[str, Any]]:
    done = space.bk("ci", "plan", "//targets:small", *more, "--disk_cache", str(space.cache))
    assert done.returncode == 0, done.stderr
    jobs: list[dict[str, Any]] = json.loads(done.stdout)["include"]
    return jobs


def test_jobs_have_what_is_not_proven_and_nothing_else(tools: Space) -> None:
    matrix(tools, TEST, "oci", "rootless")
    jobs = plan(tools, "--max_jobs=3")
    assert sorted(job["cells"] for job in jobs) == [1, 1, 2]

    for job in jobs[:2]:
        done: subprocess.CompletedProcess[str] = tools.bk("test", *shlex.split(job["arguments"]))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{job['cells']} of 4 declared cells selected" in done.stdout
    [last] = plan(tools, "--max_jobs=1")
    assert last["cells"] == 4 - jobs[0]["cells"] - jobs[1]["cells"]
    assert tools.bk("test", *shlex.split(last["arguments"])).returncode == 0
    assert plan(tools) == []


def test_a_clone_without_a_history_divides_by_the_seconds_of_the_last_merge(tools: Space) -> None:
    """Every cell is dirty, so no result of one says how long it may take."""
    matrix(tools, TEST, "oci")
    assert tools.bk("test", "//targets:small").returncode == 0
    with cache_server() as server:
        address = f"--remote_cache={server.address}"
        merge = ("ci", "merge", "bk-out/targets/small/report.json", "--out", "merged")
        done = tools.bk(*merge, address, "--disk_cache", str(tools.cache))
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        took = {
            cell["name"]: cell["seconds"]
            for cell in json.loads((tools.root / "merged/report.json").read_text())["cells"]
        }
        shutil.rmtree(tools.root / "bk-out")
        tools.write("t/test_small.py", TEST.replace("pass", "assert sandbox"))

        jobs = plan(tools, "--max_jobs=2", address)
        alone = plan(tools, "--max_jobs=2")

    assert sorted(job["seconds"] for job in jobs) == sorted(round(seconds, 1) for seconds in took.values())
    assert [job["seconds"] for job in alone] == [0, 0]


def test_the_reports_of_shards_are_merged(tools: Space) -> None:
    matrix(tools, f"{TEST}def test_three(sandbox): assert sandbox.rootless\n", "oci", "rootless")
    codes = [tools.bk("test", "//targets:small", f"--shard={number}/2").returncode for number in (1, 2)]
    assert sorted(codes) == [0, 3]
    reports = [f"bk-out/targets/small/shard_{number}_of_2/report.json" for number in (1, 2)]

    done = tools.bk("ci", "merge", *reports, "--out", "merged")

    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("//targets:small: 6 cells: ")
    assert "5 passed" in done.stdout
    assert "1 failed" in done.stdout
    document = json.loads((tools.root / "merged/report.json").read_text())
    assert len(document["cells"]) == 6
    state = tools.root / "bk-out/.state"
    merged, own = (marshal.loads((state / name).read_bytes()) for name in ("history", "history-of-shards"))
    assert {name for name in merged if "worker=" in name} == {
        f"//targets:small {cell['name']}" for cell in document["cells"] if cell["status"] == "passed"
    }
    assert len([name for name in own if "worker=" in name]) == 6
    assert (tools.root / "merged/test.xml").read_text().count("<testcase ") == 6
    assert tools.bk("ci", "merge", reports[0], "--out", "merged").returncode == 4
    assert tools.bk("ci", "merge", "bk-out/none.json", "--out", "merged").returncode == 2
