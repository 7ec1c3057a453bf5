"""The options of the command line for the actions of a build: runs of cells, environment, properties of machines in keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from bkrules.model.action import Action, Artifact, Output
from bkrules.model.cases import TEST_OUTPUTS
from bkrules.system.kernel import SERIES

ENVIRONMENT = {
    "GORACE": "halt_on_error=1",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/opt/bk/bin:/usr/sbin:/usr/bin",
    "TEST_UNDECLARED_OUTPUTS_DIR": f"/out/{TEST_OUTPUTS}",
    "TMPDIR": "/tmp",
    "TZ": "UTC",
}
"""The environment of every cell. A program with Go's race detector ends at its first race, as under BuildKit's harness."""
FIXED = frozenset({*ENVIRONMENT, "GOMAXPROCS"})
"""Variables that bk itself sets in a cell; no key covers the last of them."""


@dataclass(frozen=True)
class Runs:
    """The runs of each cell: their `number`, and variables in addition to bk's. `kernel_key` is one of `kernel.KEYS`.

    `properties` are those of the machine for actions that can run elsewhere, unless their targets set others.
    """

    number: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    kernel_key: str = SERIES
    properties: tuple[tuple[str, str], ...] = ()

    def of(self, action: Action, cells: Collection[str] = ()) -> Iterator[Action]:
        """Return the actions that run for an action: itself, or a copy for each run of a cell.

        Each run of several is an action with a separate key: as with Bazel, TEST_RUN_NUMBER counts from 1, and
        TEST_RANDOM_SEED has the same number unless the user chooses one. A single run has neither, so that it shares
        its result with builds without `--runs_per_test`. `cells` are the ids of all cells: a cell that reads the outputs of others
        reads those of the same run.
        """
        if self.properties and action.made_in and not action.platform:
            action = replace(action, platform=self.properties)
        if action.cell is None or (self.number == 1 and not self.environment):
            yield action
            return
        for run in range(1, self.number + 1):
            counted = {"TEST_RANDOM_SEED": str(run), "TEST_RUN_NUMBER": str(run)} if self.number > 1 else {}
            environment = {**counted, **dict(action.environment), **dict(self.environment)}
            yield replace(
                action,
                id=_of_run(action.id, run) if counted else action.id,
                inputs=_of_same_run(action, cells, run) if counted else action.inputs,
                environment=tuple(sorted(environment.items())),
                cell=replace(action.cell, run=run, runs=self.number) if counted else action.cell,
            )


def _of_run(name: str, run: int) -> str:
    return f"{name} run {run}"


def _of_same_run(action: Action, cells: Collection[str], run: int) -> tuple[tuple[str, Artifact], ...]:
    return tuple(
        (path, replace(item, producer=_of_run(item.producer, run)))
        if isinstance(item, Output) and item.producer in cells
        else (path, item)
        for path, item in action.inputs
    )
