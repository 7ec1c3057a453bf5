"""The arguments of hooks inside of a cell: the cell, and the result of its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bkrules.plugin.daemon import Daemons

STATUSES = ("passed", "failed", "skipped", "timed out")
CLASSES = ("test", "infrastructure", "resources", "timeout", "skip")
"""The classes that a cell may report itself. Leaks and lacks of the machine are only visible from outside."""


@dataclass(frozen=True)
class RunningCell:
    """A cell, as its first process sees it.

    Attributes:
        name: The cell's name, such as `test_pull/worker=oci/compression=gzip`.
        worker: The worker's name in cells.
        program: `test` for a cell with one test, `tests` for a worker that several tests share, `commands` for an action
            whose commands use a daemon, `session` for `bk run` and `bk shell`.
        axes: The value of each axis, as the test sees it.
        timeout: Seconds that the program may take.
        daemons: What starts and stops the cell's daemons, with the folders of the cell.
        parameters: What bk's own hooks need. Its form is bk's own, and may change.
    """

    name: str
    worker: str
    program: str
    axes: Mapping[str, Any]
    timeout: float
    daemons: Daemons
    parameters: object = field(repr=False)


@dataclass(frozen=True)
class ProgramResult:
    """The result of a cell's program.

    Attributes:
        status: `passed`, `failed`, `skipped` or `timed out`.
        failure: The class of a failure: `test`, `infrastructure`, `resources`, `timeout`, `skip`; empty when it passed.
        reason: One sentence with the reason; may be empty.
        missing: Names of files that the test did not find.

    Raises ValueError for another status or class.
    """

    status: str
    failure: str = ""
    reason: str = ""
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"the status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.failure and self.failure not in CLASSES:
            raise ValueError(f"the failure class {self.failure!r} is none of {', '.join(CLASSES)}")
        if not isinstance(self.reason, str):
            raise ValueError(f"the reason must be a string, but was {self.reason!r}")
        if not isinstance(self.missing, tuple) or not all(isinstance(name, str) for name in self.missing):
            raise ValueError(f"the missing files must be a tuple of strings, but were {self.missing!r}")
