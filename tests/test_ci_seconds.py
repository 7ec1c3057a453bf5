"""How long cells took goes through a remote cache, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_machines import Make, maker
from servers import CacheServer, cache_server

from bkrules.build.ci_seconds import FILE, key_of, publish, published
from bkrules.cache.action_cache import ActionResult

LABEL = "//p:matrix"


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with cache_server() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, server: CacheServer) -> Make:
    """Makes machines, each with an empty disk cache."""
    return maker(tmp_path, server.address)


def report(**cells: tuple[str, float]) -> dict[str, Any]:
    entries = [{"name": name, "status": status, "seconds": seconds} for name, (status, seconds) in cells.items()]
    return {"label": LABEL, "cells": entries}


def send(machine: Make, workspace: str, document: dict[str, Any]) -> None:
    one = machine()
    publish(one.actions, workspace, document)
    assert one.remote.flush() == ""
    assert one.warnings == []


def test_the_last_merge_counts(machine: Make) -> None:
    send(machine, "bk", report(a=("passed", 1.5), b=("failed", 9.0), c=("skipped", 0.0)))
    assert published(machine().actions, "bk", [LABEL, "//p:other", LABEL]) == {f"{LABEL} a": 1.5}
    send(machine, "bk", report(a=("passed", 2.5), b=("passed", 3)))
    assert published(machine().actions, "bk", [LABEL]) == {f"{LABEL} a": 2.5, f"{LABEL} b": 3.0}
    assert published(machine().actions, "other", [LABEL]) == {}


def test_a_merge_without_a_passed_cell_sends_nothing(machine: Make, server: CacheServer) -> None:
    send(machine, "bk", report(a=("failed", 1.5)))
    assert server.requests == []


WRONG: dict[str, Callable[[], bytes]] = {
    "no JSON": lambda: b"{",
    "no table": lambda: b"[1]",
    "no text": lambda: b"\xff",
    "deep": lambda: b"[" * 100_000,
    "no numbers": lambda: json.dumps({"a": "1", "b": None, "c": -1, "d": 1e99, "e": [1]}).encode(),
    "no number at all": lambda: b'{"a": NaN, "b": Infinity, "c": -Infinity}',
    "large": lambda: json.dumps({"a": 1.0, "x" * (4 << 20): 1.0}).encode(),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_another_client_sends_is_believed_only_as_far_as_it_is_right(machine: Make, wrong: str) -> None:
    other = machine()
    other.actions.put(key_of("bk", LABEL), ActionResult({FILE: other.stored(WRONG[wrong]())}, 0.0))
    assert other.remote.flush() == ""

    assert published(machine().actions, "bk", [LABEL]) == {}
