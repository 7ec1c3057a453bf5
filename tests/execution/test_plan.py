from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bkrules.execution.plan import Plan
from bkrules.execution.pools import Pools
from bkrules.model.resources import Request


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


def run_all(plan: Plan) -> list[str]:
    """What a plan lets run, one after the other, when no cache has anything and everything succeeds."""
    order = []
    while not plan.finished:
        while (name := plan.take()) is not None:
            plan.miss(name)
        started = plan.start()
        assert started is not None
        order.append(started)
        plan.succeed(started)
    return order


def test_what_keeps_others_waiting_for_longest_comes_first() -> None:
    plan = Plan({"short": [], "long": [], "first": [], "last": ["first"]})
    plan.prioritize({"short": 1, "long": 4, "first": 1, "last": 5}.__getitem__, lambda _name: False)
    assert run_all(plan) == ["first", "last", "long", "short"]


def test_what_failed_last_time_comes_first_and_so_does_what_it_needs() -> None:
    plan = Plan({"long": [], "need": [], "failed": ["need"]})
    plan.prioritize({"long": 100, "need": 1, "failed": 1}.__getitem__, lambda name: name == "failed")
    assert run_all(plan) == ["need", "failed", "long"]


def test_a_new_order_holds_for_what_waits_already() -> None:
    plan = Plan({"a": [], "b": [], "c": [], "d": []})
    for name in ("a", "b"):
        assert plan.take() == name
        plan.miss(name)
    plan.prioritize({"a": 1, "b": 2, "c": 3, "d": 0}.__getitem__, lambda _name: False)
    assert plan.start() is None, "c has still to be looked up and is more urgent"
    assert plan.take() == "c"
    assert plan.start() == "b"


def test_what_fits_does_not_wait_for_what_does_not() -> None:
    gpu = Request((("gpu", 1.0),))
    plan = Plan({"a": [], "b": [], "c": []}, {"a": gpu, "b": gpu}, Pools(2, {"gpu": 1}))
    for name in drain(plan):
        plan.miss(name)
    assert [plan.start(), plan.start(), plan.start()] == ["a", "c", None]
    plan.succeed("a")
    assert plan.start() == "b"


def test_what_must_run_alone_comes_last() -> None:
    plan = Plan({"alone": [], "a": [], "b": ["a"]}, {"alone": Request((), exclusive=True)}, Pools(4))
    for name in drain(plan):
        plan.miss(name)
    assert [plan.start(), plan.start()] == ["a", None]
    plan.succeed("a")
    assert plan.start() is None, "b has still to be looked up"
    assert plan.take() == "b"
    plan.miss("b")
    assert [plan.start(), plan.start()] == ["b", None]
    plan.succeed("b")
    assert plan.start() == "alone"


def test_what_pauses_leaves_its_slot_to_another() -> None:
    plan = Plan({"a": [], "b": []}, {}, Pools(1))
    for name in drain(plan):
        plan.miss(name)
    assert [plan.start(), plan.start()] == ["a", None]
    plan.pause("a")
    assert [plan.start(), plan.start()] == ["b", None]
    plan.miss("a")
    assert plan.start() is None
    plan.succeed("b")
    assert plan.start() == "a"
    plan.succeed("a")
    assert plan.finished


def test_what_shares_a_worker_waits_for_it_while_there_is_anything_else_to_do() -> None:
    shared = Request((), worker="oci")
    plan = Plan({"a": [], "b": [], "c": [], "d": []}, {"a": shared, "b": shared}, Pools(2))
    plan.prioritize(lambda _name: 1.0, lambda _name: False)
    for _ in range(3):
        plan.miss(plan.take() or "")
    assert [plan.start(), plan.start(), plan.start()] == ["a", "c", None]
    plan.succeed("c")
    assert plan.start() is None, "d has still to be looked up"
    plan.miss(plan.take() or "")
    assert plan.start() == "d"
    plan.succeed("d")
    assert plan.start() == "b", "nothing else is left"


