"""Matrices with `isolation = "jail"`: workers do in a user namespace what they do without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import WORKERS, Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

ABLE = (*WORKERS, "rootless_stargz", "dockerd")
JAIL = 'isolation = "jail",'
WHERE = """
def test_where(sandbox):
    inner, outer, count = map(int, open("/proc/1/uid_map").read().split())
    assert (inner, outer > 1 << 30) == (0, JAIL)
"""


def test_workers_run_in_jails(tools: Space, repository: Path, report: Report, leftovers: Leftovers) -> None:
    """They build, export, and pull lazily where they do elsewhere, and nothing stays behind."""
    tests = (repository / "tests/matrix/test_stargz.py").read_text() + WHERE.replace("JAIL", "True")
    matrix(tools, tests, *ABLE, more=f'{JAIL} axes = {{"compression": {{"gzip": "latest", "estargz": "esgz"}}}},')
    before = leftovers(tools.cache)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert len(cells) == len(ABLE) * 8
    assert {(cell["status"], cell["isolation"]) for cell in cells} == {("passed", "jail")}
    assert f"{len(cells)} cells in a jail" in done.stdout
    assert leftovers(tools.cache) == before


def test_a_result_of_a_cell_is_none_of_a_jail(tools: Space, report: Report) -> None:
    matrix(tools, WHERE.replace("JAIL", "False"), "oci")
    build = tools.root / "targets/BUILD.py"
    ordinary = tools.bk("build", "//targets:small")
    [cell] = report(tools.root, "small")["cells"]
    assert (ordinary.returncode, cell["isolation"]) == (0, "full")
    assert "jail" not in ordinary.stdout

    build.write_text(build.read_text().replace('mirror = ":mirror",\n    \n', f'mirror = ":mirror",\n    {JAIL}\n'))
    assert "isolation" in tools.bk("why", "//targets:small").stdout
    done = tools.bk("build", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    [jailed] = report(tools.root, "small")["cells"]
    assert (jailed["status"], jailed["cached"], jailed["isolation"]) == ("failed", False, "jail")
    assert jailed["key"] != cell["key"]


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("oci_fuse_overlayfs", "'oci+fuse-overlayfs' cannot run in a jail: fuse-overlayfs is untested in jails"),
        ("rootless_slirp4netns", "slirp4netns is untested in jails"),
    ],
)
def test_a_worker_that_cannot_says_why(tools: Space, worker: str, reason: str) -> None:
    matrix(tools, WHERE, worker, more=JAIL)

    done = tools.bk("build", "//targets:small")

    assert done.returncode not in (0, 37)
    assert reason in done.stderr
    assert "'isolation'" in done.stderr
