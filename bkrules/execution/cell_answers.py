"""The answers of cells that caches keep: passed, or skipped by the test itself, as `result.json` among the outputs says.

An entry of a cache may come from anybody, so nothing here trusts it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bkrules.execution.layout import RESULT
from bkrules.model.action import FileNode, Node
from bkrules.model.status import FailureClass, Status

MOST = 4 << 20
"""The limit in bytes of the file."""
LONGEST = 1 << 16
"""The limit in characters of a text that is shown."""


@dataclass(frozen=True)
class Answer:
    """How a cell ended."""

    status: Status
    failure: FailureClass = FailureClass.NONE
    reason: str = ""


PASSED = Answer(Status.PASSED)


def file_of(outputs: Mapping[str, Node]) -> FileNode | None:
    """Return the file with the answer; None when the outputs have none, as those of other actions."""
    node = outputs.get(RESULT)
    return node if isinstance(node, FileNode) else None


def parse(data: bytes) -> Answer:
    """Return the answer in a file. Raises ValueError for anything that bk does not keep."""
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"its {RESULT} is malformed") from error
    if not isinstance(document, dict):
        raise ValueError(f"its {RESULT} is no JSON object")
    status, failure, reason = (document.get(name, "") for name in ("status", "class", "reason"))
    if not isinstance(reason, str):
        raise ValueError(f"its {RESULT} has a reason that is no text")
    if status == Status.PASSED:
        return Answer(Status.PASSED, reason=shown(reason))
    if status == Status.SKIPPED and failure == FailureClass.SKIP:
        return Answer(Status.SKIPPED, FailureClass.SKIP, shown(reason))
    raise ValueError(f"its {RESULT} has the status {str(status)[:40]!r} with the class {str(failure)[:40]!r}")


def shown(reason: str) -> str:
    """Return the reason of another machine without what a terminal would obey, and of a limited length."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in reason[:LONGEST])
