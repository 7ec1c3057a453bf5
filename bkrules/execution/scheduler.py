"""The scheduler: runs a plan on a bounded number of threads.

Hits of the disk cache are answered in the calling thread, one after the other, so that a build of nothing but those starts no
thread at all. A remote cache is asked about all actions that are ready at once, in threads of its own.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bkrules.action import Action
from bkrules.execution.plan import Plan
from bkrules.execution.result import Result

ASKERS = 16


@dataclass(frozen=True)
class _Unknown:
    """The answer of a cache that has no result of an action."""

    action: Action


class Scheduler:
    """Executes actions. `look_up` answers from the cache or returns None; `run` does the work, in one of `jobs` threads.

    What `look_up` does not know, `ask` may know, which takes its time: it is called in threads, for many actions at once.
    """

    def __init__(
        self,
        look_up: Callable[[Action], Result | None],
        run: Callable[[Action], Result],
        on_start: Callable[[Action], None],
        on_result: Callable[[Result], None],
        *,
        jobs: int,
        keep_going: bool,
        ask: Callable[[Action], Result | None] | None = None,
    ) -> None:
        self._look_up, self._run, self._ask = look_up, run, ask
        self._on_start, self._on_result = on_start, on_result
        self._jobs, self._keep_going = jobs, keep_going
        self._done: queue.SimpleQueue[Result | _Unknown | BaseException] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._askers: list[threading.Thread] = []

    def execute(self, actions: Mapping[str, Action]) -> None:
        """Execute every action. Test cells never stop others; another failure does, unless `keep_going`."""
        plan = Plan({name: action.dependencies for name, action in actions.items()})
        missed: deque[Action] = deque()
        running = asked = 0
        stopping = False
        try:
            while not plan.finished:
                while not stopping:
                    if missed and running < self._jobs:
                        self._submit(missed.popleft())
                        running += 1
                    elif (running < self._jobs or self._ask) and (name := plan.take()) is not None:
                        result = self._look_up(actions[name])
                        if result is not None:
                            stopping |= self._settle(result, plan, actions)
                        elif self._ask is not None:
                            self._question(actions[name])
                            asked += 1
                        else:
                            missed.append(actions[name])
                    else:
                        break
                if not running and not asked:
                    return
                outcome = self._done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                if isinstance(outcome, _Unknown):
                    asked -= 1
                    missed.append(outcome.action)
                    continue
                if outcome.remote:
                    asked -= 1
                else:
                    running -= 1
                stopping |= self._settle(outcome, plan, actions)
        finally:
            for _ in self._threads:
                self._work.put(None)
            for _ in self._askers:
                self._questions.put(None)

    def join(self) -> None:
        """Wait for the threads that run actions; results that arrive meanwhile are reported."""
        for thread in self._threads:
            thread.join()
        while not self._done.empty():
            outcome = self._done.get()
            if isinstance(outcome, Result):
                self._on_result(outcome)

    def _settle(self, result: Result, plan: Plan, actions: Mapping[str, Action]) -> bool:
        """Take a result into the plan; whether nothing more should start."""
        self._on_result(result)
        if result.status == "passed":
            plan.succeed(result.action.id)
            return False
        for name in plan.fail(result.action.id):
            self._on_result(
                Result(actions[name], "not run", reason=f"{result.action.id} {result.status}", failure=result.failure)
            )
        return result.action.cell is None and not self._keep_going

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
        if len(self._threads) < self._jobs:
            thread = threading.Thread(target=self._serve, name=f"job-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._on_start(action)
        self._work.put(action)

    def _serve(self) -> None:
        while (action := self._work.get()) is not None:
            try:
                self._done.put(self._run(action))
            except BaseException as error:  # carried to the main thread, which raises it
                self._done.put(error)
