"""The options of the command line for all cells of a build: number of runs, environment, kernel properties in their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bkrules.analysis.cell_inputs import ENVIRONMENT
from bkrules.model.action import Action
from bkrules.system.kernel import SERIES

FIXED = frozenset({*ENVIRONMENT, "GOMAXPROCS"})
"""Variables that bk itself sets in a cell; no key covers the last of them."""


@dataclass(frozen=True)
class Runs:
    """The runs of each cell: their `number`, and variables in addition to bk's. `kernel_key` is one of `kernel.KEYS`."""

    number: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    kernel_key: str = SERIES

    def of(self, action: Action) -> Iterator[Action]:
        """Return the actions that run for an action: itself, or a copy for each run of a cell.

        Each run of several is an action with a separate key: as with Bazel, TEST_RUN_NUMBER counts from 1, and
        TEST_RANDOM_SEED has the same number unless the user chooses one. A single run has neither, so that it shares
        its result with builds without `--runs_per_test`.
        """
        if action.cell is None:
            yield action
            return
        for run in range(1, self.number + 1):
            counted = {"TEST_RANDOM_SEED": str(run), "TEST_RUN_NUMBER": str(run)} if self.number > 1 else {}
            environment = {**counted, **dict(action.environment), **dict(self.environment)}
            yield replace(
                action,
                id=f"{action.id} run {run}" if counted else action.id,
                environment=tuple(sorted(environment.items())),
                cell=replace(action.cell, run=run, runs=self.number) if counted else action.cell,
            )
