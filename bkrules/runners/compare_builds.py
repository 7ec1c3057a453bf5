"""The runner of CompareBuilds: the results of one build in several cells, compared."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bkrules.declarative.differences import Agreement, compare, details, headlines
from bkrules.declarative.seen import MOST, Seen, read_seen
from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext
from bkrules.execution.result import Attempt, CellReport, Outcome
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.parameters import CompareBuilds, parameters_of
from bkrules.model.status import FailureClass, Status
from bkrules.rules.build_test import REPORT
from bkrules.sandbox import outputs

_LOG = "test.log"


def compare_builds(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Compare, and write what differs into the folder of the cell. Raises ActionFailed for a result that bk cannot read."""
    began = time.monotonic()
    parameters = parameters_of(action, CompareBuilds)
    places = [path for path in sorted(inputs) if path.startswith("seen/")]
    results = {cell: _read(action, cell, inputs[path]) for cell, path in zip(parameters.cells, places, strict=True)}
    points = dict(zip(parameters.cells, parameters.points, strict=True))
    agreement = compare(results, points, parameters.expected)
    problems = _problems(agreement, results)
    folder = context.cell_folder(action)
    outputs.remove_tree(folder)
    folder.mkdir(parents=True)
    (folder / REPORT).write_text(json.dumps(agreement.to(), indent=1, sort_keys=True))
    (folder / _LOG).write_text(_text(agreement, problems, len(results)))
    status = Status.FAILED if problems else Status.PASSED
    failure = FailureClass.TEST if problems else FailureClass.NONE
    reason = f"{problems[0]}{f' (and {len(problems) - 1} more)' if problems[1:] else ''}" if problems else ""
    report = CellReport((Attempt(status, time.monotonic() - began, _LOG, failure, reason),))
    made = {name: str(folder / name) for name in action.outputs}
    return Outcome(status, made, reason, failure, report)


def _read(action: Action, cell: str, node: Node) -> Seen:
    assert isinstance(node, FileNode)
    if node.digest.size > MOST:
        what = f"{action.label}: the result of {cell} has {node.digest.size >> 20} MiB, but the most is {MOST >> 20}"
        raise ActionFailed("bad-output", what, hint="build less in one test")
    try:
        return read_seen(Path(node.path).read_bytes())
    except ValueError as error:
        raise ActionFailed("bad-output", f"{action.label}: the result of {cell} is malformed: {error}") from error


def _problems(agreement: Agreement, results: Mapping[str, Seen]) -> list[str]:
    if all(seen.failure for seen in results.values()):
        first = next(iter(results.values())).failure
        return [f"the build failed in all {len(results)} cells: {first}"]
    unused = [f"no difference is {json.dumps(dict(entry))}: remove it from 'expected'" for entry in agreement.unused]
    return [*headlines(agreement.unexpected), *unused]


def _text(agreement: Agreement, problems: Sequence[str], cells: int) -> str:
    """Return the log: the problems at its end, where a summary shows them."""
    parts = [f"{cells} results of the same build"]
    parts += [f"{cell}: {why}" for cell, why in agreement.unknown.items()]
    for title, differences in (
        ("expected", agreement.expected),
        ("consequence", agreement.consequences),
        ("difference", agreement.unexpected),
    ):
        parts += [f"{title}: {line}" for line in details(differences)]
    return "\n".join([*parts, *(problems or ["they agree"]), ""])
