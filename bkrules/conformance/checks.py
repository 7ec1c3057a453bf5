"""The requirements on a worker that can be checked without a cell, and on its cells once they have run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bkrules.conformance.facts import differences
from bkrules.execution.result import Result
from bkrules.model.status import FailureClass
from bkrules.plugin import ask
from bkrules.plugin.host import probe
from bkrules.plugin.worker import SettingsError, Worker

_MISSING = re.compile(r"No such file or directory: '([^']+)'")
MAY_ASK_OUTSIDE = "test_what_the_mirror_lacks_is_not_found"


def _settings(worker: Worker) -> str:
    kind = type(worker)
    try:
        hash(worker)
        ask.made(kind, {})
    except (TypeError, SettingsError) as error:
        return f"it must be a frozen dataclass whose defaults fit together: {error}"
    bare = [name for name, one in ask.described(kind).items() if not one["help"]]
    return f"no help for {', '.join(bare)}" if bare else ""


def _name(worker: Worker) -> str:
    ask.id_of(worker)
    return ""


def _same_everywhere(worker: Worker) -> str:
    try:
        differ = differences(worker)
    except subprocess.CalledProcessError as error:
        return f"another process cannot compute them: {error.stderr.strip().splitlines()[-1]}"
    return f"{', '.join(differ)} differ with the folder, environment, host name or order of sets" if differ else ""


def _preflight(worker: Worker) -> str:
    """Check `preflight` on a machine that lacks everything, and on one without ids for users."""
    nothing = probe("/nowhere/")
    for host in (nothing, dataclasses.replace(nothing, root=True, user_namespaces=1, fuse=True)):
        for lack in ask.preflight(worker, host):
            if not (lack.what and lack.why and lack.remedy):
                return f"a lack must say what, why and what to do, but was {lack!r}"
    return ""


CHECKS: tuple[tuple[str, Callable[[Worker], str]], ...] = (
    ("its settings have help texts and defaults", _settings),
    ("its id can be a part of a cell's name", _name),
    ("the values in keys are the same everywhere", _same_everywhere),
    ("preflight says what a machine lacks", _preflight),
)
"""The promise of each check, and the function that returns its violations."""


def violations(worker: Worker, check: Callable[[Worker], str]) -> str:
    """Return what a check finds, or the fault of the method that it called."""
    try:
        return check(worker)
    except ask.WorkerFault as fault:
        return fault.message


def without_fallback(result: Result) -> Result:
    """Return a result without the attempts to leave the cell that its test provokes.

    A daemon asks the registry itself for what its mirror does not have. It cannot reach that, and no worker can prevent it.
    """
    cell = result.action.cell
    if cell is None or cell.test != MAY_ASK_OUTSIDE or result.ran is None:
        return result
    return dataclasses.replace(result, ran=dataclasses.replace(result.ran, egress=()))


def unkeyed_files(cells: Iterable[Result]) -> Iterator[str]:
    """Yield a line for each file of this machine that a worker's `start` reads, and that no cell has, since no key does."""
    found: dict[tuple[str, str], None] = {}
    for result in cells:
        assert result.action.cell is not None
        for path in _MISSING.findall(result.reason):
            if result.failure == FailureClass.INFRASTRUCTURE and os.path.exists(path):
                found[result.action.cell.worker, path] = None
    for worker, path in found:
        yield f"start() of {worker} reads {path}, which is in no key: make it data of the plugin's package"


def of_cells(cells: list[Result], folder: Path) -> Iterator[str]:
    """Return the violations of cells that their status does not show; `folder` is that of their target in `bk-out`."""
    for result in cells:
        cell = result.action.cell
        assert cell is not None
        file = folder / cell.folder / "result.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        if cell.test != MAY_ASK_OUTSIDE:  # see `without_fallback`
            yield from (f"{cell.name}: {one['who']} tried to reach {one['what']}" for one in said.get("egress", ()))
        yield from (f"{cell.name}: the shared worker is not as it was: {one}" for one in said.get("tainted", ()))
    yield from unkeyed_files(cells)
