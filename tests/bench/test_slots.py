"""The bench of many slots works at its smallest size: each action runs, whatever its slots do, and the table is whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bench import slots
from simulated_engine import Cluster


def test_every_action_ends_though_slots_are_lost(tmp_path: Path) -> None:
    """A slot lives as long as ten actions take."""
    cluster = Cluster(slots=8, mean=0.05, arrival=0.1, life=0.5, trip=0.001)

    client, story = slots.run(tmp_path, 200, cluster, jobs=8)

    assert story.began == story.ended == 200
    assert story.lost > 0
    assert 0 < story.most_operations <= 8
    assert 0 <= story.busy <= story.there
    assert client.threads > 0
    rows = slots.rows(200, cluster, client, story)
    assert {len(row) for row in rows} == {2}
    assert ["actions", "200"] in rows


def test_a_call_without_an_answer_is_repeated(tmp_path: Path) -> None:
    """The storage of an engine has no substitute: the build continues with it."""
    cluster = Cluster(slots=8, mean=0.01, arrival=0.1, trip=0.001, unanswered=40)

    _, story = slots.run(tmp_path, 60, cluster, jobs=8)

    assert story.began == story.ended == 60
    assert story.unanswered > 1


def test_durations_have_the_mean_that_was_asked_for() -> None:
    cluster, chance = Cluster(mean=3.0, stragglers=0.01), random.Random(7)
    durations = [cluster.duration(chance) for _ in range(100_000)]
    assert sum(durations) / len(durations) == pytest.approx(3.0, rel=0.05)
    assert max(durations) > 30.0
