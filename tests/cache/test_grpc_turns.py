"""The turns of operations at the streams of an engine that refuses some."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from bkrules.cache import grpc_turns
from bkrules.cache.grpc_turns import Turns

LONG = 60.0


def opened(turns: Turns, count: int) -> ExitStack:
    """That many streams, which end with the context."""
    stack = ExitStack()
    for _ in range(count):
        stack.enter_context(turns.turn(LONG))
    return stack


def test_an_engine_that_refuses_nothing_has_all_streams() -> None:
    turns = Turns()
    with opened(turns, 200):
        turns.check()
        assert turns.seconds == math.inf


def test_half_as_many_streams_after_a_refusal() -> None:
    turns = Turns()
    with opened(turns, 40):
        turns.refused()
        turns.refused()  # at once, as by the same cause
        assert turns.seconds == grpc_turns.ROUND / 2
    with opened(turns, 20):
        assert turns.seconds == math.inf
        with turns.turn(0):  # nobody makes room in that time
            assert turns.seconds < grpc_turns.ROUND


def test_each_of_many_has_its_turn() -> None:
    turns = Turns()
    with opened(turns, 10):
        turns.refused()
    lock, now, most = threading.Lock(), 0, 0

    def hold(_number: int) -> None:
        nonlocal now, most
        with turns.turn(LONG):
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1

    with ThreadPoolExecutor(40) as pool:
        assert len(list(pool.map(hold, range(400)))) == 400
    assert 1 <= most <= 5
    assert now == 0


def test_no_progress_is_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    monkeypatch.setattr(grpc_turns, "STALL", 0.0)
    with opened(turns, 8):
        turns.check()
        assert turns.seconds == math.inf, "few streams leave threads to others"
    with opened(turns, 20):
        turns.check()
        assert turns.seconds == grpc_turns.ROUND / 2


def test_the_end_lets_all_enter() -> None:
    turns = Turns()
    with opened(turns, 4):
        turns.refused()
        with ThreadPoolExecutor(1) as pool:
            entered = pool.submit(lambda: opened(turns, 1).close())
            turns.end()
            entered.result(LONG)
