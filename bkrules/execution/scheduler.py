"""The scheduler: runs a plan on a bounded number of threads.

Cache hits are answered in the calling thread, one after the other, so that a build of nothing but hits starts no thread at all.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping

from bkrules.action import Action
from bkrules.execution.plan import Plan
from bkrules.execution.result import Result


class Scheduler:
    """Executes actions. `look_up` answers from the cache or returns None; `run` does the work, in one of `jobs` threads."""

    def __init__(
        self,
        look_up: Callable[[Action], Result | None],
        run: Callable[[Action], Result],
        on_start: Callable[[Action], None],
        on_result: Callable[[Result], None],
        *,
        jobs: int,
        keep_going: bool,
    ) -> None:
        self._look_up, self._run = look_up, run
        self._on_start, self._on_result = on_start, on_result
        self._jobs, self._keep_going = jobs, keep_going
        self._done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def execute(self, actions: Mapping[str, Action]) -> None:
        """Execute every action. Test cells never stop others; another failure does, unless `keep_going`."""
        plan = Plan({name: action.dependencies for name, action in actions.items()})
        running = 0
        stopping = False
        try:
            while not plan.finished:
                while running < self._jobs and not stopping and (name := plan.take()) is not None:
                    result = self._look_up(actions[name])
                    if result is None:
                        self._submit(actions[name])
                        running += 1
                    else:
                        stopping |= self._settle(result, plan, actions)
                if not running:
                    if stopping or not plan.finished:
                        break
                    return
                outcome = self._done.get()
                running -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                stopping |= self._settle(outcome, plan, actions)
        finally:
            for _ in self._threads:
                self._work.put(None)

    def join(self) -> None:
        """Wait for the threads; results that arrive meanwhile are reported."""
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
