"""Sessions: bk builds the inputs of a cell, boots it for a user, and ends it with the context."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bkrules.analysis.runs import ENVIRONMENT
from bkrules.build.analysis import Analysis, analyze_targets
from bkrules.build.execute import Execution, execute
from bkrules.build.request import Options
from bkrules.cache.maintenance import in_use
from bkrules.cell.protocol import CellResult, End, Program, Ready
from bkrules.cell.session import HIDDEN, MACHINE, TRACE
from bkrules.errors import ActionFailed, MachineLacks, UsageError, did_you_mean
from bkrules.execution import timeline
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.status import Status
from bkrules.report.build_result import BuildResult
from bkrules.runners.open_cell import OpenCell, open_cell
from bkrules.runners.preflight import lack_of

FOREVER = 10 * 365 * 86400.0
CACHED = "cached"
"""The reason of a test that passed in an earlier build."""


class NotBuilt(ActionFailed):
    """The inputs of a session could not be built; `result` has the reason and the exit code."""

    def __init__(self, result: BuildResult) -> None:
        super().__init__("not-built", "the inputs of the session could not be built")
        self.result = result
        self.exit_code = result.exit_code


class NothingFailed(Exception):
    """A test has passed, or was skipped, so there is no failure to look at. Its reason may be CACHED."""

    def __init__(self, result: CellResult) -> None:
        super().__init__(result.status)
        self.result = result


@dataclass(frozen=True)
class Session:
    """A booted cell: `ready` is its first message, `buildctl` a folder with that tool, `logs` the one with its logs."""

    name: str
    cell: OpenCell
    ready: Ready
    buildctl: str
    logs: Path

    def end(self) -> CellResult:
        """End the cell. Return its result."""
        self.cell.ask(End())
        return self.cell.result(0)


@contextmanager
def session(
    analysis: Analysis,
    action: Action,
    options: Options,
    *,
    machine: bool = False,
    at_failure: bool = False,
    debugged: bool = False,
    traced: Sequence[str] = (),
) -> Iterator[Session]:
    """Boot the cell of an action, and report on standard error what is built for it; `machine` shows it MACHINE.

    With `at_failure` the cell runs its test first, and becomes a session when that has failed. With `debugged` it runs its
    test under pdb on the terminal that it gets, unless a cache has its result. `traced` are the names of
    daemons that run under strace, whose output is kept next to the logs of the cell. Raises NotBuilt, MachineLacks,
    NothingFailed, UsageError for an unknown daemon, and ActionFailed when a daemon does not start.
    """
    lack = lack_of(action, analysis.plugins, analysis.machine().host)
    if lack is not None:
        raise lack
    built = built_inputs(analysis, action, options)
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    execution.executor.results.update({result.action.id: result for result in built.results})
    with in_use(options.disk_cache), closing(execution):
        known = execution.look_up(action).result if debugged else None
        if known is not None and known.cached:
            raise NothingFailed(CellResult(known.status, reason=known.reason or CACHED))
        execution.prepare(tests=at_failure or debugged)
        context = execution.context
        assert context is not None
        inputs = execution.executor.stage(action)
        logs = context.folder.new("session")
        needs_machine = bool(traced) and _needs_strace_of_machine(inputs)
        place = HIDDEN if at_failure and not needs_machine else ""
        folders = [(folder, place + folder) for folder in MACHINE if machine and Path(folder).is_dir()]
        program = Program.KEPT if at_failure else Program.DEBUGGED if debugged else Program.SESSION
        with (
            _keeping(logs, context.cell_folder(action) if traced else logs),
            open_cell(action, inputs, context, str(logs), program, folders, traced) as cell,
        ):
            ready = cell.message(context.timeout(action))
            if isinstance(ready, CellResult) and ready.status in (Status.PASSED, Status.SKIPPED):
                _check_traced(action, traced, [path.stem for path in timeline.kept(logs, f"*{TRACE}")])
                raise NothingFailed(ready)
            if not isinstance(ready, Ready):
                raise _not_booted(action, ready, logs)
            _check_traced(action, traced, ready.daemons)
            buildctl = context.tool_folder({"buildctl": _tool(inputs, "buildctl")})
            yield Session(action.title, cell, ready, buildctl, logs)


def built_inputs(analysis: Analysis, action: Action, options: Options) -> BuildResult:
    """Build the targets whose outputs an action reads. Raises NotBuilt."""
    needed = [analysis.actions.actions[name].label for name in action.dependencies]
    targets = [target for label in dict.fromkeys(needed) if (target := analysis.workspace.target(label)) is not None]
    built = execute(analyze_targets(analysis.workspace, targets, analysis.runs), options)
    if built.exit_code:
        raise NotBuilt(built)
    return built


def _needs_strace_of_machine(inputs: Mapping[str, Node]) -> bool:
    """Return whether a cell has no tool 'strace'. Raises MachineLacks when this machine has none either."""
    if "tools/strace" in inputs:
        return False
    if shutil.which("strace", path=ENVIRONMENT["PATH"]) is None:
        hint = "on Debian and Ubuntu:  apt-get install strace\nor name a target 'strace' in 'tools' of the matrix"
        raise MachineLacks("no-strace", "this machine has no strace in /usr/bin", hint=hint)
    return True


def _check_traced(action: Action, traced: Sequence[str], known: Sequence[str]) -> None:
    """Raise UsageError when one of the daemons to trace is none of the cell's."""
    for name in traced:
        if name not in known:
            hint = did_you_mean(name, known, "its daemons")
            raise UsageError("unknown-daemon", f"--strace={name}: {action.title} has no such daemon", hint=hint)


@contextmanager
def _keeping(logs: Path, folder: Path) -> Iterator[None]:
    """Move what strace has written to another folder, when the cell has ended."""
    try:
        yield
    finally:
        for trace in timeline.kept(logs, f"*{TRACE}") if folder != logs else []:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(trace, folder / trace.name)
            print(f"bk: the system calls of {trace.stem} are in {folder / trace.name}", file=sys.stderr)


@contextmanager
def closing(execution: Execution) -> Iterator[None]:
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
