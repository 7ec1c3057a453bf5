"""The runner of CollectTests: pytest's own list of a module's tests, in a sandbox with the files of its cells."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bkrules.cell.init import ETC
from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext, limit_met, limit_text
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, FileNode, HostFile, Node
from bkrules.model.collected import Collected
from bkrules.model.parameters import CollectTests, parameters_of
from bkrules.model.status import Status
from bkrules.runners.missing_files import hint_of
from bkrules.runners.open_cell import interpreter_links, outermost
from bkrules.sandbox import outputs
from bkrules.sandbox.command import MOST_OUTPUT
from bkrules.sandbox.spawner import CommandSandbox
from bkrules.testing.pytest_text import PATIENCE, last_line, place_in

_TESTS, _OUT = "tests.json", "/out"
_HANGS = "Timeout ("
"""The first line of faulthandler's report of where a program hangs."""
_TOO_LONG = f"its import and collection took more than {PATIENCE} s"


def collect_tests(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Run pytest's collection. Raises ActionFailed when pytest cannot import or collect the module."""
    folder = context.scratch(action)
    (folder / "src").mkdir()
    _write_etc(folder / "etc")
    binds = [(path, path) for path in context.machine().binds]
    declared = dict(action.inputs)
    for path, node in inputs.items():
        assert isinstance(node, FileNode)
        source = declared[path]
        if path.startswith("src/"):
            _copy(node, folder / path)
        elif path.startswith("host/") and isinstance(source, HostFile):
            binds.append((node.path, source.path))
    shown = tuple((source, target, False) for source, target in outermost(binds))
    sandbox = CommandSandbox(
        str(context.folder.root),
        shown,
        tuple(interpreter_links(context.machine().binds)),
        action.limits,
        copies=tuple((str(folder / name), f"/{name}") for name in ("src", "etc")),
        folders=(_OUT,),
        out=_OUT,
    )
    command = [sys.executable, "-I", "-m", "bkrules.testing.collect", action.arguments[-1], f"{_OUT}/{_TESTS}"]
    log = folder / "log"
    ended = context.processes.run_in_sandbox(command, "/src", dict(action.environment), str(log), sandbox)
    made = f"/proc/self/fd/{ended.out}"
    if ended.code:
        over = limit_text(action.limits, limit_met(ended, log))
        document = outputs.read(made, _TESTS, MOST_OUTPUT) if ended.out is not None and not over else None
        if ended.out is not None:
            os.close(ended.out)
        raise _failure(action, context, over or f"exit status {ended.code}", document, outputs.tail(log))
    most = action.limits.disk << 20
    return Outcome(
        Status.PASSED,
        dict.fromkeys(action.outputs, f"{made}/{_TESTS}"),
        most=most,
        handle=ended.out,
        unlimited=ended.unlimited,
    )


def _write_etc(folder: Path) -> None:
    folder.mkdir()
    for name, text in ETC.items():
        (folder / name).write_text(text)


def _copy(node: FileNode, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(node.path, target)
    target.chmod(0o755 if node.executable else 0o644)


def _failure(action: Action, context: RunContext, how: str, document: bytes | None, log: str) -> ActionFailed:
    """Return pytest's error for a module that it could not collect, with its place."""
    module = parameters_of(action, CollectTests).module
    errors, missing = _errors_in(document)
    ended = _TOO_LONG if _HANGS in log else f"{how} before pytest could report a reason"
    where, what = errors[0] if errors else (place_in(log), last_line(log) if document is not None else ended)
    hint = hint_of(missing, module, context.out.parent, dict(action.inputs))
    if not hint and "ModuleNotFoundError" in what:
        hint = "it is no file next to the test or above it, and not installed with bk"
    return ActionFailed(
        "collection-failed",
        f"pytest cannot collect {module}: {what}",
        where=where or f"{module}:1",
        hint=hint,
        log=log,
    )


def _errors_in(document: bytes | None) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the errors in a list of tests, each with its place, and the missing names; empty for a malformed file."""
    if document is None:
        return [], []
    try:
        collected = Collected.parse(json.loads(document))
    except (ValueError, RecursionError):
        return [], []
    return [(error.where, error.what) for error in collected.errors], list(collected.missing)
