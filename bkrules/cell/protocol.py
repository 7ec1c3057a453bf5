"""The messages between bk, the zygote, the supervisor of a cell, its first process, and the test in it.

    bk --CellSpec--> zygote --fork--> supervisor --fork--> first process --fork--> test
    test --Outcome--> first process --Root, Ready, TestResult, CellResult--> supervisor --Mirror, Ready, ...--> bk
    bk --StartTest, Command, End--> supervisor --Go, StartTest, Command, End--> first process

A test in a cell is root. It can write its own outcome, and write to the channel of the cell's first process. So all messages from a
cell are untrusted: the reader refuses a message of any other form than those here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, ClassVar

from bkrules.model.parameters import (
    UNCHANGED,
    AxisValue,
    CellLimits,
    OneTest,
    WorkerUpdate,
)
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire, one_of
from bkrules.plugin import cell

STATUSES = tuple(map(Status, cell.STATUSES))
CLASSES = (FailureClass.NONE, *map(FailureClass, cell.CLASSES))
"""The classes that a cell may report itself. Leaks and lacks of the machine are only visible from outside."""
EVENT = "event"
_LONGEST_REASON = 1 << 16


class Program(StrEnum):
    """The program of a cell: one test, several one after the other, a user's session, or commands.

    `kept` is one test, and a user's session when it has failed. `debugged` is one test under pdb, on a terminal of the user.
    """

    TEST = "test"
    TESTS = "tests"
    SESSION = "session"
    COMMANDS = "commands"
    KEPT = "kept"
    DEBUGGED = "debugged"


@dataclass(frozen=True, kw_only=True)
class TestRequest(OneTest):
    """The test that a cell runs.

    `name` is that of the cell, `timeout` is in seconds.
    """

    __test__ = False  # not a test, despite its name

    name: str
    worker: str
    axes: Mapping[str, AxisValue]
    timeout: float


@dataclass(frozen=True, kw_only=True)
class ExtraSpec(Wire):
    """An extra worker, as `CellSpec` has the first. `folder` has its binaries in `bin`, and `config`."""

    id: str
    label: str
    worker_class: str
    settings: Mapping[str, object]
    unsupported: tuple[str, ...]
    folder: str


@dataclass(frozen=True, kw_only=True)
class CellSpec(Wire):
    """A cell: its inputs and its program.

    `name` is that of the cell or target, and `worker` that of the worker in cells. `worker_class` is `module:Class`;
    `python_path` and `modules` are the places of its code and the other imports. `plugins` are modules that act in
    every cell, and `owners` the distributions of modules.

    The cell sees `binds` of the machine (source, target), `copies` of files (source, target, executable) and symbolic
    `links` (path, target). `root` and `views` are folders of the run, `out` gets the logs and outputs. `cgroup` is a
    path, and so are `limited`, by the names of controllers. `timeout` is in seconds. `traced` are daemons that run under
    strace, `extra_workers` those that a test may start. The command `mke2fs` makes the root, if it is an ext4.
    """

    TAG: ClassVar = ("kind", "cell")

    program: Program
    name: str
    worker: str
    worker_class: str
    settings: Mapping[str, object]
    unsupported: tuple[str, ...]
    limits: CellLimits
    python_path: tuple[str, ...]
    modules: tuple[str, ...]
    environment: Mapping[str, str]
    timeout: float
    root: str
    views: str
    out: str
    cgroup: str
    limited: Mapping[str, str]
    binds: tuple[tuple[str, str], ...]
    copies: tuple[tuple[str, str, bool], ...]
    links: tuple[tuple[str, str], ...]
    plugins: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    isolation: str = ""
    update: WorkerUpdate = UNCHANGED
    test: TestRequest | None = None
    commands: tuple[tuple[str, ...], ...] = ()
    traced: tuple[str, ...] = ()
    extra_workers: tuple[ExtraSpec, ...] = ()
    mke2fs: str = ""


@dataclass(frozen=True)
class StartTest(Wire):
    """Run a test on a shared worker. `sources` are its files by path: content in base64, and whether executable.

    `out` is the folder of its logs, which only the supervisor learns.
    """

    TAG: ClassVar = (EVENT, "test")

    test: TestRequest
    sources: Mapping[str, tuple[str, bool]]
    out: str = ""


@dataclass(frozen=True)
class Command(Wire):
    """Run a command in the cell of a session. `size` is that of its terminal, if it has one: rows and columns.

    It is killed after `seconds`; 0 means never. In a cell whose test is debugged there are no `arguments`: the test runs.
    """

    TAG: ClassVar = (EVENT, "command")

    arguments: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0


@dataclass(frozen=True)
class End(Wire):
    """End the cell."""

    TAG: ClassVar = (EVENT, "end")


@dataclass(frozen=True)
class Go(Wire):
    """The first process may continue: a jail has its ids, or the limits apply."""

    TAG: ClassVar = (EVENT, "go")


@dataclass(frozen=True)
class Mirror(Wire):
    """The socket of the cell's mirror, as a descriptor of this message."""

    TAG: ClassVar = (EVENT, "mirror")


