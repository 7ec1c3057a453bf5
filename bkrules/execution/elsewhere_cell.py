"""The results of cells that ran on an engine: those that caches keep, and those of failures with their logs.

bk's runner on the other machine says in `stderr_raw` how the cell ended, and in `result.json` with which class of failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.errors import ActionFailed, RemoteFailed
from bkrules.execution import cell_answers
from bkrules.execution.cell_folder import empty
from bkrules.execution.layout import KEY, PREVIOUS, RESULT
from bkrules.execution.portable import WORD
from bkrules.execution.portable_cell import OUT
from bkrules.model import reapi
from bkrules.model.action import Action, FileNode
from bkrules.model.status import GOOD, FailureClass, Status
from bkrules.sandbox import outputs

_LOG = "test.log"
_STREAMS = {"stdout_raw": b"", "stdout_digest": None, "stderr_raw": b"", "stderr_digest": None}


@dataclass(frozen=True)
class CellElsewhere:
    """How a cell ended on an engine. The bytes of its outputs may not be on the disk."""

    status: Status
    failure: FailureClass
    reason: str
    result: ActionResult
    may_be_kept: bool

    def write_logs(self, folder: Path) -> str:
        """Replace the logs in a cell's folder by those of this run. Return the path of the test's log; empty for none."""
        empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, node in self.result.outputs.items():
            if isinstance(node, FileNode) and "/" not in name and name not in (KEY, PREVIOUS):
                outputs.replace(folder, name, Path(node.path).read_bytes())
        return str(folder / _LOG) if _LOG in self.result.outputs else ""


def read(action: Action, message: reapi.Message, said: str, actions: ActionCache) -> CellElsewhere | None:
    """Return the result of a cell in an ActionResult, with the text of its stderr; None when bk's runner did not get so far.

    Raises ActionFailed for what is no result of that cell, and RemoteFailed when the cache lacks a part of it.
    """
    kept = not message["exit_code"]
    plain = {**message, **_STREAMS, "exit_code": 0, "execution_metadata": message["execution_metadata"] or {}}
    if not kept and not any(item["path"] == OUT + RESULT for item in message["output_files"]):
        return None
    try:
        data = reapi.encode("ActionResult", plain)
        status, reason = (Status.PASSED, "") if kept else _told(action, said)
        found = actions.read(data, action.declared if status in GOOD else None, OUT)
        file = None if found is None else cell_answers.file_of(found.outputs)
        if found is None or file is None or file.digest.size > cell_answers.MOST or actions.fetch([file]):
            raise RemoteFailed("remote-cache", f"{action.title}: the remote cache lacks the result of it")
        answer = actions.cas.read(file.digest) or b""
        result = replace(found, above="")
        if kept:
            known = cell_answers.parse(answer)
            return CellElsewhere(known.status, known.failure, known.reason, result, True)
        return CellElsewhere(status, _class_of(answer), cell_answers.shown(reason), result, False)
    except ValueError as error:
        raise ActionFailed("bad-output", f"{action.title}: not the result of that cell: {error}") from None


def _told(action: Action, text: str) -> tuple[Status, str]:
    """Return the status and the reason that bk's runner tells. Raises ValueError."""
    beginning = f"{WORD}the cell {action.title}: "
    status, colon, reason = text.removeprefix(beginning).partition(": ")
    if not (text.startswith(beginning) and colon):
        raise ValueError("it does not say how the cell ended")
    return Status(status), reason.rstrip("\n")


def _class_of(data: bytes) -> FailureClass:
    """Return the class of a failure in the file of a result. Raises ValueError."""
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    name = document.get("class", "") if isinstance(document, dict) else ""
    return FailureClass(name)
