"""Sessions: bk builds the inputs of a cell, boots it for a user, and ends it with the context."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bkrules.build.analysis import Analysis, analyze_targets
from bkrules.build.execute import Execution, execute
from bkrules.build.request import Options
from bkrules.cache.maintenance import in_use
from bkrules.cell.protocol import CellResult, End, Program, Ready
from bkrules.cell.session import HIDDEN, MACHINE
from bkrules.errors import ActionFailed
from bkrules.execution import timeline
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.status import Status
from bkrules.report.build_result import BuildResult
from bkrules.runners.open_cell import OpenCell, open_cell
from bkrules.runners.test_cell import check_machine

FOREVER = 10 * 365 * 86400.0


class NotBuilt(ActionFailed):
    """The inputs of a session could not be built; `result` has the reason and the exit code."""

    def __init__(self, result: BuildResult) -> None:
        super().__init__("not-built", "the inputs of the session could not be built")
        self.result = result
        self.exit_code = result.exit_code


class NothingFailed(Exception):
    """A test has passed, or was skipped, so there is no failure to look at."""

    def __init__(self, result: CellResult) -> None:
        super().__init__(result.status)
        self.result = result


@dataclass(frozen=True)
class Session:
    """A booted cell: `ready` is its first message, `buildctl` a folder with that tool."""

    name: str
    cell: OpenCell
    ready: Ready
    buildctl: str

    def end(self) -> CellResult:
        """End the cell. Return its result."""
        self.cell.ask(End())
        return self.cell.result(0)


@contextmanager
def session(
    analysis: Analysis, action: Action, options: Options, *, machine: bool = False, at_failure: bool = False
) -> Iterator[Session]:
    """Boot the cell of an action, and report on standard error what is built for it; `machine` shows it MACHINE.

    With `at_failure` the cell runs its test first, and becomes a session when that has failed. Raises NotBuilt,
    MachineLacks, NothingFailed, and ActionFailed when a daemon does not start.
    """
    needed = [analysis.actions.actions[name].label for name in action.dependencies]
    targets = [target for label in dict.fromkeys(needed) if (target := analysis.workspace.target(label)) is not None]
    built = execute(analyze_targets(analysis.workspace, targets, analysis.runs), options)
    if built.exit_code:
        raise NotBuilt(built)
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    execution.executor.results.update({result.action.id: result for result in built.results})
    with in_use(options.disk_cache), _closing(execution):
        execution.prepare(tests=at_failure)
        context = execution.context
        assert context is not None
        check_machine(action, context)
        inputs = execution.executor.stage(action)
        logs = context.folder.new("session")
        place = HIDDEN if at_failure else ""
        folders = [(folder, place + folder) for folder in MACHINE if machine and Path(folder).is_dir()]
        program = Program.KEPT if at_failure else Program.SESSION
        with open_cell(action, inputs, context, str(logs), program, folders) as cell:
            ready = cell.message(context.timeout(action))
            if isinstance(ready, CellResult) and ready.status in (Status.PASSED, Status.SKIPPED):
                raise NothingFailed(ready)
            if not isinstance(ready, Ready):
                raise _not_booted(action, ready, logs)
            yield Session(action.title, cell, ready, context.tool_folder({"buildctl": _tool(inputs, "buildctl")}))


@contextmanager
def _closing(execution: Execution) -> Iterator[None]:
    try:
        yield
    finally:
        execution.interrupt()
        execution.close()


def _tool(inputs: dict[str, Node], name: str) -> FileNode:
    node = inputs[f"tools/{name}"]
    assert isinstance(node, FileNode)
    return node


def _not_booted(action: Action, result: CellResult, logs: Path) -> ActionFailed:
    lines = [f"{path.name} | {line}" for path in timeline.kept(logs, "*.log") for line in _tail(path)]
    return ActionFailed("not-booted", f"{action.title}: {result.reason}", hint="\n".join(lines))


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-8:]
