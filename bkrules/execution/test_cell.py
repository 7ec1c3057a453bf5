"""The runner of TestCell: one test, on one worker, at one point of the axes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bkrules.action import Action, Node
from bkrules.errors import MachineLacks
from bkrules.execution import timeline
from bkrules.execution.result import Attempt, CellReport, Outcome
from bkrules.execution.runner import Workshop
from bkrules.execution.sandbox import run_in_cell
from bkrules.why import KEY, PREVIOUS

SANDBOXES = 2
"""How often a cell runs while its infrastructure fails."""
FLAKY = 3
"""How often the test of a matrix runs that is declared as flaky; Bazel's number."""


_ATTEMPT = "attempt_"


def run_test_cell(action: Action, inputs: Mapping[str, Node], workshop: Workshop) -> Outcome:
    """Run the cell and keep its logs in `bk-out`. Raises MachineLacks when the worker cannot run here.

    What passes at a later attempt is flaky. The logs of earlier attempts are kept in the folders `attempt_1` and so on. How
    often it may run is in no key, since only what passes at once is kept.
    """
    assert action.cell is not None
    check_machine(action, workshop)
    folder = workshop.cell_folder(action)
    _empty(folder)
    most = workshop.test_attempts or (FLAKY if action.cell.flaky else 1)
    attempts: list[Attempt] = []
    while True:
        began = time.monotonic()
        result = _run(action, inputs, workshop, folder)
        seconds = time.monotonic() - began
        status, failure, reason = result["status"], result.get("class", ""), result.get("reason", "")
        attempts.append(Attempt(status, seconds, "test.log", failure, reason))
        if not may_try_again(attempts, most):
            break
        aside = f"{_ATTEMPT}{len(attempts)}"
        _put_aside(folder, aside)
        attempts[-1] = replace(attempts[-1], log=f"{aside}/test.log")
    if status == "passed" and len(attempts) > 1:
        before = attempts[-2]
        status, failure = "flaky", before.failure
        reason = f"passed at attempt {len(attempts)}, after: {before.reason}"
    egress = tuple((one["who"], one["what"]) for one in result.get("egress", ()))
    report = CellReport(tuple(attempts), egress, tuple(result["unlimited"]), tuple(result.get("tainted", ())))
    outputs = {name: str(folder / name) for name in action.outputs}
    return Outcome(status, outputs, reason, failure, report)


def may_try_again(attempts: Sequence[Attempt], most: int) -> bool:
    """Whether a cell that ended like this runs once more: by the class of its last failure, which counts for itself.

    A failed infrastructure gets one more sandbox, a failed test as many attempts as were asked for. Time that is over is over:
    what took too long would take as long again.
    """
    last = attempts[-1]
    allowed = {"infrastructure": SANDBOXES, "test": most}.get(last.failure, 1)
    return last.status == "failed" and sum(one.failure == last.failure for one in attempts) < allowed


def _run(action: Action, inputs: Mapping[str, Node], workshop: Workshop, folder: Path) -> dict[str, Any]:
    """One attempt; what the cell said of its end."""
    folder.mkdir(parents=True, exist_ok=True)
    if action.parameters["isolation"] == "worker":
        result = workshop.shared.run(action, inputs, workshop, folder)
    else:
        result = run_in_cell(action, inputs, workshop, str(folder), program="test", name=action.title)
    if not (folder / "test.log").exists():
        (folder / "test.log").write_text(result.get("detail") or result.get("reason") or "")
    (folder / timeline.RESULT).write_text(json.dumps(result, sort_keys=True))
    if result["status"] not in ("passed", "skipped"):
        timeline.write(folder)
    return result


def _empty(folder: Path) -> None:
    """Remove what an earlier run left in the cell's folder, but for its key, by which `bk why` tells why this one ran."""
    key = folder / KEY
    kept = key.read_bytes() if key.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    if kept is not None:
        folder.mkdir(parents=True)
        (folder / PREVIOUS).write_bytes(kept)


def _put_aside(folder: Path, name: str) -> None:
    """Move all that an attempt left in a folder to a new folder in it, beside those of attempts before."""
    moved = sorted(path for path in folder.iterdir() if path.name != PREVIOUS and not path.name.startswith(_ATTEMPT))
    (folder / name).mkdir()
    for path in moved:
        path.rename(folder / name / path.name)


def check_machine(action: Action, workshop: Workshop) -> None:
    """Raise MachineLacks when this machine lacks what the action's worker needs."""
    spec = action.parameters
    host = workshop.machine().host
    worker = workshop.plugins.workers[spec["plugin"]].from_settings(spec["settings"])
    lacks = [*host.lacks(), *worker.preflight(host)]
    if lacks:
        name = action.cell.worker if action.cell else spec["plugin"]
        reasons = "; ".join(f"{lack.what}: {lack.why}" for lack in lacks)
        remedies = "\n".join(dict.fromkeys(lack.remedy for lack in lacks))
        raise MachineLacks("preflight", f"{name} cannot run here: {reasons}", hint=remedies)
