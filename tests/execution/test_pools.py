from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules.execution.pools import Pools
from bkrules.model.resources import ELSEWHERE, Request


def request(**resources: float) -> Request:
    return Request(tuple(sorted(resources.items())))


ALONE = Request((), exclusive=True)


def test_a_job_slot_is_taken_and_given_back() -> None:
    pools = Pools(1)
    pools.take(request())
    assert not pools.fits(request())
    pools.release(request())
    assert pools.fits(request())


def test_a_named_resource_is_counted() -> None:
    pools = Pools(3, {"gpu": 1})
    pools.take(request(gpu=1))
    assert not pools.fits(request(gpu=1))
    assert pools.fits(request())
    pools.release(request(gpu=1))
    assert pools.fits(request(gpu=1))


@pytest.mark.parametrize("name", ["cpu", "memory"])
def test_an_estimate_that_is_larger_than_the_pool_is_all_of_it(name: str) -> None:
    pools = Pools(3, {name: 4})
    large, small = request(**{name: 100}), request(**{name: 1})
    assert pools.lack(large) is None
    pools.take(small)
    assert not pools.fits(large)
    pools.release(small)
    pools.take(large)
    assert not pools.fits(small)
    assert pools.fits(request())


@pytest.mark.parametrize(("sizes", "there"), [({}, 0), ({"gpu": 1}, 1)])
def test_a_named_resource_of_which_there_is_too_little_is_a_lack(sizes: dict[str, float], there: float) -> None:
    assert Pools(3, sizes).lack(request(gpu=2)) == ("gpu", 2, there)


def test_what_must_run_alone_does() -> None:
    pools = Pools(3)
    pools.take(request())
    assert not pools.fits(ALONE)
    pools.release(request())
    pools.take(ALONE)
    assert not pools.fits(request())
    pools.release(ALONE)
    assert pools.fits(request())


@given(st.lists(st.floats(0.001, 1), max_size=50))
def test_fractions_come_out_even(amounts: list[float]) -> None:
    pools = Pools(len(amounts) + 1, {"cpu": 1000})
    for amount in amounts:
        pools.take(request(cpu=amount))
    for amount in amounts:
        pools.release(request(cpu=amount))
    assert pools.fits(request(cpu=1000))


def test_actions_on_other_machines_take_nothing_of_this_one() -> None:
    pools = Pools(1, {"cpu": 1}, elsewhere=2)
    pools.take(Request(exclusive=True))
    for _ in range(2):
        assert pools.fits(ELSEWHERE)
        pools.take(ELSEWHERE)
    assert not pools.fits(ELSEWHERE)
    pools.release(Request(exclusive=True))
    assert pools.fits(Request())
    pools.release(ELSEWHERE)
    assert pools.fits(ELSEWHERE)
