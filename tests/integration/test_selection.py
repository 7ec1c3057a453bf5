"""Filters, shards and BuildKit's environment variables, on real cells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

TEST = "def test_one(sandbox): pass\ndef test_two(sandbox): pass\n"
CELLS = {f"{test}/worker={worker}" for test in ("test_one", "test_two") for worker in ("oci", "rootless")}


@pytest.fixture
def small(tools: Space) -> Space:
    """A workspace with a matrix of four cells."""
    matrix(tools, TEST, "oci", "rootless")
    return tools


def report(space: Space, folder: str = "") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(space.root, "bk-out/targets/small", folder, "report.json").read_text())
    return document


def cells(document: dict[str, Any]) -> set[str]:
    return {cell["name"] for cell in document["cells"]}


def test_a_filtered_run_says_so_and_leaves_other_results(small: Space) -> None:
    assert small.bk("test", "//targets:small").returncode == 0
    assert report(small)["selection"] == {"declared": 4, "selected": 4, "by": [], "partition": None}
    other = small.root / "bk-out/targets/small/test_two/worker=oci/result.json"
    before = other.stat()

    done = small.bk("test", "//targets:small", "--test_filter=//worker=oci$", "--test_filter=-test_two")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 4 declared cells selected by --test_filter=//worker=oci$ --test_filter=-test_two" in done.stdout
    document = report(small)
    assert cells(document) == {"test_one/worker=oci"}
    assert document["selection"]["declared"] == 4
    assert other.stat() == before
    assert '<testsuite name="//targets:small" tests="1"' in (small.root / "bk-out/targets/small/test.xml").read_text()

    done = small.bk("test", "//targets:small", "--test_filter=test_on")
    assert cells(report(small)) == {"test_one/worker=oci", "test_one/worker=rootless"}
    done = small.bk("test", "//targets:small", "--test_filter=test_tow")
    assert done.returncode == 4
    assert "nearest names: test_two" in done.stderr


def test_shards_together_are_the_matrix_and_do_not_overwrite_each_other(small: Space) -> None:
    documents = []
    for number in (1, 2, 3):
        done = small.bk("test", "//targets:small", f"--shard={number}/3")
        assert done.returncode == 0, done.stdout + done.stderr
    documents = [report(small, f"shard_{number}_of_3") for number in (1, 2, 3)]
    assert sorted(len(cells(document)) for document in documents) == [1, 1, 2]
    assert set().union(*map(cells, documents)) == CELLS
    assert not (small.root / "bk-out/targets/small/report.json").exists()

    done = small.bk("test", "//targets:small", "--slice=5-5")
    assert done.returncode == 4
    assert "shard 5 of 5 is empty: 4 cells can run" in done.stderr


def test_variables_of_the_harness_are_honoured_when_all_is_cached(small: Space) -> None:
    """The answer of a build without them is kept, and must not be given to one with them."""
    for _ in range(3):
        assert small.bk("test", "//targets:small").returncode == 0

    done = replace(small, environment={"SKIP_INTEGRATION_TESTS": "1"}).bk("test", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 cells skipped: skipping integration tests, since SKIP_INTEGRATION_TESTS=1" in done.stdout
    assert "0 actions" in done.stdout

    chance = replace(small, environment={"BUILDKIT_WORKER_RANDOM": "1"})
    seeds = set()
    for _ in range(3):
        done = chance.bk("test", "//targets:small")
        assert done.returncode == 0, done.stdout + done.stderr
        [line] = [line for line in done.stderr.splitlines() if "was chosen at random" in line]
        seeds.add(line.partition("--random_worker=")[2].split()[0])
        assert len(report(small)["cells"]) == 2
        worker = report(small)["cells"][0]["worker"]
    assert len(seeds) == 3
    again = line.partition("--random_worker=")[2].split()[0]
    assert small.bk("test", "//targets:small", f"--random_worker={again}").returncode == 0
    assert {cell["worker"] for cell in report(small)["cells"]} == {worker}

    done = small.bk("test", "//targets:small")
    assert "4 cells: 4 passed (4 cached, 0 not)" in done.stdout
    assert cells(report(small)) == CELLS
