"""The arguments of hooks inside of a cell: the cell, and the result of its program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bkrules.plugin.daemon import Daemons

STATUSES = ("passed", "failed", "skipped", "timed out")
CLASSES = ("test", "infrastructure", "resources", "timeout", "skip")
"""The classes that a cell may report itself. Leaks and lacks of the machine are only visible from outside."""


class Cell(Protocol):
    """A cell before it runs: a point of a matrix."""

    @property
    def name(self) -> str:
        """BuildKit's name of the cell, such as `test_pull/worker=oci/compression=gzip`."""

    @property
    def test(self) -> str:
        """The name of its test."""

    @property
    def worker(self) -> str:
        """The worker's name in cells."""

    @property
    def axes(self) -> tuple[tuple[str, str], ...]:
        """Its axes, each with the name of the value."""


class Action(Protocol):
    """An action of a build: bk runs it unless a cache has its result."""

    @property
    def title(self) -> str:
        """How bk names it to the user."""

    @property
    def mnemonic(self) -> str:
        """Its kind, such as `GoBuild` or `TestCell`."""

    @property
    def label(self) -> object:
        """The label of its target."""

    @property
    def cell(self) -> Cell | None:
        """The cell; None for an action that is no test."""


class Result(Protocol):
    """The result of an action."""

    @property
    def action(self) -> Action:
        """The action."""

    @property
    def status(self) -> str:
        """`passed`, `flaky`, `failed`, `timed out`, `skipped` or `not run`."""

    @property
    def cached(self) -> bool:
        """Whether a cache had it."""

    @property
    def seconds(self) -> float:
        """Seconds that the action took when it ran, which for a cached result was another time."""

    @property
    def failure(self) -> str:
        """The class of what went wrong; empty for nothing."""

    @property
    def reason(self) -> str:
        """One sentence that says why; may be empty."""


class Build(Protocol):
    """A build that is over."""

    @property
    def results(self) -> Sequence[Result]:
        """The result of each action."""

    @property
    def seconds(self) -> float:
        """Seconds that the build took."""

    @property
    def exit_code(self) -> int:
        """The exit code of bk."""


class Mark(Protocol):
    """A pytest mark of a test, as it is written; `arguments` and `keywords` are None where they are no literals."""

    @property
    def arguments(self) -> tuple[Any, ...] | None:
        """The positional arguments."""

    @property
    def keywords(self) -> Mapping[str, Any] | None:
        """The keyword arguments."""


class Test(Protocol):
    """A test as bk reads it from its file."""

    @property
    def name(self) -> str:
        """Its name, with the class before it and the parameters after it."""

    def mark(self, name: str, /) -> Mark | None:
        """Return its mark of that name."""


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
