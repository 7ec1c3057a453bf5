"""The results of cells that ran on an engine: those that caches keep, and those of failures with their logs.

bk's runner on the other machine says in `stderr_raw` how the cell ended, and in `result.json` with which class of failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.errors import ActionFailed
from bkrules.execution import cell_answers
from bkrules.execution.cell_folder import empty
from bkrules.execution.layout import KEY, PREVIOUS, RESULT
from bkrules.execution.portable import WORD
from bkrules.execution.portable_cell import OUT
from bkrules.model import reapi
from bkrules.model.action import Action, DirectoryNode, FileNode
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

    def write_outputs(self, folder: Path, *, fetched: bool) -> str:
        """Replace the outputs in a cell's folder by those of this run, or by nothing when they are not `fetched`.

        Of a failure, whose outputs are not those declared, only the logs. Return the path of the test's log; empty for none.
        """
        empty(folder)
        if not fetched:
            return ""
        folder.mkdir(parents=True, exist_ok=True)
        is_declared = self.may_be_kept or self.status in GOOD
        for name, node in self.result.outputs.items():
            if isinstance(node, FileNode) and (is_declared or "/" not in name):
                _write(folder, name, node)
            elif isinstance(node, DirectoryNode) and is_declared:
                for path, file in node.files.items():
                    _write(folder, f"{name}/{path}", file)
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
            raise actions.lack(action.title)
        answer = actions.cas.read(file.digest) or b""
        result = replace(found, above="")
        if kept:
            known = cell_answers.parse(answer)
            return CellElsewhere(known.status, known.failure, known.reason, result, True)
        return CellElsewhere(status, _class_of(answer), cell_answers.shown(reason), result, False)
    except ValueError as error:
        raise ActionFailed("bad-output", f"{action.title}: not the result of that cell: {error}") from None


def _write(folder: Path, name: str, file: FileNode) -> None:
    if name not in (KEY, PREVIOUS):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs.replace(path.parent, path.name, Path(file.path).read_bytes())


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
