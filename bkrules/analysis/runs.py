"""What the command line says of all cells of a build: how often, in which environment, with what of the kernel in their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bkrules.analysis.cell_inputs import ENVIRONMENT
from bkrules.model.action import Action
from bkrules.system.kernel import SERIES

FIXED = frozenset({*ENVIRONMENT, "GOMAXPROCS"})
"""Variables that are bk's own in a cell; the last of them is in no key."""


@dataclass(frozen=True)
class Runs:
    """Each cell runs `number` times, with these variables beside those that bk gives it. `kernel_key` is one of `kernel.KEYS`."""

    number: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    kernel_key: str = SERIES

    def of(self, action: Action) -> Iterator[Action]:
        """What runs for an action: itself, unless it is a cell.

        Every run of several is an action with a key of its own: as with Bazel, TEST_RUN_NUMBER counts them from 1, and
        TEST_RANDOM_SEED is the same number when nobody has chosen another. A single run has neither, so that it shares its result
        with builds that do not ask for runs.
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
