"""The runner of TestCell: one test, on one worker, at one point of the axes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from bkrules.action import Action, Node
from bkrules.errors import MachineLacks
from bkrules.execution.result import CellReport, Outcome
from bkrules.execution.runner import Workshop
from bkrules.execution.sandbox import run_in_cell
from bkrules.why import KEY, PREVIOUS

ATTEMPTS = 2


def run_test_cell(action: Action, inputs: Mapping[str, Node], workshop: Workshop) -> Outcome:
    """Run the cell and keep its logs in `bk-out`. Raises MachineLacks when the worker cannot run here.

    When the infrastructure failed and not the test, it is run once more in another sandbox; what passes then is flaky. The logs
    of the first attempt are kept in the folder `attempt_1`.
    """
    assert action.cell is not None
    check_machine(action, workshop)
    folder = workshop.cell_folder(action)
    _empty(folder)
    first = ""
    for attempt in range(1, ATTEMPTS + 1):
        folder.mkdir(parents=True, exist_ok=True)
        if action.parameters["isolation"] == "worker":
            result = workshop.shared.run(action, inputs, workshop, folder)
        else:
            result = run_in_cell(action, inputs, workshop, str(folder), program="test", name=action.cell.name)
        if not (folder / "test.log").exists():
            (folder / "test.log").write_text(result.get("detail") or result.get("reason") or "")
        (folder / "result.json").write_text(json.dumps(result, sort_keys=True))
        if result.get("class") != "infrastructure" or attempt == ATTEMPTS:
            break
        first = result["reason"]
        _put_aside(folder, f"attempt_{attempt}")
    status, reason = result["status"], result.get("reason", "")
    if first and status == "passed":
        status, reason = "flaky", f"passed at attempt {attempt}, after: {first}"
    egress = tuple((one["who"], one["what"]) for one in result.get("egress", ()))
    report = CellReport(attempt, egress, tuple(result["unlimited"]), tuple(result.get("tainted", ())))
    outputs = {name: str(folder / name) for name in action.outputs}
    return Outcome(status, outputs, reason, "infrastructure" if status == "flaky" else result.get("class", ""), report)


def _empty(folder: Path) -> None:
    """Remove what an earlier run left in the cell's folder, but for its key, by which `bk why` tells why this one ran."""
    key = folder / KEY
    kept = key.read_bytes() if key.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    if kept is not None:
        folder.mkdir(parents=True)
        (folder / PREVIOUS).write_bytes(kept)


def _put_aside(folder: Path, name: str) -> None:
    """Move all that is in a folder to a new folder in it."""
    moved = sorted(path for path in folder.iterdir() if path.name != PREVIOUS)
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
