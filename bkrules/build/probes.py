"""Probes of a bisection: whether a cell passes with other tools, from a cache when that is known."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.build.analysis import Analysis, analyze_targets
from bkrules.build.bisection import Answer, Verdict, by_majority
from bkrules.build.execute import Execution, execute
from bkrules.build.request import Options
from bkrules.cache import atomic
from bkrules.errors import ActionFailed, Interrupted, MachineLacks
from bkrules.execution.result import Result
from bkrules.loading.workspace import STATE
from bkrules.model.action import Action
from bkrules.model.selected import Selected
from bkrules.model.status import BAD, GOOD, FailureClass, Status
from bkrules.report.build_result import BuildResult
from bkrules.system.files import read_regular
from bkrules.system.network import no_network

_MOST = 4096
"""How many answers bk remembers."""


@dataclass(frozen=True)
class Memory:
    """The answers that no cache of results keeps, by the keys of cells and of builds: failures. A key says all that counts."""

    path: str
    answers: dict[str, tuple[str, str]]

    @classmethod
    def at(cls, out: Path) -> Memory:
        """Return the memory of a workspace, by its `bk-out`; an empty one when it cannot be read."""
        path = f"{out}/{STATE}/bisect"
        try:
            found = json.loads(read_regular(path))
            answers = {key: (str(Verdict(verdict)), str(note)) for key, (verdict, note) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            answers = {}
        return cls(path, answers)

    def get(self, key: str) -> Answer | None:
        """Return what an earlier bisection found."""
        known = self.answers.get(key)
        return Answer(Verdict(known[0]), known[1]) if known else None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        self.answers.pop(key, None)
        self.answers[key] = (str(answer.verdict), answer.note)
        kept = list(self.answers.items())[-_MOST:]
        atomic.write(self.path, json.dumps(dict(kept)).encode())


@dataclass(frozen=True)
class Prober:
    """Answers whether a cell passes. With `again`, what an earlier bisection found does not count."""

    options: Options
    again: bool = False

    def answer(self, analysis: Analysis, cell: Action) -> Answer:
        """Return whether the cell of an analysis passes; it runs only when neither a cache nor an earlier bisection knows.

        Raises MachineLacks, ActionFailed for a broken plugin, and Interrupted.
        """
        assert cell.cell is not None
        only = replace(analysis, selected=Selected(frozenset([cell.id]), {cell.cell.matrix: 1}))
        memory = Memory.at(analysis.out)
        answer = (
            self._known(only, cell, memory) or self._not_built(only, cell, memory) or self._known(only, cell, memory)
        )
        if answer is not None:
            return answer
        keys: set[str] = set()

        def run(is_repeated: bool) -> Answer:
            options = replace(self.options, cache_test_results="no") if is_repeated or self.again else self.options
            answer, key = _judged(execute(only, options), cell)
            keys.add(key)
            return answer

        answer = by_majority(run)
        if answer.verdict != Verdict.GOOD or answer.runs > 1:
            for key in filter(None, keys):
                memory.put(key, answer)
        return answer

    def _not_built(self, analysis: Analysis, cell: Action, memory: Memory) -> Answer | None:
        """Build the inputs of the cell: its key, by which an answer is known, covers their bytes. Return why that failed."""
        labels = {analysis.actions.actions[name].label for name in cell.dependencies} - {cell.label}
        targets = [target for label in sorted(labels) if (target := analysis.workspace.target(label)) is not None]
        build = execute(analyze_targets(analysis.workspace, targets, analysis.runs), self.options)
        failed = _failed_build(build)
        if failed is not None and failed[1]:
            memory.put(failed[1], failed[0])
        return failed[0] if failed else None

    def _known(self, analysis: Analysis, cell: Action, memory: Memory) -> Answer | None:
        """Return the answer of an earlier bisection, or a cached result of the cell. Starts nothing."""
        if self.again:
            return None
        execution = Execution(analysis, self.options, lambda line: print(line, file=sys.stderr), show=False)
        for action in analysis.wanted().values():
            known = execution.look_up(action)
            answer = memory.get(known.key) if known.key else None
            if answer is not None:
                return answer
            if action.id == cell.id and known.result is not None and known.result.cached:
                return _cached(known.result)
        execution.digests.save()
        return None


def _cached(result: Result) -> Answer:
    if result.status == Status.SKIPPED:
        return _unknown(result)
    return Answer(Verdict.GOOD, "cached")


def _unknown(result: Result) -> Answer:
    return Answer(Verdict.UNKNOWN, f"{result.status}: {result.reason.partition(chr(10))[0]}")


def _judged(build: BuildResult, cell: Action) -> tuple[Answer, str]:
    """Return the answer of a run, and the key under which it holds. Raises MachineLacks, ActionFailed, Interrupted."""
    if failed := _failed_build(build):
        return failed
    result = next(one for one in build.results if one.action.id == cell.id)
    _check_machine(result)
    key = result.key.digest.hash if result.key else ""
    note = result.reason.partition("\n")[0]
    if result.status in GOOD:
        return Answer(Verdict.GOOD, "cached" if result.cached else "", 0 if result.cached else 1), key
    if result.status in BAD:
        return Answer(Verdict.BAD, note, 1), key
    return _unknown(result), ""


def _failed_build(build: BuildResult) -> tuple[Answer, str] | None:
    """Return the answer of a build in which something other than a cell failed, and the key under which it holds, if any.

    Raises MachineLacks, ActionFailed, Interrupted.
    """
    if build.interrupted:
        raise Interrupted("interrupted", "the bisection was interrupted; its answers so far are kept")
    failed = next((one for one in build.results if one.status in BAD and one.action.cell is None), None)
    if failed is None:
        return None
    _check_machine(failed)
    if no_network(failed.log):
        raise MachineLacks("no-network", f"{failed.action.label}: {failed.reason}", hint=failed.log)
    key = failed.key.digest.hash if failed.key and failed.failure == FailureClass.BUILD else ""
    return Answer(Verdict.UNKNOWN, f"does not build: {failed.reason}"), key


def _check_machine(result: Result) -> None:
    """Raise the error of a result that tells nothing of the tool."""
    message = f"{result.action.title}: {result.reason}"
    if result.failure == FailureClass.MACHINE:
        raise MachineLacks("machine", message, hint=result.hint)
    if result.failure == FailureClass.PLUGIN:
        raise ActionFailed("broken-plugin", message, hint=result.hint)
