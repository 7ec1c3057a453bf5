from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bkrules.execution.plan import Plan


def drain(plan: Plan) -> list[str]:
    taken = []
    while (name := plan.take()) is not None:
        taken.append(name)
    return taken


def test_what_waits_for_nothing_comes_in_the_order_given() -> None:
    plan = Plan({"c": [], "a": [], "d": ["a"], "b": []})
    assert drain(plan) == ["c", "a", "b"]
    assert not plan.finished


def test_what_becomes_ready_comes_in_the_order_given_too() -> None:
    plan = Plan({"a": [], "late": ["a"], "early": ["a"], "b": []})
    assert plan.take() == "a"
    plan.succeed("a")
    assert drain(plan) == ["late", "early", "b"]


def test_all_dependencies_must_succeed() -> None:
    plan = Plan({"a": [], "b": [], "c": ["a", "b"]})
    assert drain(plan) == ["a", "b"]
    plan.succeed("b")
    assert plan.take() is None
    plan.succeed("a")
    assert drain(plan) == ["c"]
    plan.succeed("c")
    assert plan.finished


def test_a_failure_gives_up_all_that_depends_on_it_in_the_order_given() -> None:
    plan = Plan({"d": ["c", "b"], "c": ["a"], "b": ["a"], "a": [], "other": []})
    assert drain(plan) == ["a", "other"]
    assert plan.fail("a") == ["d", "c", "b"]
    assert not plan.finished
    plan.succeed("other")
    assert plan.finished


def test_what_was_given_up_never_comes_back() -> None:
    plan = Plan({"a": [], "b": [], "c": ["a", "b"], "d": ["c"]})
    assert drain(plan) == ["a", "b"]
    assert plan.fail("a") == ["c", "d"]
    plan.succeed("b")
    assert plan.take() is None
    assert plan.finished


def test_a_second_failure_gives_nothing_up_again() -> None:
    plan = Plan({"a": [], "b": [], "c": ["a", "b"], "d": ["b"]})
    assert drain(plan) == ["a", "b"]
    assert plan.fail("a") == ["c"]
    assert plan.fail("b") == ["d"]
    assert plan.finished


def test_an_empty_plan_is_finished() -> None:
    plan = Plan({})
    assert plan.finished
    assert plan.take() is None


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Dependencies without a cycle, in an order that has nothing to do with them."""
    size = draw(st.integers(0, 10))
    edges = {
        str(number): [str(other) for other in draw(st.lists(st.integers(0, number - 1), max_size=4, unique=True))]
        if number
        else []
        for number in range(size)
    }
    return {name: edges[name] for name in draw(st.permutations(list(edges)))}


@settings(deadline=None)
@given(graph=graphs(), data=st.data())
def test_every_id_ends_exactly_once_and_never_before_its_dependencies(
    graph: dict[str, list[str]], data: st.DataObject
) -> None:
    plan = Plan(graph)
    running: list[str] = []
    succeeded: list[str] = []
    failed: list[str] = []
    given_up: list[str] = []
    while not plan.finished:
        if data.draw(st.booleans()) and (name := plan.take()) is not None:
            assert set(graph[name]) <= set(succeeded)
            running.append(name)
        elif running:
            name = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if data.draw(st.booleans()):
                plan.succeed(name)
                succeeded.append(name)
            else:
                failed.append(name)
                given_up += plan.fail(name)
        else:
            taken = plan.take()
            assert taken is not None, "nothing runs, nothing is ready, and yet the plan is not finished"
            assert set(graph[taken]) <= set(succeeded)
            running.append(taken)
    assert plan.take() is None
    assert running == []
    assert sorted(succeeded + failed + given_up) == sorted(graph)
    lost = set(failed)
    for name in sorted(graph, key=int):
        lost |= {name} if lost & set(graph[name]) else set()
    assert set(given_up) == lost - set(failed)