@given(counts=st.lists(st.integers(1, 6), min_size=2, max_size=6).filter(lambda found: max(found) * 2 <= sum(found)))
def test_tests_of_equal_length_need_no_worker_twice(counts: list[int]) -> None:
    """With two jobs, while no worker has more than half of the tests."""
    workers = {f"{worker} {number}": str(worker) for worker, count in enumerate(counts) for number in range(count)}
    plan = Plan(
        {name: [] for name in workers},
        {name: Request((), worker=worker) for name, worker in workers.items()},
        Pools(2),
    )
    plan.prioritize(lambda _name: 1.0, lambda _name: False)
    for name in drain(plan):
        plan.miss(name)
    under_way: list[str] = []
    while not plan.finished:
        while (started := plan.start()) is not None:
            under_way.append(started)
        assert len({workers[name] for name in under_way}) == len(under_way)
        plan.succeed(under_way.pop(0))


SIZES = {"cpu": 3.0, "memory": 1000.0, "gpu": 2.0}
REQUESTS = st.builds(
    lambda amounts, exclusive, worker: Request(tuple(sorted(amounts.items())), exclusive, worker=worker),
    st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.floats(0.1, 5),
            "memory": st.floats(1, 2000),
            "gpu": st.integers(1, 2).map(float),
            "unlimited": st.just(0.0),
        },
    ),
    st.integers(0, 4).map(lambda number: number == 0),
    st.sampled_from(["", "oci", "rootless"]),
)


@dataclass
class Machine:
    """Plays a build on a plan: what it lets start, runs, pauses and ends, as `data` has it; and checks each of its steps."""

    graph: dict[str, list[str]]
    requests: dict[str, Request]
    jobs: int
    data: st.DataObject
    running: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    succeeded: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan = Plan(self.graph, self.requests, Pools(self.jobs, SIZES))

    def play(self) -> None:
        while not self.plan.finished:
            if self.data.draw(st.integers(0, 9)) == 0:
                seconds = {name: self.data.draw(st.floats(0, 100)) for name in self.graph}
                self.plan.prioritize(seconds.__getitem__, lambda name: int(name) % 3 == 0)
            if not self.begin():
                self.go_on()
        assert self.plan.take() is None
        assert self.plan.start() is None
        assert self.running == self.paused == self.waiting == []

    def begin(self) -> bool:
        """Start or look up what may be; whether there was anything."""
        if (name := self.plan.start()) is not None:
            self.running.append(name)
            if name in self.waiting:
                self.waiting.remove(name)
            self.check_pools()
            return True
        if (name := self.plan.take()) is not None:
            assert set(self.graph[name]) <= set(self.succeeded)
            if self.data.draw(st.booleans()):
                self.plan.miss(name)
            else:
                self.end(name)
            return True
        return False

    def go_on(self) -> None:
        """Let something that is under way pause, continue, or end."""
        under_way = self.running + self.paused + self.waiting
        assert under_way, "nothing runs, nothing may start, and yet the plan is not finished"
        name = self.data.draw(st.sampled_from(under_way))
        if name in self.running:
            self.running.remove(name)
            if self.data.draw(st.booleans()):
                self.plan.pause(name)
                self.paused.append(name)
                return
        elif name in self.paused:
            self.paused.remove(name)
            if self.data.draw(st.booleans()):
                self.plan.miss(name)
                self.waiting.append(name)
                return
        else:
            self.waiting.remove(name)
        self.end(name)

    def end(self, name: str) -> None:
        if self.data.draw(st.booleans()):
            self.plan.succeed(name)
            self.succeeded.append(name)
        else:
            self.failed.append(name)
            self.given_up += self.plan.fail(name)

    def check_pools(self) -> None:
        assert len(self.running) <= self.jobs
        assert len(self.running) == 1 or not any(self.requests[name].exclusive for name in self.running)
        for pool, size in SIZES.items():
            taken = sum(min(dict(self.requests[name].resources).get(pool, 0.0), size) for name in self.running)
            assert taken <= size + 0.01, pool


@settings(max_examples=300)
@given(graph=graphs(), jobs=st.integers(1, 4), data=st.data())
def test_every_id_ends_exactly_once_and_no_pool_is_ever_exceeded(
    graph: dict[str, list[str]], jobs: int, data: st.DataObject
) -> None:
    requests = {name: data.draw(REQUESTS) for name in graph}
    machine = Machine(graph, requests, jobs, data)
    machine.play()
    assert sorted(machine.succeeded + machine.failed + machine.given_up) == sorted(graph)
    lost = set(machine.failed)
    for name in sorted(graph, key=int):
        lost |= {name} if lost & set(graph[name]) else set()
    assert set(machine.given_up) == lost - set(machine.failed)
