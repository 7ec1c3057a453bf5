from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from bkrules.cache.history import History
from bkrules.execution.job_slot import JobSlot
from bkrules.execution.plan import Plan
from bkrules.execution.pools import Pools
from bkrules.execution.result import Result
from bkrules.execution.scheduler import Policy, Scheduler
from bkrules.model.action import Action
from bkrules.model.status import Status

MakeAction = Callable[..., Action]
STRICT = Policy()
SOON = 20  # seconds; only a broken scheduler waits for so long


@dataclass
class Build:
    """A scheduler with its callbacks recorded. `hits`, `failures` and `flaky` are ids; anything else runs and passes."""

    hits: Iterable[str] = ()
    failures: Iterable[str] = ()
    flaky: Iterable[str] = ()
    body: Callable[[Action], None] = lambda _action: None
    impossible: Iterable[str] = ()
    wanted: Callable[[Action], bool] = lambda _action: True
    judged: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    callback_threads: set[threading.Thread] = field(default_factory=set)
    run_threads: set[threading.Thread] = field(default_factory=set)

    def scheduler(
        self,
        *,
        jobs: int = 1,
        policy: Policy = STRICT,
        ask: Callable[[Action], Result | None] | None = None,
        sizes: Mapping[str, float] | None = None,
        history: History | None = None,
    ) -> Scheduler:
        return Scheduler(
            self.look_up,
            self.run,
            self.on_start,
            self.on_result,
            pools=Pools(jobs, sizes),
            policy=policy,
            ask=ask,
            history=history,
            cancel=lambda: self.events.append("cancel"),
            refuse=self.refuse,
            wanted=self.wanted,
        )

    def refuse(self, action: Action) -> Result | None:
        self.judged.append(action.id)
        return Result(action, Status.SKIPPED) if action.id in self.impossible else None

    def execute(self, actions: Iterable[Action], *, jobs: int = 1, policy: Policy = STRICT) -> None:
        scheduler = self.scheduler(jobs=jobs, policy=policy)
        try:
            scheduler.execute({action.id: action for action in actions})
        finally:
            scheduler.join()

    def look_up(self, action: Action) -> Result | None:
        self.callback_threads.add(threading.current_thread())
        if action.id not in self.hits:
            return None
        return Result(action, Status.FAILED if action.id in self.failures else Status.PASSED, cached=True)

    def run(self, action: Action, _slot: JobSlot) -> Result:
        self.run_threads.add(threading.current_thread())
        self.body(action)
        good = Status.FLAKY if action.id in self.flaky else Status.PASSED
        return Result(action, Status.FAILED if action.id in self.failures else good)

    def on_start(self, action: Action) -> None:
        self.callback_threads.add(threading.current_thread())
        self.events.append(f"start {action.id}")

    def on_result(self, result: Result) -> None:
        self.callback_threads.add(threading.current_thread())
        self.events.append(f"{result.status} {result.action.id}")
        self.results.append(result)

    @property
    def statuses(self) -> dict[str, str]:
        assert len({one.action.id for one in self.results}) == len(self.results), "a result was reported twice"
        return {one.action.id: one.status for one in self.results}


