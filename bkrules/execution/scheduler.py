"""The scheduler: runs a plan on a bounded number of threads.

Hits of the disk cache are answered in the calling thread, one after the other, so a fully cached build starts no
thread. A remote cache is asked about all ready actions at once, in its own threads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from bkrules.cache.history import History
from bkrules.errors import MachineLacks
from bkrules.execution.estimates import expected_seconds
from bkrules.execution.job_slot import JobSlot, Paused
from bkrules.execution.plan import Plan
from bkrules.execution.pools import Pools
from bkrules.execution.profile import NoProfile
from bkrules.execution.result import Result, failed
from bkrules.model.action import Action
from bkrules.model.resources import ELSEWHERE
from bkrules.model.status import BAD, GOOD, FailureClass, Status

ASKERS = 16
_LONGEST_WAIT = 0.2
NO_PROFILE = NoProfile()


@dataclass(frozen=True)
class _Unknown:
    """The answer of a cache without a result of an action."""

    action: Action


@dataclass(frozen=True)
class Policy:
    """The failures that end a build: those of ordinary actions unless `keep_going`, those of cells unless `test_keep_going`."""

    keep_going: bool = False
    test_keep_going: bool = True


class Scheduler:
    """Executes actions, once. `look_up` answers from the cache or returns None; `run` runs an action, in one thread per job.

    `ask` looks up the misses of `look_up` in a slow cache: it is called in threads, for many actions at once. `history`
    tells which actions take long or failed, so that they run first. `cancel` ends running actions; it is called when a
    cell's failure ends the build. `refuse` returns the result of a cell that this machine cannot run: it is called once for
    each cell, before the first action starts that the cell waits for, so that nothing is built for such cells alone.
    `elsewhere` tells which actions run on other machines, and need no slot of this one. `wanted` tells which actions somebody
    wants for themselves; those on which no other depends are wanted in any case.
    """

    def __init__(
        self,
        look_up: Callable[[Action], Result | None],
        run: Callable[[Action, JobSlot], Result],
        on_start: Callable[[Action], None],
        on_result: Callable[[Result], None],
        *,
        pools: Pools,
        policy: Policy,
        ask: Callable[[Action], Result | None] | None = None,
        history: History | None = None,
        cancel: Callable[[], None] = lambda: None,
        refuse: Callable[[Action], Result | None] = lambda _action: None,
        wanted: Callable[[Action], bool] = lambda _action: True,
        elsewhere: Callable[[Action], bool] = lambda _action: False,
        profile: NoProfile = NO_PROFILE,
    ) -> None:
        self._look_up, self._run, self._ask = look_up, run, ask
        self._on_start, self._on_result, self._cancel = on_start, on_result, cancel
        self._refuse, self._wanted, self._elsewhere = refuse, wanted, elsewhere
        self._unjudged, self._has_refused = set[str](), False
        self._pools, self._policy, self._history, self._profile = pools, policy, history, profile
        self._plan, self._actions = Plan({}), dict[str, Action]()
        self._done: queue.SimpleQueue[Result | _Unknown | Paused | BaseException] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[tuple[Action, JobSlot] | None] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._askers: list[threading.Thread] = []
        self._slots: dict[str, JobSlot] = {}  # of the actions that have started and have no result yet
        self._asked = 0
        self._over = threading.Event()
        self.stopped_by = ""
        self.interrupted = False

    def execute(self, actions: Mapping[str, Action]) -> None:
        """Execute every action. After a failure that ends the build nothing starts; `stopped_by` names that failure.

        Raises KeyboardInterrupt after `interrupt`, and the exceptions of callbacks.
        """
        self._actions = dict(actions)
        self._unjudged = {name for name, action in actions.items() if action.cell is not None}
        requests = {name: ELSEWHERE if self._elsewhere(action) else action.request for name, action in actions.items()}
        self._plan = Plan({name: action.dependencies for name, action in actions.items()}, requests, self._pools)
        try:
            while not self._plan.finished:
                self._advance()
                if not self._slots and not self._asked and self._done.empty():
                    return
                self._receive(self._next())
        finally:
            self._end_slots()
            for _ in self._threads:
                self._work.put(None)
            for _ in self._askers:
                self._questions.put(None)

    def _next(self) -> Result | _Unknown | Paused | BaseException:
        """Return the next message of a thread.

        CPython handles a signal that arrives just before a wait only after that wait, so no wait is long.
        """
        while True:
            with suppress(queue.Empty):
                return self._done.get(timeout=_LONGEST_WAIT)

    def interrupt(self) -> None:
        """Let `execute` start nothing more and raise KeyboardInterrupt. A signal handler may call this."""
        self.interrupted = True
        self._done.put(KeyboardInterrupt())  # not an Event: the thread that the signal stops may hold its lock

    def join(self) -> None:
        """Wait for the threads that run actions; results that arrive meanwhile are reported."""
        for thread in self._threads:
            thread.join()
        while not self._done.empty():
            outcome = self._done.get()
            if isinstance(outcome, Result):
                self._report(outcome)

    def _advance(self) -> None:
        """Start and look up all that is ready, the most urgent first."""
        while not self.stopped_by and not self.interrupted:
            if self._history is not None and self._plan.has_to_choose:
                expected = expected_seconds([self._actions[name] for name in self._plan.unfinished], self._history)
                self._plan.prioritize(expected.__getitem__, self._history.failed_last)
            name = self._plan.start()
            if name is not None:
                if not self._is_refused(self._actions[name]):
                    self._submit(self._actions[name])
            elif (self._plan.has_room or self._ask) and (name := self._plan.take()) is not None:
                self._find(self._actions[name])
            else:
                return

    def _is_refused(self, action: Action) -> bool:
        """Settle an action that is about to start when only cells need it that this machine cannot run, and these cells."""
        if action.id in self._slots or not (self._unjudged or self._has_refused):
            return False  # it continues after a pause, or this machine can run every cell
        names = [action.id, *self._plan.behind(action.id)]
        for name in names:
            if name in self._unjudged:
                self._unjudged.remove(name)
                result = self._refuse(self._actions[name])
                if result is not None:
                    self._has_refused = True
                    self._settle(result)
        left = [name for name in names if name in self._plan.unfinished]
        if any(self._plan.is_last(name) or self._wanted(self._actions[name]) for name in left):
            return False
        if action.id in left:
            reason = "only cells that this machine cannot run need it"
            for name in (action.id, *self._plan.fail(action.id)):
                self._on_result(
                    Result(self._actions[name], Status.NOT_RUN, reason=reason, failure=FailureClass.MACHINE)
                )
        return True

    def _receive(self, outcome: Result | _Unknown | Paused | BaseException) -> None:
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, _Unknown):
            self._asked -= 1
            self._miss(outcome.action)
        elif isinstance(outcome, Paused):
            if outcome.back:
                if outcome.here:
                    self._plan.bring(outcome.name, self._actions[outcome.name].request)
                self._plan.miss(outcome.name)
            else:
                self._plan.pause(outcome.name)
        else:
            if self._slots.pop(outcome.action.id, None) is None:
                self._asked -= 1
            self._settle(outcome)

    def _find(self, action: Action) -> None:
        result = self._look_up(action)
        if result is not None:
            self._settle(result)
        elif self._ask is not None:
            self._asked += 1
            self._question(action)
        else:
            self._miss(action)

    def _miss(self, action: Action) -> None:
        """Queue an action for a job slot. One that needs more than the machine has never gets one."""
        lack = None if self._elsewhere(action) else self._pools.lack(action.request)
        if lack is not None:
            name, wanted, there = lack
            reason = f"{action.label} takes {wanted:g} of the resource {name!r}, of which this machine has {there:g}"
            hint = f"--local_resources={name}={wanted:g} declares that it has this number"
            self._settle(failed(action, MachineLacks("resources", reason, hint=hint)))
            return
        self._profile.begin_wait(action)
        self._plan.miss(action.id)

    def _settle(self, result: Result) -> None:
        """Enter a result into the plan."""
        self._report(result)
        if result.status in GOOD:
            self._plan.succeed(result.action.id)
            return
        for name in self._plan.fail(result.action.id):
            reason = f"{result.action.id} {result.status}"
            self._on_result(Result(self._actions[name], Status.NOT_RUN, reason=reason, failure=result.failure))
        is_cell = result.action.cell is not None
        if not is_cell and not self._policy.keep_going:
            self._stop(result)
        elif is_cell and not self._policy.test_keep_going and result.status in BAD:
            self._stop(result)
            self._cancel()

    def _report(self, result: Result) -> None:
        if result.failure == FailureClass.INTERRUPTED and self.stopped_by:
            result = replace(result, reason=self.stopped_by)
        self._on_result(result)

    def _stop(self, result: Result) -> None:
        """Start nothing more. Running actions continue; actions that wait to reacquire their slot end."""
        if not self.stopped_by:
            self.stopped_by = f"{result.action.title} {result.status}"
            self._end_slots()

    def _end_slots(self) -> None:
        self._over.set()
        for slot in self._slots.values():
            slot.grant(granted=False)

    def _question(self, action: Action) -> None:
        if len(self._askers) < ASKERS:
            thread = threading.Thread(target=self._serve_questions, name=f"ask-{len(self._askers)}", daemon=True)
            self._askers.append(thread)
            thread.start()
        self._questions.put(action)

    def _serve_questions(self) -> None:
        assert self._ask is not None
        while (action := self._questions.get()) is not None:
            try:
                self._done.put(self._ask(action) or _Unknown(action))
            except BaseException as error:  # carried to the main thread, which raises it
                self._done.put(error)

    def _submit(self, action: Action) -> None:
        """Run an action, or let it continue after a pause."""
        if action.id in self._slots:
            self._slots[action.id].grant()
            return
        slot = self._slots[action.id] = JobSlot(action.id, self._done.put, self._over)
        if len(self._threads) < len(self._slots):
            thread = threading.Thread(target=self._serve, name=f"job-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._profile.end_wait(action)
        self._on_start(action)
        self._work.put((action, slot))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._done.put(self._run(*work))
            except BaseException as error:  # carried to the main thread, which raises it
                self._done.put(error)
