from __future__ import annotations

import os

import pytest

from bkrules.model.resources import SIZES, Request, host_memory, meant_tag, pool_size, pool_sizes, request_of, timeouts


def test_tags_say_what_an_action_takes() -> None:
    assert request_of([], 250) == Request() == Request((("cpu", 1.0), ("memory", 250.0)))
    asked = request_of(["smoke", "cpu:2", "resources:gpu:1", "resources:memory:0.5", "exclusive"], 100)
    assert asked == Request((("cpu", 2.0), ("gpu", 1.0), ("memory", 0.5)), exclusive=True)


@pytest.mark.parametrize(
    "tag", ["cpu:", "cpu:x", "cpu:0", "cpu:-1", "resources:gpu", "resources::1", "resources:gpu:0", "cpu"]
)
def test_a_tag_that_is_nearly_one_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match=f"the tag '{tag}' must be cpu:N or resources:NAME:N"):
        request_of([tag], 1)


@pytest.mark.parametrize(
    ("tag", "meant"),
    [
        ("manaul", "manual"),
        ("Manual", "manual"),
        ("exclusiv", "exclusive"),
        ("cpus:2", "cpu:2"),
        ("resource:gpu:1", "resources:gpu:1"),
        *((tag, "") for tag in ("manual", "exclusive", "cpu:2", "resources:gpu:1", "gpu:1", "slow", "annual", "", ":")),
    ],
)
def test_a_tag_that_is_misspelled(tag: str, meant: str) -> None:
    assert meant_tag(tag) == meant


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("gpu=1", 1),
        ("memory=8000", 8000),
        ("cpu=.5", 0.5),
        ("cpu=HOST_CPUS", os.cpu_count()),
        ("cpu=HOST_CPUS*.5", (os.cpu_count() or 1) / 2),
        ("memory=HOST_RAM-1", host_memory() - 1),
        ("nothing=0", 0),
    ],
)
def test_the_size_of_a_pool(text: str, size: float) -> None:
    assert pool_size(text) == (text.partition("=")[0], size)


@pytest.mark.parametrize(
    "text", ["gpu", "gpu=", "=1", "gpu=x", "gpu=-1", "gpu=1*2", "memory=HOST_RAM+1", "cpu=HOST_CPUS-100000", "a b=1"]
)
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        pool_size(text)


def test_what_is_declared_counts_for_more_than_the_machine() -> None:
    assert pool_sizes(4, [])["cpu"] == 4
    assert pool_sizes(4, [])["memory"] == pytest.approx(host_memory() * 0.67)
    assert pool_sizes(4, [("memory", 1), ("gpu", 2), ("gpu", 3)]) == {"cpu": 4, "memory": 1, "gpu": 3}


def test_the_memory_is_that_of_the_machine_or_less() -> None:
    assert 0 < host_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_timeouts_are_for_all_sizes_or_for_each() -> None:
    assert timeouts("7") == dict.fromkeys(SIZES, 7)
    assert timeouts("1,2,3,4") == {"small": 1, "medium": 2, "large": 3, "enormous": 4}
    assert timeouts("-1,2,-1,-1") == {"medium": 2}


@pytest.mark.parametrize("text", ["", "0", "x", "1,2", "1,2,3,4,5", "-2", "1.5"])
def test_timeouts_that_are_none(text: str) -> None:
    with pytest.raises(
        ValueError, match="must be seconds for all tests, or four numbers for small, medium, large, enormous"
    ):
        timeouts(text)
