"""The requirements on a worker that can be checked without a cell, and on its cells once they have run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from bkrules.conformance.facts import differences
from bkrules.execution.result import Result
from bkrules.plugin.host import Lack, probe
from bkrules.plugin.worker import SettingsError, Worker

MAY_ASK_OUTSIDE = "test_what_the_mirror_lacks_is_not_found"


def _settings(worker: Worker) -> str:
    kind = type(worker)
    try:
        hash(worker)
        kind.from_settings({})
    except (TypeError, SettingsError) as error:
        return f"it must be a frozen dataclass whose defaults fit together: {error}"
    bare = [name for name, one in kind.describe_settings().items() if not one["help"]]
    return f"no help for {', '.join(bare)}" if bare else ""


def _name(worker: Worker) -> str:
    name = worker.id()
    return "" if name and not set(name) & set("/= \t\n") else f"{name!r} cannot be a part of a cell's name"


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
        for lack in worker.preflight(host):
            if not isinstance(lack, Lack) or not (lack.what and lack.why and lack.remedy):
                return f"a lack must say what, why and what to do, but was {lack!r}"
    return ""


CHECKS: tuple[tuple[str, Callable[[Worker], str]], ...] = (
    ("its settings have help texts and defaults", _settings),
    ("its id can be a part of a cell's name", _name),
    ("the values in keys are the same everywhere", _same_everywhere),
    ("preflight says what a machine lacks", _preflight),
)
"""The promise of each check, and the function that returns its violations."""


def of_cells(cells: list[Result], folder: Path) -> Iterator[str]:
    """Return the violations of cells that their status does not show; `folder` is that of their target in `bk-out`."""
    for result in cells:
        cell = result.action.cell
        assert cell is not None
        file = folder / cell.name / "result.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        if cell.test != MAY_ASK_OUTSIDE:
            yield from (f"{cell.name}: {who} tried to reach {what}" for who, what in said.get("egress", ()))
        yield from (f"{cell.name}: the shared worker is not as it was: {one}" for one in said.get("tainted", ()))
