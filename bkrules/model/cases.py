"""Files that a test leaves in its cell's folder: undeclared outputs, and the cases of a program, as its own report has them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated

from bkrules.model.status import Status
from bkrules.model.wire import Wire

CASES = "cases.json"
TEST_OUTPUTS = "test.outputs"
"""The folder of a cell for outputs that its test need not declare, named as by Bazel."""
MOST_CASES = 64 << 20
"""The limit in bytes of the file with the cases of a cell."""
OF_A_CASE = (Status.PASSED, Status.FAILED, Status.SKIPPED)


def _is_duration(seconds: float) -> bool:
    return 0 <= seconds < math.inf


@dataclass(frozen=True)
class Case(Wire):
    """One case: its name, and its duration in seconds, 0 where the report does not say it."""

    name: str
    status: Annotated[Status, OF_A_CASE.__contains__]
    seconds: Annotated[float, _is_duration] = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Cases(Wire):
    """The cases of a program, in the order of its report."""

    cases: tuple[Case, ...] = ()

    @classmethod
    def read(cls, data: bytes) -> tuple[Case, ...]:
        """Return the cases in the bytes of the file, which the program could write too; none when they are malformed."""
        try:
            return cls.parse(json.loads(data)).cases
        except (ValueError, TypeError, RecursionError):
            return ()
