"""The runner of TestCell: one test, on one worker, at one point of the axes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

from bkrules.action import Action, Node
from bkrules.errors import MachineLacks
from bkrules.execution.result import Outcome
from bkrules.execution.runner import Workshop
from bkrules.execution.sandbox import run_in_cell


def run_test_cell(action: Action, inputs: Mapping[str, Node], workshop: Workshop) -> Outcome:
    """Run the cell and keep its logs in `bk-out`. Raises MachineLacks when the worker cannot run here."""
    assert action.cell is not None
    check_machine(action, workshop)
    folder = workshop.cell_folder(action)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = run_in_cell(action, inputs, workshop, str(folder), program="test", name=action.cell.name)
    if not (folder / "test.log").exists():
        (folder / "test.log").write_text(result.get("detail") or result.get("reason") or "")
    (folder / "result.json").write_text(json.dumps(result, sort_keys=True))
    outputs = {name: str(folder / name) for name in action.outputs}
    return Outcome(result["status"], outputs, result.get("reason", ""), result.get("class", ""))


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
