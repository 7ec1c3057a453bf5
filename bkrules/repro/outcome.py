"""Outcomes of a cell, and whether two of them are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bkrules.cell.protocol import CellResult, TestResult
from bkrules.execution.layout import RESULT
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import one_of
from bkrules.repro.manifest import Recorded
from bkrules.system.files import read_regular, text_or_nothing
from bkrules.testing.pytest_text import OWN_TEST, place_in

LOG = "test.log"
MOST = 4 << 20
_VARIES = re.compile(r"(?<!exit code: )(?<!exit status )\b(?=\w*\d)\w+\b")
"""A word with a digit: a number, a digest, an id, a temporary name; the code with which a command ends stays the same."""
_NO_KIND = (FailureClass.TEST, FailureClass.TIMEOUT, FailureClass.SKIP)
"""The classes that a status tells by itself."""
_SHOWN = 240


def outcome(result: CellResult, folder: Path) -> Recorded:
    """Return how a cell ended, whose logs are in a folder."""
    place = place_in(text_or_nothing(folder / LOG)) if result.status not in (Status.PASSED, Status.SKIPPED) else ""
    place = "" if place.startswith(f"{OWN_TEST}:") else place  # a line of bk, and none of the user
    seconds = round(sum(result.seconds.values()), 3)
    return Recorded(status=result.status, failure=result.failure, reason=result.reason, place=place, seconds=seconds)


def kept(folder: Path) -> CellResult:
    """Return the result that bk has kept in a cell's folder. Raises OSError, and ValueError for a malformed one."""
    result: CellResult = one_of(json.loads(read_regular(folder / RESULT, MOST)), CellResult, TestResult)
    return result


def is_same(one: Recorded, other: Recorded) -> bool:
    """Return whether two outcomes are the same: status, class and place, and the reason but for what varies in each run.

    bk ends a reason with a hint, after a semicolon, where the workspace has a file that the test did not find.
    """
    if (one.status, one.failure, one.place) != (other.status, other.failure, other.place):
        return False
    short, long = sorted((_VARIES.sub("#", each.reason.partition("\n")[0]) for each in (one, other)), key=len)
    return long == short or long.startswith(f"{short}; ")


def shown(result: Recorded) -> str:
    """Return an outcome in one line, without anything that a terminal would obey."""
    kind = f" ({result.failure})" if result.failure and result.failure not in _NO_KIND else ""
    place = f", {result.place}" if result.place and not result.reason.startswith(result.place) else ""
    reason = f": {result.reason.partition(chr(10))[0]}" if result.reason else ""
    return plain(f"{result.status}{kind}{place}{reason}")


def plain(text: str, most: int = _SHOWN) -> str:
    """Return a text of a stranger as one line that no terminal obeys, of at most `most` characters."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[:most])
    return f"{line}..." if len(text) > most else line
