"""The bench of remote execution works at its smallest size: workers run what they should, and the table is whole."""

from __future__ import annotations

import re

import pytest
from bench import remote_execution
from clusters import Begin, Cluster
from schedulers import Worker
from spaces import Space

pytestmark = pytest.mark.soak


def test_every_side_runs_everything(tools: Space, cluster: Cluster, begin: Begin) -> None:
    remote_execution.prepare(tools)
    workers: list[Worker] = []

    def start(name: str) -> Worker:
        workers.append(begin(name))
        return workers[-1]

    loads: list[float] = []
    header, *rows = remote_execution.rows(tools, cluster, start, 1, 1, loads)

    kinds = ("no-op action, 1 at once", "hello cell, 1 at once", "no-op action, 2 at once", "hello cell, 2 at once")
    assert [row[0] for row in rows] == list(kinds)
    assert {len(row) for row in rows} == {len(header)}
    assert len(loads) == 2 * len(kinds)
    logs = "".join(worker.log.read_text() for worker in workers)
    assert len(workers) == 2
    assert len(re.findall(r"^[0-9a-f]{64}: [0-9.]+s$", logs, re.MULTILINE)) == len(loads), (
        "each round has one remote action"
    )