@dataclass(frozen=True)
class Root(Wire):
    """The root is made, on this device; the folder /out is a descriptor of this message."""

    TAG: ClassVar = (EVENT, "root")

    device: int


@dataclass(frozen=True)
class Ready(Wire):
    """A session is ready. `pid` is that of the cell's first process in the supervisor's namespace.

    `reason` is why the test before it has failed. `address` is empty when no backend is ready. `daemons` are their names.
    """

    TAG: ClassVar = (EVENT, "ready")

    address: str
    environment: Mapping[str, str]
    pid: int = 0
    reason: str = ""
    daemons: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Attempt(Wire):
    """An attempt to leave a cell. `who` is the name of a process, `what` an address or a host name."""

    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.who} tried to reach {self.what}"


@dataclass(frozen=True)
class Outcome(Wire):
    """The outcome of a test, as reported by its own process. `missing` are the modules and files that it did not find."""

    NAMES: ClassVar = {"failure": "class"}

    status: Annotated[Status, STATUSES.__contains__]
    failure: Annotated[FailureClass, CLASSES.__contains__] = FailureClass.NONE
    reason: str = ""
    missing: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: bytes) -> Outcome | None:
        """Return the outcome in these bytes; None when they are malformed. A long reason is truncated."""
        try:
            found = cls.parse(json.loads(data))
        except (
            ValueError,
            TypeError,
            RecursionError,
        ):  # a test that is killed while it writes has not written it completely
            return None
        return replace(found, reason=found.reason[:_LONGEST_REASON])


@dataclass(frozen=True)
class CellResult(Wire):
    """The result of a cell, or of a test in it.

    `began` is in seconds since the epoch; `seconds` are those of each phase; `fuse` are the numbers of its FUSE
    connections; `exit_code` is that of a session's command. Four facts are only known outside: `egress` are the attempts
    to leave, `unlimited` the limits that this machine could not apply, `unmet` whether no request met the faults of the
    mirror, and `pulled` the number of requests to the mirror and of bytes of its answers, by repository.
    """

    TAG: ClassVar = (EVENT, "result")
    NAMES: ClassVar = {"failure": "class"}

    status: Status
    failure: FailureClass = FailureClass.NONE
    reason: str = ""
    detail: str = ""
    missing: tuple[str, ...] = ()
    began: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    fuse: tuple[Annotated[int, lambda number: number >= 0], ...] = ()
    exit_code: int | None = None
    tainted: tuple[str, ...] = ()
    egress: tuple[Attempt, ...] = ()
    unlimited: tuple[str, ...] = ()
    unmet: bool = False
    pulled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TestResult(CellResult):
    """The result of a test on a shared worker. `tainted` are the differences of the worker's state from before the test."""

    __test__ = False  # not a test, despite its name
    TAG: ClassVar = (EVENT, "cell")


Said = Root | Ready | TestResult | CellResult
_SAID: Mapping[Program, tuple[type[Wire], ...]] = {
    Program.TEST: (Root, CellResult),
    Program.TESTS: (Root, CellResult, TestResult),
    Program.SESSION: (Root, CellResult, Ready),
    Program.COMMANDS: (Root, CellResult),
    Program.KEPT: (Root, CellResult, Ready),
    Program.DEBUGGED: (Root, CellResult, Ready),
}


def said_by_cell(document: object, program: Program) -> Said:
    """Return the message of a cell's first process, in which `program` runs, or of a test that writes in its place.

    Only sessions become ready, and only shared cells have a result for each test. Raises ValueError for any other
    message.
    """
    message = one_of(document, *_SAID[program])
    assert isinstance(message, Root | Ready | CellResult)
    if isinstance(message, CellResult):
        if message.status not in STATUSES or message.failure not in CLASSES:
            raise ValueError(f"a cell is not {message.status} by itself, with the class {message.failure!r}")
        if (
            message.egress
            or message.unlimited
            or message.pulled
            or (message.tainted and not isinstance(message, TestResult))
        ):
            raise ValueError("it has fields that only the supervisor sets")
    return message


def said_to_bk(document: object) -> Mirror | Ready | TestResult | CellResult:
    """Return the message of a supervisor. Raises ValueError for a malformed one."""
    message = one_of(document, Mirror, Ready, TestResult, CellResult)
    assert isinstance(message, Mirror | Ready | CellResult)
    return message


def said_by_bk(document: object) -> StartTest | Command | End:
    """Return the message of bk for a running cell. Raises ValueError for a malformed one."""
    message = one_of(document, StartTest, Command, End)
    assert isinstance(message, StartTest | Command | End)
    return message
