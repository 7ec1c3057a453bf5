"""The pool of shared workers, for a matrix with `isolation = "worker"`: started when needed, and kept while they stay unchanged."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bkrules.cell.protocol import CellResult, End, Program, StartTest, TestResult
from bkrules.execution.context import RunContext
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.parameters import PytestSettings, TestCell, parameters_of
from bkrules.model.status import FailureClass
from bkrules.runners.open_cell import OpenCell, open_cell, test_request
from bkrules.runners.pulled import keep, pulled


@dataclass
class _Shared:
    """A running worker."""

    cell: OpenCell
    open: ExitStack = field(default_factory=ExitStack)


class SharedCells:
    """The workers of a run that wait for their next test, by all their inputs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[_Shared]] = {}
        self._started = 0
        self._leaks: list[str] = []

    def run(self, action: Action, inputs: Mapping[str, Node], context: RunContext, folder: Path) -> CellResult:
        """Run a test on an idle worker, or on a new one. Return its result. `folder` gets its logs."""
        key = _key(action, inputs)
        with self._lock:
            waiting = self._idle.get(key)
            shared = waiting.pop() if waiting else None
            number = self._started
            self._started += 1
        shared = shared or _open(action, inputs, context, context.folder.new(f"shared-{number}"))
        reusable = False
        try:
            result = _ask(shared, action, inputs, folder)
            reusable = isinstance(result, TestResult) and not result.tainted
            reusable = reusable and result.failure != FailureClass.INFRASTRUCTURE
        finally:
            if reusable:
                with self._lock:
                    self._idle.setdefault(key, []).append(shared)
            else:
                self._end(shared)
        return result

    def close(self) -> tuple[str, ...]:
        """End all workers. Return the leaks that no test was seen to cause."""
        with self._lock:
            waiting = [shared for idle in self._idle.values() for shared in idle]
            self._idle.clear()
        for shared in waiting:
            self._end(shared)
        return tuple(self._leaks)

    def _end(self, shared: _Shared) -> None:
        with shared.open:
            if shared.cell.context.processes.interrupted:
                return
            try:
                shared.cell.ask(End())
                last = shared.cell.result(0)
            except OSError:
                return  # it has ended already
            if last.failure == FailureClass.LEAK:
                self._leaks.append(last.reason)


def _open(action: Action, inputs: Mapping[str, Node], context: RunContext, out: Path) -> _Shared:
    common = {path: node for path, node in inputs.items() if not path.startswith("src/")}
    with ExitStack() as stack:
        cell = stack.enter_context(open_cell(action, common, context, str(out), Program.TESTS))
        return _Shared(cell, stack.pop_all())


def _sources(inputs: Mapping[str, Node]) -> dict[str, tuple[str, bool]]:
    """Return the bytes of a test's sources, not a descriptor of their folder, which by `..` would lead to every file of
    the machine.
    """
    return {
        path.removeprefix("src/"): (base64.b64encode(Path(node.path).read_bytes()).decode(), node.executable)
        for path, node in inputs.items()
        if path.startswith("src/") and isinstance(node, FileNode)
    }


def _ask(shared: _Shared, action: Action, inputs: Mapping[str, Node], folder: Path) -> CellResult:
    """Run a test on a worker. Return its result, with the requests to the mirror from its begin to its end.

    A worker runs one test at a time, so no other test of it has made them.
    """
    context = shared.cell.context
    shared.cell.new_requests()  # those after the last test belong to none
    with suppress(OSError):  # it has ended, and says why
        shared.cell.ask(StartTest(test_request(action, context), _sources(inputs), str(folder)))
    result = shared.cell.result(context.timeout(action))
    requests = shared.cell.new_requests()
    keep(requests, str(folder))
    return replace(result, pulled=pulled(requests))


def _key(action: Action, inputs: Mapping[str, Node]) -> str:
    parts = {path: str(node.digest) for path, node in inputs.items() if not path.startswith("src/")}
    of_any_test = replace(parameters_of(action, TestCell), axes={}, module="", test="", pytest=PytestSettings())
    return json.dumps([parts, of_any_test.to(), dict(action.environment)], sort_keys=True)
