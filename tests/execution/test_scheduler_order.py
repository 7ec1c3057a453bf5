"""What the scheduler runs first, what it lets wait, and how it ends a build."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkrules.cache.history import History
from bkrules.errors import Interrupted
from bkrules.execution.job_slot import JobSlot
from bkrules.execution.pools import Pools
from bkrules.execution.result import Result, failed
from bkrules.execution.scheduler import Policy, Scheduler
from bkrules.model.action import Action
from bkrules.model.resources import UNASKED, Request
from bkrules.model.status import Status

MakeAction = Callable[..., Action]
KEEP_GOING = Policy(keep_going=True)
Body = Callable[[Action, JobSlot], str]
SOON = 20  # seconds; only a broken scheduler waits for so long


def passes(_action: Action, _slot: JobSlot) -> str:
    return "passed"


@dataclass
class Build:
    """A build in which nothing is cached. `body` runs an action and says its status."""

    body: Body = passes
    look_up: Callable[[Action], Result | None] = lambda _action: None
    jobs: int = 1
    sizes: Mapping[str, float] = field(default_factory=dict)
    policy: Policy = KEEP_GOING
    history: History | None = None
    started: list[str] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    canceled: threading.Event = field(default_factory=threading.Event)
    scheduler: Scheduler = field(init=False)

    def execute(self, actions: Iterable[Action]) -> dict[str, str]:
        """The statuses by id."""
        self.scheduler = Scheduler(
            self.look_up,
            self.run,
            lambda action: self.started.append(action.id),
            self.on_result,
            pools=Pools(self.jobs, self.sizes),
            policy=self.policy,
            history=self.history,
            cancel=self.canceled.set,
        )
        try:
            self.scheduler.execute({action.id: action for action in actions})
        finally:
            self.scheduler.join()
        return {name: result.status for name, result in self.results.items()}

    def run(self, action: Action, slot: JobSlot) -> Result:
        try:
            return Result(action, Status(self.body(action, slot)))
        except Interrupted as error:
            return failed(action, error)

    def on_result(self, result: Result) -> None:
        assert result.action.id not in self.results, "a result was reported twice"
        self.results[result.action.id] = result


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def test_what_takes_longest_comes_first_and_what_failed_before_it(make_action: MakeAction, history: History) -> None:
    for name, seconds, was_bad in [("a", 1, False), ("b", 5, False), ("c", 3, True), ("e", 9, False)]:
        history.note(name, seconds, failed=was_bad)
    build = Build(history=history)
    build.execute([*map(make_action, "abc"), make_action("d"), make_action("e", "d")])
    assert build.started == ["c", "d", "e", "b", "a"]


def test_what_never_ran_is_expected_to_be_like_the_others(make_action: MakeAction, history: History) -> None:
    history.note("short", 2, failed=False)
    history.note("long", 6, failed=False)
    build = Build(history=history)
    build.execute([make_action(name) for name in ("short", "new", "long")])
    assert build.started == ["long", "new", "short"]


def test_nobody_reads_the_history_when_there_is_nothing_to_choose(make_action: MakeAction, history: History) -> None:
    history.seconds = None  # type: ignore[assignment, method-assign] # to call it would fail
    Build(history=history, jobs=2).execute([make_action("a"), make_action("b"), make_action("c", "a", "b")])


def test_a_pool_is_never_exceeded_and_does_not_hold_up_others(make_action: MakeAction) -> None:
    gpu = Request((("gpu", 1.0),))
    other_ran = threading.Event()
    using: list[str] = []

    def body(action: Action, _slot: JobSlot) -> str:
        if action.id == "other":
            other_ran.set()
        else:
            using.append(action.id)
            assert other_ran.wait(SOON), "an action that waits for the pool has a job slot"
            assert using == [action.id]
            using.remove(action.id)
        return "passed"

    build = Build(body, jobs=2, sizes={"gpu": 1})
    actions = [make_action("a", request=gpu), make_action("b", request=gpu), make_action("other")]
    assert set(build.execute(actions).values()) == {"passed"}


@pytest.mark.parametrize(("is_cell", "status"), [(True, "skipped"), (False, "failed")])
def test_what_wants_more_than_there_is_never_runs(make_action: MakeAction, is_cell: bool, status: str) -> None:
    build = Build(sizes={"gpu": 1})
    wants = make_action("a", cell=is_cell, request=Request((("gpu", 2.0),)))
    assert build.execute([wants, make_action("b", "a"), make_action("c")]) == {
        "a": status,
        "b": "not run",
        "c": "passed",
    }
    assert build.results["a"].reason == "//p:a takes 2 of the resource 'gpu', of which this machine has 1"
    assert build.results["a"].hint == "--local_resources=gpu=2 declares that it has this number"
    assert build.results["a"].failure == "machine"


def test_what_must_run_alone_does(make_action: MakeAction) -> None:
    lock = threading.Lock()
    running: set[str] = set()

    def body(action: Action, _slot: JobSlot) -> str:
        with lock:
            running.add(action.id)
            assert running == {action.id} or "alone" not in running
        with lock:
            running.remove(action.id)
        return "passed"

    build = Build(body, jobs=4)
    actions = [make_action("alone", request=Request((), exclusive=True)), *(make_action(str(one)) for one in range(20))]
    assert set(build.execute(actions).values()) == {"passed"}
    assert build.started[-1] == "alone"


def test_who_waits_for_somebody_else_leaves_its_slot_and_gets_one_again(make_action: MakeAction) -> None:
    other_ran = threading.Event()

    def body(action: Action, slot: JobSlot) -> str:
        if action.id == "waits":
            slot.release()
            assert other_ran.wait(SOON), "the slot of an action that waits was not given to another"
            slot.reacquire()
        else:
            other_ran.set()
        return "passed"

    build = Build(body)
    assert build.execute(map(make_action, ["waits", "other"])) == {"waits": "passed", "other": "passed"}


def test_a_slot_that_was_left_can_be_left_again(make_action: MakeAction) -> None:
    """As by an action that waits for two others that the remote cache lost, each of which another process makes."""

    def body(_action: Action, slot: JobSlot) -> str:
        slot.release()
        slot.release()
        slot.reacquire()
        return "passed"

    build = Build(body)
    assert build.execute([make_action("a"), make_action("b", "a")]) == {"a": "passed", "b": "passed"}


def test_a_result_may_come_from_who_left_its_slot(make_action: MakeAction) -> None:
    def body(_action: Action, slot: JobSlot) -> str:
        slot.release()
        return "passed"

    build = Build(body)
    assert set(build.execute([make_action("a"), make_action("b"), make_action("c", "a", "b")]).values()) == {"passed"}


@pytest.mark.parametrize("status", ["failed", "timed out"])
def test_the_first_failed_cell_ends_the_build_if_wanted(make_action: MakeAction, status: str) -> None:
    build = Build(jobs=2, policy=Policy(test_keep_going=False))
    slow_runs = threading.Event()

    def body(action: Action, _slot: JobSlot) -> str:
        if action.id == "slow":
            slow_runs.set()
            assert build.canceled.wait(SOON), "what runs was not told to end"
            raise Interrupted("interrupted", "the cell was ended")
        assert slow_runs.wait(SOON)
        return status

    build.body = body
    cells = [make_action(name, cell=True) for name in ("bad", "slow", "late")]
    assert build.execute(cells) == {"bad": status, "slow": "not run"}
    assert build.scheduler.stopped_by == f"test_x/worker=oci {status}"
    assert build.results["slow"].reason == build.scheduler.stopped_by


@pytest.mark.parametrize("status", ["flaky", "skipped"])
def test_a_cell_that_did_not_fail_does_not_end_the_build(make_action: MakeAction, status: str) -> None:
    build = Build(lambda *_: status, policy=Policy(test_keep_going=False))
    assert build.execute(make_action(name, cell=True) for name in "ab") == {"a": status, "b": status}
    assert not build.canceled.is_set()


@pytest.mark.parametrize("wants_back", [False, True])
def test_a_failure_ends_the_wait_for_somebody_else(make_action: MakeAction, wants_back: bool) -> None:
    waits = threading.Event()

    def body(action: Action, slot: JobSlot) -> str:
        if action.id == "bad":
            assert waits.wait(SOON)
            return "failed"
        slot.release()
        waits.set()
        if not wants_back:
            assert slot.over.wait(SOON), "nobody said that the build is over"
        slot.reacquire()
        raise AssertionError("it went on after the build had ended")

    build = Build(body, jobs=1, policy=Policy())
    statuses = build.execute([make_action("waits"), make_action("bad")])
    assert statuses == {"waits": "not run", "bad": "failed"}
    assert build.results["waits"].reason == "//p:bad failed"


def test_an_interrupt_starts_nothing_more_and_is_raised(make_action: MakeAction) -> None:
    build = Build()

    def body(_action: Action, _slot: JobSlot) -> str:
        build.scheduler.interrupt()
        return "passed"

    build.body = body
    with pytest.raises(KeyboardInterrupt):
        build.execute([make_action("a"), make_action("b")])
    assert build.started == ["a"]
    assert build.results["a"].status == "passed", "a result that came meanwhile is not lost"


def test_an_interrupt_ends_the_look_ups_too(make_action: MakeAction) -> None:
    looked_up = []

    def look_up(action: Action) -> None:
        looked_up.append(action.id)
        build.scheduler.interrupt()

    build = Build(look_up=look_up)
    with pytest.raises(KeyboardInterrupt):
        build.execute([make_action("a"), make_action("b")])
    assert looked_up == ["a"]
    assert build.started == []


@st.composite
def builds(draw: st.DrawFn) -> list[tuple[str, list[str], Request, str]]:
    """Actions with what they need, what they take, and how they behave; dependencies first."""
    requests = st.sampled_from(
        [
            UNASKED,
            Request((("gpu", 1.0),)),
            Request((("gpu", 2.0), ("cpu", 2.0))),
            Request((("gpu", 3.0),)),
            Request((), True),
        ]
    )
    behaviour = st.sampled_from(["passed", "failed", "flaky", "release", "release and come back"])
    return [
        (
            str(number),
            [str(one) for one in draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True))] if number else [],
            draw(requests),
            draw(behaviour),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@settings(max_examples=100)
@given(plan=builds(), jobs=st.integers(1, 4), keep_going=st.booleans())
def test_any_build_ends_with_one_result_for_each_action(
    plan: list[tuple[str, list[str], Request, str]], jobs: int, keep_going: bool
) -> None:
    behaviours = {name: behaviour for name, _, _, behaviour in plan}
    lock = threading.Lock()
    taken: list[Request] = []
    peak = 0.0

    def body(action: Action, slot: JobSlot) -> str:
        nonlocal peak
        behaviour = behaviours[action.id]
        with lock:
            taken.append(action.request)
            assert len(taken) <= jobs
            assert len(taken) == 1 or not any(one.exclusive for one in taken)
            peak = max(peak, sum(dict(one.resources).get("gpu", 0) for one in taken))
        with lock:
            taken.remove(action.request)
        if behaviour.startswith("release"):
            slot.release()
        if behaviour == "release and come back":
            slot.reacquire()
        return "passed" if behaviour.startswith("release") else behaviour

    build = Build(body, jobs=jobs, sizes={"gpu": 2, "cpu": 3}, policy=Policy(keep_going=keep_going))
    done = threading.Thread(target=build.execute, args=([_action(*one) for one in plan],), daemon=True)
    done.start()
    done.join(SOON)
    assert not done.is_alive(), "the build does not end"
    assert peak <= 2
    if not build.scheduler.stopped_by:
        assert set(build.results) == set(behaviours)


def _action(name: str, needs: list[str], request: Request, _behaviour: str) -> Action:
    from bkrules.model.action import Output
    from bkrules.model.label import Label

    inputs = tuple((need, Output(need, "out")) for need in needs)
    return Action(name, Label("p", name), "Test", (), inputs, ("out",), request=request)