def test_actions_run_after_what_they_read(make_action: MakeAction) -> None:
    build = Build()
    build.execute([make_action("c", "b"), make_action("b", "a"), make_action("a")])
    assert build.events == ["start a", "passed a", "start b", "passed b", "start c", "passed c"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_run_at_once_as_there_are_jobs(jobs: int, make_action: MakeAction) -> None:
    barrier = threading.Barrier(jobs, timeout=SOON)
    lock = threading.Lock()
    running: set[str] = set()
    most = 0

    def body(action: Action) -> None:
        nonlocal most
        with lock:
            running.add(action.id)
            most = max(most, len(running))
        barrier.wait()  # breaks unless as many as there are jobs meet here
        with lock:
            running.discard(action.id)

    build = Build(body=body)
    build.execute([make_action(str(number)) for number in range(12)], jobs=jobs)
    assert most == jobs
    assert len(build.run_threads) == jobs
    assert set(build.statuses.values()) == {"passed"}
    assert len(build.statuses) == 12


def test_no_more_threads_are_started_than_there_is_work(make_action: MakeAction) -> None:
    build = Build()
    build.execute([make_action("a"), make_action("b", "a"), make_action("c", "b")], jobs=100)
    assert len(build.run_threads) <= 3


def test_hits_start_no_thread(make_action: MakeAction, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", start)
    actions = [make_action(str(number), *([str(number - 1)] if number else [])) for number in range(50)]
    build = Build(hits={action.id for action in actions})
    build.execute(actions, jobs=4)
    assert build.statuses == {action.id: "passed" for action in actions}
    assert all(result.cached for result in build.results)


def test_a_miss_between_hits_is_the_only_one_to_run(make_action: MakeAction) -> None:
    build = Build(hits={"a", "c"})
    build.execute([make_action("a"), make_action("b", "a"), make_action("c", "b")], jobs=2)
    assert build.events == ["passed a", "start b", "passed b", "passed c"]


def test_callbacks_are_called_in_the_callers_thread_and_work_is_not(make_action: MakeAction) -> None:
    build = Build(hits={"a"})
    build.execute([make_action("a"), make_action("b"), make_action("c", "b")], jobs=2)
    assert build.callback_threads == {threading.current_thread()}
    assert threading.current_thread() not in build.run_threads


@pytest.mark.parametrize("hits", [set(), {"a"}], ids=["ran", "from the cache"])
def test_a_failure_stops_the_build(hits: set[str], make_action: MakeAction) -> None:
    build = Build(hits=hits, failures={"a"})
    build.execute([make_action("a"), make_action("b", "a"), make_action("other")])
    assert build.statuses == {"a": "failed", "b": "not run"}


def test_what_runs_already_ends_when_another_action_fails(make_action: MakeAction) -> None:
    failed = threading.Event()
    both = threading.Barrier(2, timeout=SOON)

    def body(action: Action) -> None:
        both.wait()
        if action.id == "slow":
            assert failed.wait(SOON)

    class Failing(Build):
        def on_result(self, result: Result) -> None:
            super().on_result(result)
            failed.set()

    build = Failing(failures={"a"}, body=body)
    build.execute([make_action("a"), make_action("slow"), make_action("other")], jobs=2)
    assert build.statuses == {"a": "failed", "slow": "passed"}


def test_keep_going_runs_what_does_not_depend_on_the_failure(make_action: MakeAction) -> None:
    build = Build(failures={"a"})
    build.execute(
        [make_action("a"), make_action("b", "a"), make_action("c", "b"), make_action("other")],
        policy=Policy(keep_going=True),
    )
    assert build.statuses == {"a": "failed", "b": "not run", "c": "not run", "other": "passed"}
    reasons = {result.action.id: result.reason for result in build.results}
    assert reasons["b"] == reasons["c"] == "a failed"


def test_what_two_failures_prevent_is_reported_once(make_action: MakeAction) -> None:
    build = Build(failures={"a", "b"})
    build.execute([make_action("a"), make_action("b"), make_action("c", "a", "b")], policy=Policy(keep_going=True))
    assert build.statuses == {"a": "failed", "b": "failed", "c": "not run"}


def test_what_reads_the_output_of_a_flaky_cell_runs(make_action: MakeAction) -> None:
    build = Build(flaky=["a"])
    build.execute([make_action("a", cell=True), make_action("b", "a")])
    assert build.events == ["start a", "flaky a", "start b", "passed b"]


def test_a_cell_never_stops_others(make_action: MakeAction) -> None:
    build = Build(failures={"cell"})
    build.execute([make_action("cell", cell=True), make_action("other", cell=True), make_action("image")])
    assert build.statuses == {"cell": "failed", "other": "passed", "image": "passed"}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_work_raises_is_raised_in_the_caller(error: type[BaseException], make_action: MakeAction) -> None:
    caught: list[BaseException] = []

    def body(action: Action) -> None:
        if action.id == "a":
            raise error

    def call() -> None:
        try:
            build.execute([make_action("a"), make_action("b")])
        except BaseException as raised:
            caught.append(raised)

    build = Build(body=body)
    caller = threading.Thread(target=call, daemon=True)  # an error that gets lost would block its caller forever
    caller.start()
    caller.join(SOON)
    assert [type(one) for one in caught] == [error]
    assert build.statuses == {}
    assert not any(thread.is_alive() for thread in build.run_threads)


def test_what_a_look_up_raises_ends_the_threads_too(make_action: MakeAction) -> None:
    class Failing(Build):
        def look_up(self, action: Action) -> Result | None:
            if action.id == "b":
                raise ZeroDivisionError
            return super().look_up(action)

    build = Failing()
    with pytest.raises(ZeroDivisionError):
        build.execute([make_action("a"), make_action("b", "a")], jobs=2)
    assert build.statuses == {"a": "passed"}
    assert not any(thread.is_alive() for thread in build.run_threads)


def test_results_that_arrive_after_an_error_are_reported_by_join(make_action: MakeAction) -> None:
    raised = threading.Event()
    both = threading.Barrier(2, timeout=SOON)

    def body(action: Action) -> None:
        both.wait()
        if action.id == "bad":
            raise ZeroDivisionError
        assert raised.wait(SOON)

    build = Build(body=body)
    scheduler = build.scheduler(jobs=2)
    with pytest.raises(ZeroDivisionError):
        scheduler.execute({name: make_action(name) for name in ("bad", "good")})
    raised.set()
    scheduler.join()
    assert build.statuses == {"good": "passed"}


def test_nothing_to_do(make_action: MakeAction) -> None:
    build = Build()
    build.execute([])
    assert build.events == []


def test_a_second_cache_is_asked_about_all_that_is_ready_at_once(make_action: MakeAction) -> None:
    count = 6
    together = threading.Barrier(count, timeout=SOON)
    threads: set[threading.Thread] = set()

    def ask(action: Action) -> Result:
        threads.add(threading.current_thread())
        together.wait()
        return Result(action, Status.PASSED, cached=True, remote=True)

    build = Build()
    actions = {str(number): make_action(str(number)) for number in range(count)}
    scheduler = build.scheduler(jobs=1, ask=ask)
    scheduler.execute(actions)
    scheduler.join()

    assert set(build.statuses.values()) == {"passed"}
    assert len(threads) == count
    assert build.run_threads == set()
    assert build.callback_threads == {threading.current_thread()}


def test_what_no_cache_has_runs_and_what_follows_is_asked_about_later(make_action: MakeAction) -> None:
    asked: list[str] = []
    build = Build(hits=["a"])

    def ask(action: Action) -> Result | None:
        asked.append(action.id)
        assert set(action.dependencies) <= {result.action.id for result in build.results}
        return Result(action, Status.PASSED, cached=True, remote=True) if action.id == "c" else None

    actions = [make_action("a"), make_action("b", "a"), make_action("c", "b"), make_action("d", "c")]
    scheduler = build.scheduler(jobs=2, ask=ask)
    scheduler.execute({action.id: action for action in actions})
    scheduler.join()

    assert asked == ["b", "c", "d"]
    assert build.events == ["passed a", "start b", "passed b", "passed c", "start d", "passed d"]


def test_an_error_of_a_second_cache_ends_the_build(make_action: MakeAction) -> None:
    def ask(_action: Action) -> Result | None:
        raise RuntimeError("as it may be required")

    build = Build()
    scheduler = build.scheduler(jobs=2, ask=ask)
    with pytest.raises(RuntimeError, match="required"):
        scheduler.execute({"a": make_action("a")})
    scheduler.join()

    assert build.events == []


def test_nothing_is_built_for_cells_that_cannot_run(make_action: MakeAction) -> None:
    actions = [
        make_action("tool"),
        make_action("image", "tool"),
        make_action("asked"),
        make_action("hit"),
        make_action("cell", "image", "asked", cell=True),
        make_action("cached", "hit", cell=True),
    ]
    build = Build(
        impossible={"cell", "cached"},
        hits={"hit", "cached"},
        wanted=lambda action: action.cell is not None or action.id == "asked",
    )

    build.execute(actions)

    assert sorted(build.judged) == ["cell"]
    assert [event for event in build.events if event.startswith("start")] == ["start asked"]
    assert build.statuses == {
        **{"hit": "passed", "cached": "passed", "cell": "skipped"},
        **{"tool": "not run", "image": "not run", "asked": "passed"},
    }


def test_what_another_cell_needs_is_built(make_action: MakeAction) -> None:
    build = Build(impossible={"one"}, wanted=lambda action: action.cell is not None)

    build.execute([make_action("tool"), make_action("one", "tool", cell=True), make_action("two", "tool", cell=True)])

    assert build.statuses == {"one": "skipped", "tool": "passed", "two": "passed"}


def test_what_nothing_depends_on_is_built_without_cells(make_action: MakeAction) -> None:
    build = Build(wanted=lambda _action: False)

    build.execute([make_action("base"), make_action("image", "base")])

    assert build.statuses == {"base": "passed", "image": "passed"}


def test_no_action_waits_for_a_look_at_all_behind_it(make_action: MakeAction, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would take quadratic time. Once each cell is known to be possible, there is nothing to look for."""
    asked: list[str] = []
    behind = Plan.behind

    def noting(plan: Plan, name: str) -> list[str]:
        asked.append(name)
        return behind(plan, name)

    monkeypatch.setattr(Plan, "behind", noting)
    build = Build()

    build.execute([make_action("a"), make_action("b", "a"), make_action("cell", "b", cell=True), make_action("c", "b")])

    assert (build.judged, asked) == (["cell"], ["a"])
